"""The monitor's HTTP edge: two pages and the JSON under ``/api/``. Every route only reads.

A page is rendered from a snapshot that was made in the background; only a topic's answers are read from the ledger.
"""

from collections.abc import Callable, Sequence
from sqlite3 import Error as SqliteError
from typing import Annotated, Any

import structlog
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from core.clock import SECOND_MS, Clock
from monitor.api import AlarmShape, AnswerShape, Row, TopicShape
from monitor.chain.api import EpochShape
from monitor.chain.filled import EpochRow
from monitor.chain.results import MOST_SHOWN, results_of
from monitor.pages.render import ICON, STYLE, STYLE_PATH, front_page, topic_page
from monitor.snapshot import NO_NETWORK, Snapshot, TopicView

CHARTED = 2_000  # newest answers behind the charts of a topic's page
MOST_ANSWERS = 1_000  # of one answer of the API
HANGS_MS = 120 * SECOND_MS  # without a new snapshot, after which the monitor counts as hanging
LARGEST_ID = 2**63 - 1  # of a column of the ledger
PAGES = (
    "there are /, /topics/NETWORK/ID, /api/topics, /api/topics/NETWORK/ID/answers, /api/topics/NETWORK/ID/epochs, "
    "/api/alarms, /openapi.json, /metrics and /healthz"
)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
CACHED = {"Cache-Control": "public, max-age=86400"}
LEDGER_FAULTS = (SQLAlchemyError, SqliteError, OSError)

Answers = Callable[[str, int], Sequence[Row]]  # Topic.key, limit -> newest first
Epochs = Callable[[str, int], Sequence[EpochRow]]  # likewise
Network = Annotated[
    str, Path(description=f'chain id, such as allora-testnet-1; "{NO_NETWORK}" if config.json names none')
]
TopicId = Annotated[int, Path(ge=1, le=LARGEST_ID, description="the topic's id on its network")]
Limit = Annotated[int, Query(ge=1, le=MOST_ANSWERS, description="how many of the newest")]

log = structlog.get_logger()


def create_app(snapshot: Callable[[], Snapshot], answers: Answers, epochs: Epochs, clock: Clock) -> FastAPI:
    """Return the application.

    Args:
        snapshot: the newest one; returns at once.
        answers: a topic's newest answers with their scores, of ``ScoreBook.answers_of``.
        epochs: a topic's newest epochs with our answers, of ``EpochBook.epochs_of``.
    """
    app = FastAPI(
        title="BiRNN worker: monitor",
        description="How good each topic's answers are, and what is wrong. Nothing here changes state. "
        "Times are UTC in ISO 8601; numbers are finite or null.",
        version="1",
        docs_url=None,  # these pages load scripts from another host
        redoc_url=None,
        redirect_slashes=False,  # an unknown path is 404, also one that ends in a slash
    )
    no_topic: dict[int | str, dict[str, Any]] = {
        404: {"description": "no such topic, in one line", "content": {"text/plain": {}}},
        422: {"description": "a wrong value, in one line that names it", "content": {"text/plain": {}}},
    }
    no_ledger: dict[int | str, dict[str, Any]] = {
        503: {"description": "the ledger cannot be read now, in one line", "content": {"text/plain": {}}}
    }

    def found(now: Snapshot, network: str, topic_id: int) -> TopicView:
        view = now.by_path.get((network, topic_id))
        if view is None:
            raise HTTPException(
                404, f"no topic {topic_id} on network {network!r}: the first column of / lists the topics"
            )
        return view

    @app.get("/", response_class=HTMLResponse, summary="The status page")
    def front() -> str:
        return front_page(snapshot(), clock.now_ms())

    @app.get("/topics/{network}/{topic_id}", response_class=HTMLResponse, responses=no_topic, summary="A topic's page")
    def topic(network: Network, topic_id: TopicId) -> str:
        now = snapshot()
        view, fault = found(now, network, topic_id), ""
        rows: Sequence[Row] = ()
        seen: Sequence[EpochRow] = ()
        try:
            rows, seen = answers(view.key, CHARTED), epochs(view.key, MOST_SHOWN)
        except LEDGER_FAULTS as error:
            fault = _said(error)
        return topic_page(now, view, rows, results_of(seen), fault, clock.now_ms())

    @app.get("/api/topics", summary="All topics, worst first")
    def api_topics() -> list[TopicShape]:
        return [view.shape for view in snapshot().topics]

    @app.get(
        "/api/topics/{network}/{topic_id}/answers",
        responses=no_topic | no_ledger,
        summary="A topic's newest answers with their scores, newest first",
    )
    def api_answers(network: Network, topic_id: TopicId, limit: Limit = 50) -> list[AnswerShape]:
        view = found(snapshot(), network, topic_id)
        try:
            return [AnswerShape.of(*row) for row in answers(view.key, limit)]
        except LEDGER_FAULTS as error:
            raise HTTPException(503, f"the ledger cannot be read: {_said(error)}; ask again later") from error

    @app.get(
        "/api/topics/{network}/{topic_id}/epochs",
        responses=no_topic | no_ledger,
        summary="What the chain made of our answers to a topic, newest epoch first",
    )
    def api_epochs(network: Network, topic_id: TopicId, limit: Limit = 50) -> list[EpochShape]:
        view = found(snapshot(), network, topic_id)
        try:
            return [EpochShape.of(one) for one in results_of(epochs(view.key, max(limit, MOST_SHOWN)))[:limit]]
        except LEDGER_FAULTS as error:
            raise HTTPException(503, f"the ledger cannot be read: {_said(error)}; ask again later") from error

    @app.get("/api/alarms", summary="What is wrong now, oldest first")
    def api_alarms() -> list[AlarmShape]:
        return list(snapshot().alarms)

    @app.get("/healthz", response_class=PlainTextResponse, responses={503: {"description": "the monitor hangs"}})
    def healthz() -> Response:
        """Ok while snapshots are made; 503 if the last one is older than two minutes."""
        age_ms = clock.now_ms() - snapshot().made_ms
        if age_ms > HANGS_MS:
            return PlainTextResponse(f"no new snapshot for {age_ms // SECOND_MS} s: start the monitor again", 503)
        return PlainTextResponse("ok")

    @app.get(STYLE_PATH, include_in_schema=False)
    def style() -> Response:
        return Response(STYLE, media_type="text/css", headers=CACHED)

    @app.get("/icon.svg", include_in_schema=False)
    def icon() -> Response:
        return Response(ICON, media_type="image/svg+xml", headers=CACHED)

    @app.middleware("http")
    async def guarded(request: Request, answer: Callable[[Request], Any]) -> Response:
        response: Response = await answer(request)
        for name, text in HEADERS.items():
            response.headers[name] = text
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    app.add_middleware(_HeadAsGet)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        more = f"; {PAGES}" if error.detail == "Not Found" else ""
        return PlainTextResponse(f"{error.detail}{more}", error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        *_, name = fault["loc"]
        return PlainTextResponse(f"{name}={fault['input']!r}: {fault['msg']}", 422)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        log.error("page_failed", path=request.url.path, exc_info=error)
        return PlainTextResponse(f"internal error: {type(error).__name__}; see the monitor's log", 500)

    return app


class _HeadAsGet:
    """Answers HEAD as GET; the server, which keeps the request's own method, sends the head alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def _said(error: Exception) -> str:
    """The message of the database's driver, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
