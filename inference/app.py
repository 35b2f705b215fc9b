"""The HTTP edge: routes, statuses, and bodies that the offchain node can read.

A 200 of ``/inference`` is the bare decimal. Every failure is one plain line with a status that is not 200, because
the node submits whatever a 200 carries.
"""

import json
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any
from urllib.parse import unquote_plus

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route

from core.clock import iso
from core.errors import WorkerError
from core.topic import Target, Topic
from inference.answer import Answer
from inference.drain import Drain
from inference.metrics import Metrics
from inference.question import BadQuestion, network_name, whole_number
from inference.service import InferenceService

GATHER_LINES_S = 0.02  # log lines are written in batches, so that a burst of questions is not slowed by each line
KEEP_ALIVE_S = 75
BACKLOG = 2048

log = structlog.get_logger()


def create_app(service: InferenceService, metrics: Metrics, journal: "Drain[dict[str, Any]]") -> FastAPI:
    """The application over a service that somebody else starts and stops.

    Args:
        metrics: counts every question.
        journal: gets one log line per question; see ``write_lines``.
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    questions, ledger = service.questions, service.ledger

    async def inference(request: Request) -> Response:
        began_ns = perf_counter_ns()
        token = request.path_params["token"]
        answer: Answer | None = None
        topic: Topic | None = None
        topic_id = height = None
        try:
            topic_id, height, network = _read(request)
            topic = questions.topic(token, topic_id, network)
            topic_id = topic.topic_id
            if height is not None and ledger.may_be_elsewhere(topic, height):
                await run_in_threadpool(ledger.fetch, topic, height)
            answer = service.answer(topic, height)
        except BadQuestion as error:
            status, text = error.status, str(error)
        except WorkerError as error:
            status, text = 503, str(error)
        except Exception as error:
            log.exception("answer_failed", topic_id=topic_id, height=height)
            status, text = 500, f"internal error: {type(error).__name__}; see the log"
        else:
            status, text = 200, answer.value
        now_ms = service.now_ms()
        response = PlainTextResponse(text, status, answer.headers(now_ms) if answer else None)
        took_ns = perf_counter_ns() - began_ns
        metrics.answered(topic, answer.version if answer else "", status, took_ns / 1e9)
        line = {
            "topic_id": topic_id,
            "network": topic.network if topic else None,
            "token": token,
            "height": height,
            "status": status,
            "took_ms": took_ns / 1e6,
        }
        if not journal.put(line | (_of(answer, now_ms) if answer else {"reason": text})):
            metrics.line_dropped()
        return response

    # Starlette's own route: FastAPI's would spend as long on finding out that there is nothing to validate as the
    # whole answer takes.
    route = Route("/inference/{token}", inference, methods=["GET"])
    route.methods = {"GET"}
    app.router.routes.append(route)

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
        return PlainTextResponse(error.detail, error.status_code, error.headers)

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
    """One log line per question; stdout may block, so this runs in a drain's thread."""
    for line in lines:
        (log.info if line["status"] == 200 else log.warning)("answer", **line)
    return ()


def _read(request: Request) -> tuple[int | None, int | None, str | None]:
    """Topic id, height and network of a question.

    Raises:
        BadQuestion: not whole numbers, or given twice. Other parameters are nobody's business here.
    """
    raw: bytes = request.scope["query_string"]
    if not raw:
        return None, None, None
    given: dict[str, list[str]] = {}
    for part in raw.decode("ascii", "replace").split("&"):
        name, _, value = part.partition("=")
        given.setdefault(unquote_plus(name), []).append(unquote_plus(value))
    topic_id, height = (whole_number(name, given.get(name, ())) for name in ("topic", "height"))
    return topic_id, height, network_name(given.get("network", ()))


def _of(answer: Answer, now_ms: int) -> dict[str, Any]:
    return {
        "version": answer.version,
        "asof_ms": answer.asof_ms,
        "anchor_age_ms": answer.anchor_age_ms(now_ms),
        "value": answer.value,
    }


def _state(service: InferenceService, topic: Topic, reason: str) -> dict[str, Any]:
    """One topic as ``/topics`` shows it."""
    outlook, price, last, now_ms = service.outlook(topic), service.anchor(topic), service.last(topic), service.now_ms()
    instead = service.instead_of_champion(topic)
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
        "champion": (outlook.champion or None) if outlook else None,
        "persistence": instead,
        "fault": outlook.fault if outlook else "",
        "anchor": price.price if price else None,
        "anchor_age_ms": max(0, now_ms - price.asof_ms) if price else None,
        "as_of": iso(outlook.klines_end_ms) if outlook else None,
        "last_answer": given,
    }
