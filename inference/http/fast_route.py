"""The route of questions, on a short way around FastAPI.

Under load every microsecond of the event loop's thread counts: a whole answer is to cost about as much as an empty
FastAPI route. Measured in one process, CPU time of one question (CPython 3.11, best of nine):

                     here      by the library
    way to a route   2.6 us    31 us in FastAPI, 68 us if it also checks the parameters
    query string     0.5 us    4.2 us in Starlette
    log line         2.4 us    12 us in structlog
    the answer       11 us

All that is special for this reason is in this file; ``app`` has the ordinary routes.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from time import monotonic, perf_counter_ns
from typing import Any
from urllib.parse import unquote_plus

import structlog
from fastapi import FastAPI, Request, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from core.clock import SECOND_MS, iso
from core.errors import StaleKlines, WorkerError
from core.topic import Topic
from inference.answering import InferenceService
from inference.base import Asked
from inference.http.holds import Gone, Holds, Reason
from inference.http.metrics import Metrics
from inference.question import BadQuestion, asker, network_name, refuse_misspelt, whole_number
from inference.waits import TooEarly
from ledger.answer_log import READ_S, Ledger, silent
from ledger.answers import Answer
from ledger.background_writer import BackgroundWriter

GATHER_LINES_S = 0.1  # log lines are written in batches, so that a burst of questions is not slowed by each line
PREFIX = "/inference/"
PLAIN = (b"content-type", b"text/plain; charset=utf-8")
USUAL_QUERY = re.compile(rb"topic=([0-9]{1,18})(?:&height=([0-9]{1,18}))?")

log = structlog.get_logger()


class Application(FastAPI):
    """Answers questions itself, and leaves every other request to FastAPI.

    Args:
        metrics: counts every question.
        journal: gets one log line per question; see ``write_lines``.
        holds: the questions that are held.
    """

    def __init__(
        self, service: InferenceService, metrics: Metrics, journal: "BackgroundWriter[dict[str, Any]]", holds: Holds
    ) -> None:
        super().__init__(openapi_url=None, redirect_slashes=False)
        self._service = service
        self._metrics = metrics
        self._holds = holds
        self._journal = journal
        # A GET of a question never gets this far. Requests with other methods do, and this route gives them 405.
        route = Route(f"{PREFIX}{{token}}", _not_reached, methods=["GET"])
        route.methods = {"GET"}  # without HEAD, which Starlette adds to GET
        self.router.routes.append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            path: str = scope["path"]
            if path.startswith(PREFIX) and len(path) > len(PREFIX) and "/" not in path[len(PREFIX) :]:
                query, asked_by = scope["query_string"], asker(scope["headers"])
                await self._answer(path[len(PREFIX) :], query, asked_by, receive, send)
                return
        await super().__call__(scope, receive, send)

    async def _answer(self, token: str, query: bytes, asked_by: str, receive: Receive, send: Send) -> None:
        """Answer, count and log one question."""
        began_ns, asked_ms = perf_counter_ns(), self._service.now_ms()
        released_ms = asked_ms  # ages count to this moment: when the question came, or when its hold ended
        answer: Answer | None = None
        topic: Topic | None = None
        topic_id = height = None
        try:
            topic_id, height, network, may_wait = _read(query)
            topic = self._service.questions.topic(token, topic_id, network)
            topic_id = topic.topic_id
            if height is not None and self._service.ledger.may_be_elsewhere(topic, height):
                await _recall(self._service.ledger, topic, height)
            # may_hold: until the topic is ready (ANSWER_PATIENCE_S).
            # may_wait: until the answer is worth most (ANSWER_WAIT).
            has_place = self._holds.has_place
            asked = Asked(
                ms=asked_ms, may_hold=has_place and self._holds.patience_s > 0, may_wait=has_place and may_wait
            )
            try:
                answer = self._service.answer(topic, height, asked_by, asked)
            except (StaleKlines, TooEarly) as cause:
                held_ns = perf_counter_ns()
                try:
                    answer = await self._held(topic, height, asked_by, asked, cause, receive)
                finally:
                    began_ns, released_ms = began_ns + perf_counter_ns() - held_ns, self._service.now_ms()
        except Gone:
            self._metrics.client_gone()
            return
        except BadQuestion as error:
            status, text = error.status, str(error)
        except WorkerError as error:
            status, text = 503, str(error)
        except Exception as error:
            log.exception("answer_failed", topic_id=topic_id, height=height)
            status, text = 500, f"internal error: {type(error).__name__}; see the log"
        else:
            status, text = 200, answer.value
        body = text.encode()
        headers = [PLAIN, (b"content-length", b"%d" % len(body)), (b"x-asked", iso(asked_ms).encode())]
        if answer:
            headers += answer.headers(released_ms)
        took_ns = perf_counter_ns() - began_ns
        self._metrics.answered(topic, answer, status, took_ns / 1e9, asked_ms, asked_by)
        line = {
            "topic_id": topic_id,
            "network": topic.network if topic else None,
            "token": token,
            "height": height,
            "status": status,
            "asker": asked_by,
            "asked_ms": asked_ms,
            "took_ms": took_ns / 1e6,
            "held_ms": released_ms - asked_ms,
            **(answer_fields(answer, released_ms) if answer else {"reason": text}),
        }
        if not self._journal.put(line):
            self._metrics.line_dropped()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _held(
        self,
        topic: Topic,
        height: int | None,
        asked_by: str,
        asked: Asked,
        cause: StaleKlines | TooEarly,
        receive: Receive,
    ) -> Answer:
        """Hold a question until it can be answered, or until its answer is worth most; return the answer.

        Args:
            cause: why it is not answered at once.
        Raises:
            WorkerError: no answer yet, and the patience is over or the process ends.
            Gone: the client did not wait.
        """
        held_s: dict[Reason, float] = {}
        patience_ends_s: float | None = None  # when the patience is over
        try:
            while True:
                reason, began_s = Reason.WORTH if isinstance(cause, TooEarly) else Reason.NOT_YET, monotonic()
                if reason is Reason.NOT_YET and not asked.may_hold:
                    raise cause
                with self._holds.place(reason, receive) as place:
                    if isinstance(cause, TooEarly):
                        await place.pause((cause.due_ms - self._service.now_ms()) / SECOND_MS)
                    else:
                        patience_ends_s = patience_ends_s or began_s + self._holds.patience_s
                        await place.until_answerable(topic, patience_ends_s - began_s)
                        if monotonic() >= patience_ends_s:
                            asked = asked._replace(may_hold=False)
                held_s[reason] = held_s.get(reason, 0.0) + monotonic() - began_s
                if place.is_ending:
                    asked = asked._replace(may_hold=False, may_wait=False)
                try:
                    if height is not None:
                        return self._service.answer(topic, height, asked_by, asked)
                    if asked_by not in place.answers:
                        place.answers[asked_by] = self._service.answer(topic, height, asked_by, asked)
                    return place.answers[asked_by]._replace(asked_ms=asked.ms)
                except (StaleKlines, TooEarly) as error:
                    cause = error
        finally:
            for reason, seconds in held_s.items():
                self._metrics.held(reason, seconds)


async def _not_reached(_: Request) -> Response:
    raise AssertionError("questions are answered before the routes")


async def _recall(ledger: Ledger, topic: Topic, height: int) -> None:
    """Bring an older answer from the database into memory, within ``READ_S``.

    Raises:
        WorkerError: the database was too slow. Another answer might contradict the one given before.
    """
    try:
        async with asyncio.timeout(READ_S):
            await asyncio.wrap_future(ledger.look_up(topic, height))
    except TimeoutError:
        raise silent(topic, height) from None


def write_lines(lines: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Log the lines of answers with one write. Runs in a writer's thread, because stdout may block.

    Level, time and service are the same for the whole batch, so the log's processors make them once per batch.
    """
    *describing, render = structlog.get_config()["processors"]
    enabled = log.bind().is_enabled_for
    frames: dict[str, dict[str, Any]] = {}
    for name, level in (("info", logging.INFO), ("warning", logging.WARNING)):
        if enabled(level):
            frame: Any = {"event": "answer"}
            for describe in describing:
                frame = describe(log, name, frame)
            frames[name] = frame
    rendered = [
        render(log, name, {**frames[name], **line})
        for line in lines
        if (name := "info" if line["status"] == 200 else "warning") in frames
    ]
    if rendered:
        structlog.get_config()["logger_factory"]().msg("\n".join(rendered))
    return ()


