"""The HTTP edge: routes, statuses, and bodies that the offchain node can read.

A 200 of ``/inference`` is the bare decimal. Every failure is one plain line with another status, because the node
submits whatever a 200 carries. ``fast_route`` answers the questions; here are the pages.
"""

import json
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from core.clock import iso
from core.process.listener import BACKLOG
from core.sources import NAIVE, NETWORK
from core.topic import Target, Topic
from inference.answering import InferenceService
from inference.http.fast_route import Application, answer_fields
from inference.http.holds import Holds
from inference.http.metrics import Metrics
from ledger.background_writer import BackgroundWriter

KEEP_ALIVE_S = 75
PAGES = "there are GET /inference/TOKEN?topic=ID, /topics, /readyz, /healthz and /metrics"

log = structlog.get_logger()


def create_app(
    service: InferenceService,
    metrics: Metrics,
    journal: "BackgroundWriter[dict[str, Any]]",
    holds: Holds,
    page: str = "http://127.0.0.1:8080/",
) -> FastAPI:
    """Return the application over a service; see ``Application`` for the other arguments.

    Args:
        page: URL of the monitor's status page.
    """
    app = Application(service, metrics, journal, holds)

    @app.get("/")
    async def root() -> Response:
        return PlainTextResponse(f"the status page is at {page}; here {PAGES}")

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
        states = [_topic_page(service, topic, not_ready.get(topic.key, "")) for topic in service.topics]
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
    """Return the server of the application. Each response says where prices come from, whatever its route and status.

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


def _topic_page(service: InferenceService, topic: Topic, reason: str) -> dict[str, Any]:
    state, price, last, now_ms = service.state(topic), service.anchor(topic), service.last(topic), service.now_ms()
    instead, naive = service.instead_of_champion(topic), service.why_naive(topic)
    last_answer = last and {
        "height": last.height,
        "answered": iso(last.answered_ms),
        **answer_fields(last, last.answered_ms),
    }
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
        "last_answer": last_answer,
    }
