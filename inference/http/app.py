"""The HTTP edge: routes, statuses, and bodies that the offchain node can read.

A 200 of ``/inference`` is the bare decimal. Every failure is one plain line with a status that is not 200, because
the node submits whatever a 200 carries.
"""

import asyncio
import json
import logging
import re
from collections.abc import Sequence
from time import monotonic, perf_counter_ns
from typing import Any
from urllib.parse import unquote_plus

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from core.clock import SECOND_MS, iso
from core.errors import StaleKlines, WorkerError
from core.process.listener import BACKLOG
from core.topic import Target, Topic
from inference.answering import InferenceService
from inference.base import Asked
from inference.http.holds import Gone, Holds, Reason
from inference.http.metrics import Metrics
from inference.question import BadQuestion, asker, network_name, refuse_misspelt, whole_number
from inference.waits import TooEarly
from ledger.answer_log import READ_S, Ledger, silent
from ledger.answers import Answer
from ledger.background_writer import BackgroundWriter
from model.forecaster import NAIVE, NETWORK

GATHER_LINES_S = 0.1  # log lines are written in batches, so that a burst of questions is not slowed by each line
KEEP_ALIVE_S = 75
PREFIX = "/inference/"
PAGES = "there are GET /inference/TOKEN?topic=ID, /topics, /readyz, /healthz and /metrics"
PLAIN = (b"content-type", b"text/plain; charset=utf-8")
USUAL_QUERY = re.compile(rb"topic=([0-9]{1,18})(?:&height=([0-9]{1,18}))?")

log = structlog.get_logger()


class Application(FastAPI):
    """The routes, with the one that earns in front of everything that could make it wait.

    FastAPI's way to a route (middleware, matching, validation of nothing) takes longer than the whole answer.
    """

    def __init__(
        self, service: InferenceService, metrics: Metrics, journal: "BackgroundWriter[dict[str, Any]]", holds: Holds
    ) -> None:
        super().__init__(openapi_url=None, redirect_slashes=False)
        self._service = service
        self._metrics = metrics
        self._holds = holds
        self._journal = journal
        # A question never comes this far; other methods do, and get their 405 from here.
        route = Route(f"{PREFIX}{{token}}", _not_reached, methods=["GET"])
        route.methods = {"GET"}
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
        """One question, answered, counted and logged."""
        began_ns, asked_ms = perf_counter_ns(), self._service.now_ms()
        said_ms = asked_ms  # when the answer is said, but for the time that it takes to make
        answer: Answer | None = None
        topic: Topic | None = None
        topic_id = height = None
        try:
            topic_id, height, network, may_wait = _read(query)
            topic = self._service.questions.topic(token, topic_id, network)
            topic_id = topic.topic_id
            if height is not None and self._service.ledger.may_be_elsewhere(topic, height):
                await _recall(self._service.ledger, topic, height)
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
                    began_ns, said_ms = began_ns + perf_counter_ns() - held_ns, self._service.now_ms()
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
            headers += answer.headers(said_ms)
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
            "held_ms": said_ms - asked_ms,
            **(_of(answer, said_ms) if answer else {"reason": text}),
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
        """The answer to a question that could not be given at once, or was not worth most then.

        Raises:
            WorkerError: there is none yet, and the patience or the process is at its end.
            Gone: the client did not wait.
        """
        held_s: dict[Reason, float] = {}
        refuse_s: float | None = None  # when the patience is over
        try:
            while True:
                reason, began_s = Reason.WORTH if isinstance(cause, TooEarly) else Reason.NOT_YET, monotonic()
                if reason is Reason.NOT_YET and not asked.may_hold:
                    raise cause
                with self._holds.place(reason, receive) as place:
                    if isinstance(cause, TooEarly):
                        await place.pause((cause.due_ms - self._service.now_ms()) / SECOND_MS)
                    else:
                        refuse_s = refuse_s or began_s + self._holds.patience_s
                        await place.until_answerable(topic, refuse_s - began_s)
                        if monotonic() >= refuse_s:
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
    """Wait for what the database has on a question, but not for long.

    Raises:
        WorkerError: it did not say in time. Answering anew might contradict what was answered before.
    """
    try:
        async with asyncio.timeout(READ_S):
            await asyncio.wrap_future(ledger.look_up(topic, height))
    except TimeoutError:
        raise silent(topic, height) from None