def _read(raw: bytes) -> tuple[int | None, int | None, str | None, bool]:
    """Return topic id, height and network of a query string, and whether the answer may wait until it is worth most.

    Parameters of other names are ignored.

    Raises:
        BadQuestion: not whole numbers, given twice, or misspelt.
    """
    if not raw:
        return None, None, None, True
    if usual := USUAL_QUERY.fullmatch(raw):
        return int(usual[1]), int(usual[2]) if usual[2] else None, None, True
    given: dict[str, list[str]] = {}
    for part in raw.decode("ascii", "replace").split("&"):
        name, _, value = part.partition("=")
        given.setdefault(unquote_plus(name), []).append(unquote_plus(value))
    refuse_misspelt(given)
    topic_id, height = (whole_number(name, given.get(name, ())) for name in ("topic", "height"))
    return topic_id, height, network_name(given.get("network", ())), given.get("wait") != ["0"]


def answer_fields(answer: Answer, now_ms: int) -> dict[str, Any]:
    """Return what the log and ``/topics`` tell of an answer, as of ``now_ms``."""
    return {
        "version": answer.version,
        "forecast": answer.forecast,
        "asof_ms": answer.asof_ms,
        "anchor_age_ms": answer.anchor_age_ms(now_ms),
        "forecast_age_ms": answer.forecast_age_ms(now_ms),
        "answered_ms": answer.answered_ms,
        "base_ms": answer.base_ms,
        "base_source": answer.base_source,
        "elapsed_ms": answer.elapsed_ms,
        "venue": answer.venue,
        "truth_ratio": answer.truth_ratio,
        "value": answer.value,
    }
