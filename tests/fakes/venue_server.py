"""A venue's server on loopback: it answers as it is told to, else as the exchange does that has given klines."""

import io
import json
import socket
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from exchange import formats
from exchange.rest import Rest
from exchange.sources.given import Given
from klines.klines import Klines
from klines.spans import INTERVALS, INTERVALS_MS

LATE_MS = 4_102_444_800_000  # 2100: all given candles have closed, and all archive files are there


@dataclass
class Answer:
    """One answer. ``cut`` promises more than is sent; ``hang_up`` ends it before any of it."""

    body: bytes | str = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    chunked: bool = False
    hang_up: bool = False
    wait_for: threading.Event | None = None  # nothing is sent before it is set
    drip_until: threading.Event | None = None  # what is sent comes byte by byte, with pauses until it is set

    @property
    def content(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else self.body


Handler = Callable[[str, dict[str, str]], Answer | None]
NOT_FOUND = Answer("<Error><Code>NoSuchKey</Code></Error>", 404)


Series = tuple[tuple[tuple[str, str], Klines], ...]

_REST = Rest(archives_kept=128)


@lru_cache(maxsize=128)
def _source(series: Series, prices: tuple[tuple[str, str], ...]) -> Given:
    """Tests share series, so they share sources and archive files."""
    return Given({(symbol, INTERVALS_MS[name]): klines for (symbol, name), klines in series}, prices=dict(prices))


def rest_rows(klines: Klines) -> list[list[Any]]:
    """Klines as ``GET /api/v3/klines`` has them."""
    return list(json.loads(formats.rest_rows(klines)))


def csv_of(klines: Klines, *, factor: int = 1, header: bool = False) -> str:
    """Rows as archive files have them; ``factor`` 1000 writes microseconds."""
    names = "open_time,open,high,low,close,volume,close_time,quote_volume,count,b,q,ignore\n" if header else ""
    return names + formats.archive_csv(klines, microseconds=factor == 1000).decode()


def entry_of(symbol: str, base: str | None, quote: str, status: str = "TRADING") -> bytes:
    """What Binance's ``exchangeInfo`` says of a symbol."""
    listed = {"symbol": symbol, "status": status, "baseAsset": base, "quoteAsset": quote}
    return json.dumps({"symbols": [listed]}).encode()


def zip_of(*files: tuple[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may leave before their answer is there; anything else is a bug of this file."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _drip(request: BaseHTTPRequestHandler, content: bytes, until: threading.Event | None) -> None:
    """Send all at once, or byte by byte until an event is set."""
    for byte in content if until else b"":
        request.wfile.write(bytes([byte]))
        request.wfile.flush()
        until.wait(0.05)  # type: ignore[union-attr]
    request.wfile.write(b"" if until else content)


class Venue:
    """Answers as ``scripted`` or ``handler`` says, else as an exchange that has ``series`` and ``prices``."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], Klines] = {}
        self.prices: dict[str, str] = {}  # tickers that are told as they stand
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.heads: list[Message] = []  # headers of the requests
        self.has_archives = self.knows_symbols = True
        self.page_rows = 1000
        self.scripted: list[Answer] = []
        self.handler: Handler = lambda path, query: None
        self._lock = threading.Lock()
        venue = self

        class Handling(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body in one packet: in two they wait for each other's acknowledgement

            def do_GET(self) -> None:
                path, query = urlsplit(self.path).path, dict(parse_qsl(urlsplit(self.path).query))
                venue.heads.append(self.headers)
                venue._send(self, venue._answer(path, query))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
                pass

        self._server = _Server(("127.0.0.1", 0), Handling)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[Self]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def add(self, symbol: str, klines: Klines) -> None:
        self.series[symbol, INTERVALS[klines.interval_ms]] = klines

    def asked(self, prefix: str) -> list[dict[str, str]]:
        """Queries of the requests to paths that begin so."""
        return [query for path, query in self.requests if path.startswith(prefix)]

    def _answer(self, path: str, query: dict[str, str]) -> Answer:
        with self._lock:
            self.requests.append((path, query))
            if self.scripted:
                return self.scripted.pop(0)
        if (special := self.handler(path, query)) is not None:
            return special
        no_archive = path.startswith("/data/") and not self.has_archives
        if no_archive or ("symbols" in query and not self.knows_symbols) or path == "/api/v3/exchangeInfo":
            return NOT_FOUND  # of listings a test has a handler
        if "limit" in query:
            query = query | {"limit": str(min(int(query["limit"]), self.page_rows))}
        source = _source(tuple(self.series.items()), tuple(self.prices.items()))
        response = _REST.answer(source, LATE_MS, path, list(query.items()))
        return Answer(bytes(response.body), response.status_code)

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer.wait_for is not None:
            answer.wait_for.wait(10)
        if answer.hang_up:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        request.send_response(answer.status)
        for name, value in answer.headers.items():
            request.send_header(name, value)
        if answer.chunked:
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            request.wfile.write(b"%x\r\n%s\r\n" % (len(answer.content), answer.content))
            request.wfile.write(b"" if answer.cut else b"0\r\n\r\n")
        else:
            request.send_header("Content-Length", str(len(answer.content) + (10 if answer.cut else 0)))
            request.end_headers()
            _drip(request, answer.content, answer.drip_until)
        request.close_connection = answer.cut
