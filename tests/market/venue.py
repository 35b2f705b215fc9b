"""A venue on loopback that serves given klines in Binance's format and answers as it is told to."""

import hashlib
import io
import json
import socket
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from core.clock import DAY_MS
from klines.klines import COLUMNS, Klines
from klines.spans import INTERVALS, month_span


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
    raw: bytes = b""  # sent in the place of head and body

    @property
    def content(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else self.body


Handler = Callable[[str, dict[str, str]], Answer | None]
NOT_FOUND = Answer("<Error><Code>NoSuchKey</Code></Error>", 404)


def rest_rows(klines: Klines) -> list[list[object]]:
    """Klines as ``GET /api/v3/klines`` has them."""
    columns = [getattr(klines, name).tolist() for name in COLUMNS]
    return [
        [
            at,
            *(f"{x:.8f}" for x in row[:5]),
            at + klines.interval_ms - 1,
            f"{row[5]:.8f}",
            int(row[6]),
            *(f"{x:.8f}" for x in row[7:]),
            "0",
        ]
        for at, *row in zip(klines.open_time_ms.tolist(), *columns, strict=True)
    ]


def csv_of(klines: Klines, *, factor: int = 1, header: bool = False) -> str:
    """Rows as archive files have them; ``factor`` 1000 writes microseconds."""
    lines = ["open_time,open,high,low,close,volume,close_time,quote_volume,count,b,q,ignore"] if header else []
    for cells in rest_rows(klines):
        opens, closes = int(str(cells[0])) * factor, (int(str(cells[6])) + 1) * factor - 1
        lines.append(",".join(map(str, [opens, *cells[1:6], closes, *cells[7:]])))
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=128)
def _archive(whole: Klines, name: str) -> bytes:
    """The archive file of that name, empty when there are no rows; tests share series, so they share these."""
    stamp = name.removesuffix(".zip").split("-", 2)[2]
    month = stamp.count("-") == 1
    start_ms = int(datetime.fromisoformat(f"{stamp}-01" if month else stamp).replace(tzinfo=UTC).timestamp()) * 1000
    rows = whole.between(start_ms, month_span(start_ms)[1] if month else start_ms + DAY_MS)
    return zip_of((name.replace(".zip", ".csv"), csv_of(rows))) if len(rows) else b""


def zip_of(*files: tuple[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def assert_same(left: Klines, right: Klines) -> None:
    """Equal as far as texts of eight decimals can tell."""
    np.testing.assert_array_equal(left.open_time_ms, right.open_time_ms)
    for name in COLUMNS:
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=0, atol=1e-8)


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
    """Serves what ``series`` holds, unless ``scripted`` or ``handler`` has another answer."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], Klines] = {}
        self.prices: dict[str, str] = {}
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
        routes = {
            "/api/v3/klines": self._klines,
            "/api/v3/ticker/price": self._ticker,
            "/api/v3/time": self._time,
        }
        if (special := self.handler(path, query)) is not None:
            return special
        if path in routes:
            return routes[path](query)
        return self._file(path) if path.startswith("/data/spot/") and self.has_archives else NOT_FOUND

    @staticmethod
    def _time(query: dict[str, str]) -> Answer:
        return Answer('{"serverTime": 1}')

    def _klines(self, query: dict[str, str]) -> Answer:
        known = self.series.get((query["symbol"], query["interval"]))
        if known is None:
            return Answer('{"code":-1121,"msg":"Invalid symbol."}', 400)
        found = known.between(int(query["startTime"]), int(query["endTime"]) + 1)
        rows = min(len(found), self.page_rows, int(query["limit"]))
        return Answer(json.dumps(rest_rows(found.between(0, int(found.open_time_ms[rows - 1]) + 1) if rows else found)))

    def _ticker(self, query: dict[str, str]) -> Answer:
        if "symbols" in query and self.knows_symbols:
            wanted = json.loads(query["symbols"])
            if set(wanted) <= set(self.prices):
                return Answer(json.dumps([{"symbol": s, "price": self.prices[s]} for s in wanted]))
        elif "symbol" not in query:
            return Answer('{"code":-1102,"msg":"Mandatory parameter symbol was not sent."}', 400)
        if query.get("symbol") not in self.prices:
            return Answer('{"code":-1121,"msg":"Invalid symbol."}', 400)
        return Answer(json.dumps({"symbol": query["symbol"], "price": self.prices[query["symbol"]]}))

    def _file(self, path: str) -> Answer:
        name = path.rsplit("/", 1)[1].removesuffix(".CHECKSUM")
        symbol, interval = name.split("-")[:2]
        if (symbol, interval) not in self.series:
            return NOT_FOUND
        content = _archive(self.series[symbol, interval], name)
        if not content:
            return NOT_FOUND
        return Answer(f"{hashlib.sha256(content).hexdigest()}  {name}\n" if path.endswith(".CHECKSUM") else content)

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer.wait_for is not None:
            answer.wait_for.wait(10)
        if answer.hang_up:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        if answer.raw:
            _drip(request, answer.raw, answer.drip_until)
            request.close_connection = True
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