def create_app(
    service: InferenceService, metrics: Metrics, journal: "BackgroundWriter[dict[str, Any]]", holds: Holds | None = None
) -> FastAPI:
    """The application over a service that somebody else starts and stops.

    Args:
        metrics: counts every question.
        journal: gets one log line per question; see ``write_lines``.
        holds: of questions; None holds none.
    """
    app = Application(service, metrics, journal, holds or Holds(service, 0.0))

    @app.get("/healthz")
    async def healthz() -> Response:
        return PlainTextResponse("ok")

    @app.get("/readyz")
    async def readyz() -> Response:
        reasons = service.not_ready()
        return PlainTextResponse("\n".join(reasons.values()) or "ready", 503 if reasons else 200)

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/topics")
    async def topics() -> Response:
        not_ready = service.not_ready()
        states = [_state(service, topic, not_ready.get(topic.key, "")) for topic in service.topics]
        return Response(json.dumps(states, indent=1, allow_nan=False) + "\n", media_type="application/json")

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return PlainTextResponse(f"{error.detail}; {PAGES}", error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        log.error("page_failed", path=request.url.path, exc_info=error)
        return PlainTextResponse(f"internal error: {type(error).__name__}; see the log", 500)

    return app


def create_server(app: FastAPI, market: str) -> uvicorn.Server:
    """What serves the application and says in each response, whatever its route and status, where prices come from.

    Args:
        market: BINANCE or SIMULATED.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=[("X-Market", market)],  # here and not in the application, which does not see a malformed request
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
            backlog=BACKLOG,
        )
    )


def write_lines(lines: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """One log line per question, all of them with one write; stdout may block, so this runs in a writer's thread.

    What the log adds to a line (level, time, service) is the same for the whole batch and made once for it. Under load
    each microsecond and each write here is taken from the event loop.
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
    """Topic id, height and network of a question's query string, and whether the answer may wait for its worth.

    Raises:
        BadQuestion: not whole numbers, given twice, or misspelt. Other parameters are nobody's business here.
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


def _of(answer: Answer, now_ms: int) -> dict[str, Any]:
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


def _state(service: InferenceService, topic: Topic, reason: str) -> dict[str, Any]:
    """One topic as ``/topics`` shows it."""
    state, price, last, now_ms = service.state(topic), service.anchor(topic), service.last(topic), service.now_ms()
    instead, naive = service.instead_of_champion(topic), service.why_naive(topic)
    given = last and {"height": last.height, "answered": iso(last.answered_ms), **_of(last, last.answered_ms)}
    return {
        "topic_id": topic.topic_id,
        "token": topic.token,
        "symbol": topic.symbol,
        "proxy": topic.proxy or None,
        "target": topic.target.value,
        "volatility": topic.volatility.value if topic.target is Target.VOLATILITY else None,
        "horizon": topic.horizon,
        "loss": topic.loss,
        "network": topic.network,
        "market": service.market_name,
        "ready": not reason,
        "reason": reason,
        "champion": (state.champion or None) if state else None,
        "persistence": instead,
        "forecast": None if naive is None else NAIVE if naive else NETWORK,
        "naive_because": naive or "",
        "fault": state.fault if state else "",
        "anchor": price.price if price else None,
        "venue": (price.venue or None) if price else None,
        "candles_of": service.candles_of(topic) or None,
        "truth_ratio": ratio.value if (ratio := service.truth_ratio(topic, now_ms)) else None,
        "truth_fault": service.truth_fault(topic),
        "anchor_age_ms": max(0, now_ms - price.asof_ms) if price else None,
        "as_of": iso(state.klines_end_ms) if state else None,
        "forecast_age_ms": max(0, now_ms - state.klines_end_ms) if state else None,
        "stream": service.stream_fault,
        "last_answer": given,
    }
