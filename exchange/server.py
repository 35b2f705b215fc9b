"""An exchange on loopback that speaks Binance's wire format: REST klines, ticker, time, archive files and streams.

Its prices are a tape's (invented or replayed), never a market's: every answer says so in ``X-Market: SIMULATED``.
Under ``/sim`` it can be told to fail, for tests. Source of the format: developers.binance.com, Spot REST API and
errors; github.com/binance/binance-public-data for the archives.
"""

import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response

from core.clock import Clock, SystemClock
from core.errors import ConfigError
from core.topic import split_symbol
from exchange.faults import Fault, Faults, Outage
from exchange.formats import archive_span, archive_zip, page, rest_rows
from exchange.replay import ReplayTape
from exchange.stream_faults import Kind, StreamFault
from exchange.streams import LIFETIME_S, PING_EVERY_S, PONG_WITHIN_S, StreamProtocol, Streams
from exchange.walk import INTERVALS_MS, RandomTape, Tape, price_at

MAX_ROWS, DEFAULT_ROWS = 1_000, 500


class Refused(Exception):
    """A request that Binance would answer with an error; ``code`` and ``msg`` are its own."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code, self.msg = code, msg


def _parameters(request: Request, known: Sequence[str]) -> dict[str, str]:
    """The query, or Binance's refusal of parameters that are not known or given twice."""
    given = request.query_params.multi_items()
    read = [name for name, _ in given if name in known]
    if len(read) < len(given):
        many = f"read '{len(read)}' parameter(s) but was sent '{len(given)}'"
        raise Refused(-1104, f"Not all sent parameters were read; {many}.")
    if len(set(read)) < len(read):
        raise Refused(-1101, "Too many parameters; expected each at most once.")
    return dict(given)


def _symbol(text: str | None, tape: Tape) -> str:
    if not text:
        raise Refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    if not re.fullmatch(r"[A-Z0-9-_.]{1,20}", text):
        raise Refused(-1100, "Illegal characters found in parameter 'symbol'; legal range is '^[A-Z0-9-_.]{1,20}$'.")
    if text not in tape.symbols:
        raise Refused(-1121, "Invalid symbol.")
    return text


def _number(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(text)


# -- server -----------------------------------------------------------------------------------------------------------

LOG = structlog.get_logger()
_ARCHIVE = "/data/spot/{period}/klines/{symbol}/{interval}/{name}"
_NO_SUCH_KEY = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"""


_MAKING = threading.Lock()  # pydantic's schemas of the routes cannot be made by two threads at once


class SimulatedExchange:
    """The exchange, served by a thread of this process while its ``with`` block lasts.

    Args:
        seed: of the invented prices; not used in a replay.
        replay: folder of Parquet klines to play instead.
        clock: whose now decides which candles have closed.
        port: 0 for any free one.
        symbols: that are traded; None for all there are.
        state: file in which a replay keeps its shift, so that it goes on where it was after a restart.
        stream_lifetime_s: after which a stream's connection is ended.
    Raises:
        ConfigError: the port is taken, a symbol is unknown, or the folder or the state file cannot be used.
    """

    def __init__(
        self,
        seed: int = 0,
        replay: Path | None = None,
        clock: Clock | None = None,
        port: int = 0,
        symbols: Iterable[str] | None = None,
        state: Path | None = None,
        stream_lifetime_s: float = LIFETIME_S,
    ) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._tape: Tape = (
            RandomTape(seed, symbols)
            if replay is None
            else ReplayTape.open(replay, self._clock.now_ms(), symbols=symbols, state=state)
        )
        self._archive = lru_cache(maxsize=4)(self._make_archive)
        self._streams = Streams(lambda: self.tape, self._clock, lifetime_s=stream_lifetime_s)
        with _MAKING:
            application = self._application()
        self._faults = Faults(application, self._streams, self._clock)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"port {port} of 127.0.0.1 cannot be had: {error.strerror}; choose another") from error
        host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url, self.stream_url = f"http://{host}", f"ws://{host}"
        config = uvicorn.Config(
            self._faults,
            ws=StreamProtocol,
            ws_ping_interval=PING_EVERY_S,
            ws_ping_timeout=PONG_WITHIN_S,
            ws_per_message_deflate=False,
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="critical",  # cut answers are errors to uvicorn; our own failures are logged by Faults
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="exchange", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.005)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    @property
    def tape(self) -> Tape:
        """What is played now."""
        with self._lock:
            tape = self._tape.at(self._clock.now_ms())
            if tape is not self._tape:
                self._tape = tape
                LOG.warning("tape_over", tape=tape.name, note=tape.note)
                say(tape.note)
            return tape

    @property
    def requests(self) -> list[tuple[str, dict[str, str]]]:
        """Path and query of the requests so far, oldest first."""
        return self._faults.seen()

    def fail_next(
        self,
        path_prefix: str,
        count: int = 1,
        *,
        status: int | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        delay_s: float = 0.0,
        cut_after: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Spoil the next ``count`` answers to paths that begin with ``path_prefix``; see ``Fault``."""
        self._faults.add(
            Fault(
                path_prefix=path_prefix,
                count=count,
                status=status,
                headers=headers or {},
                body=body,
                delay_s=delay_s,
                cut_after=cut_after,
                seconds=seconds,
            )
        )

    def fail_stream(
        self,
        kind: Kind,
        *,
        seconds: float | None = None,
        count: int | None = None,
        symbol: str | None = None,
        factor: float | None = None,
        delay_s: float | None = None,
        status: int | None = None,
    ) -> None:
        """Let something go wrong with the streams; see ``StreamFault``."""
        self._streams.add(
            StreamFault(
                kind=kind, seconds=seconds, count=count, symbol=symbol, factor=factor, delay_s=delay_s, status=status
            )
        )

    def outage(self, seconds: float) -> None:
        """Be gone for so many seconds of the exchange's clock: no REST answer, no stream."""
        self._post_outage(Outage(seconds=seconds))

    def clear_faults(self) -> None:
        """Answer as usual from now on."""
        self._faults.clear()
        self._streams.clear()

    @property
    def stream_connections(self) -> int:
        """How many streams are open."""
        return self._streams.connections

    def _application(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        app.add_exception_handler(Refused, _refuse)
        app.get("/api/v3/ping")(lambda: {})
        app.get("/api/v3/time")(lambda: {"serverTime": self._clock.now_ms()})
        app.get("/api/v3/exchangeInfo")(self._exchange_info)
        app.get("/api/v3/klines")(self._klines)
        app.get("/api/v3/ticker/price")(self._ticker)
        app.get(_ARCHIVE)(self._file)
        app.post("/sim/faults", status_code=204)(self._post_fault)
        app.post("/sim/stream-faults", status_code=204)(self._post_stream_fault)
        app.post("/sim/outage", status_code=204)(self._post_outage)
        app.delete("/sim/faults", status_code=204)(self.clear_faults)
        app.get("/sim/requests")(lambda: self.requests)
        return app

    def _post_fault(self, fault: Fault) -> None:
        self._faults.add(fault)

    def _post_stream_fault(self, fault: StreamFault) -> None:
        self._streams.add(fault)

    def _post_outage(self, outage: Outage) -> None:
        self._faults.begin(outage)  # first, so that whoever is cut off finds nobody
        self._streams.add(StreamFault(kind="drop"))

    def _exchange_info(self, request: Request) -> Response:
        tape = self.tape
        given = _parameters(request, ("symbol",))
        listed = [_symbol(given["symbol"], tape)] if "symbol" in given else tape.symbols
        entries = []
        for symbol in listed:
            base, quote = split_symbol(symbol, "")
            entries.append({"symbol": symbol, "status": "TRADING", "baseAsset": base, "quoteAsset": quote})
        content = {"timezone": "UTC", "serverTime": self._clock.now_ms(), "symbols": entries}
        return Response(json.dumps(content, separators=(",", ":")), media_type="application/json")

    def _klines(self, request: Request) -> Response:
        given = _parameters(request, ("symbol", "interval", "startTime", "endTime", "limit"))
        tape, now_ms = self.tape, self._clock.now_ms()
        symbol = _symbol(given.get("symbol"), tape)
        if not given.get("interval"):
            raise Refused(-1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed.")
        interval_ms = INTERVALS_MS.get(given["interval"])
        if interval_ms is None:
            raise Refused(-1120, "Invalid interval.")
        start_ms = _number(given.get("startTime"), "startTime")
        end_ms = _number(given.get("endTime"), "endTime")
        limit = _number(given.get("limit"), "limit")
        if limit == 0:
            raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
        rows = page(
            tape,
            symbol,
            interval_ms,
            start_ms=start_ms,
            end_ms=now_ms if end_ms is None else end_ms,
            limit=min(limit or DEFAULT_ROWS, MAX_ROWS),
            now_ms=now_ms,
        )
        return Response(rest_rows(rows), media_type="application/json")

    def _ticker(self, request: Request) -> Response:
        given = _parameters(request, ("symbol", "symbols"))
        tape, now_ms = self.tape, self._clock.now_ms()
        if len(given) == 2:
            raise Refused(-1128, "Combination of optional parameters invalid.")
        wanted = set(tape.symbols)
        if "symbol" in given:
            wanted = {_symbol(given["symbol"], tape)}
        elif "symbols" in given:
            if not re.fullmatch(r'\[("[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}")*)?\]', given["symbols"]):
                raise Refused(-1100, "Illegal characters found in parameter 'symbols'.")
            wanted = {_symbol(symbol, tape) for symbol in json.loads(given["symbols"])}
        # In the venue's own order, whatever the order asked for.
        prices = ((symbol, price_at(tape, symbol, now_ms)) for symbol in tape.symbols if symbol in wanted)
        answer = [{"symbol": symbol, "price": f"{price:.8f}"} for symbol, price in prices if price is not None]
        content = answer[0] if "symbol" in given and answer else answer
        return Response(json.dumps(content, separators=(",", ":")), media_type="application/json")

    def _file(self, period: str, symbol: str, interval: str, name: str) -> Response:
        missing = Response(_NO_SUCH_KEY, 404, media_type="application/xml")
        tape, zip_name, stem = self.tape, name.removesuffix(".CHECKSUM"), f"{symbol}-{interval}-"
        if not (zip_name.startswith(stem) and zip_name.endswith(".zip") and interval in INTERVALS_MS):
            return missing
        span = archive_span(period, zip_name.removeprefix(stem).removesuffix(".zip"))
        if span is None or span[1] > self._clock.now_ms() or symbol not in tape.symbols:
            return missing
        packed, digest = self._archive(tape, symbol, interval, *span, zip_name)
        if not packed:
            return missing
        if name != zip_name:
            return Response(f"{digest}  {zip_name}\n", media_type="binary/octet-stream")
        return Response(packed, media_type="application/zip")

    @staticmethod
    def _make_archive(
        tape: Tape, symbol: str, interval: str, start_ms: int, end_ms: int, name: str
    ) -> tuple[bytes, str]:
        """The zip and its SHA-256; empty when there was no trading yet."""
        klines = tape.klines(symbol, INTERVALS_MS[interval], start_ms, end_ms)
        packed = archive_zip(klines, name.removesuffix(".zip"), end_ms) if len(klines) else b""
        return packed, hashlib.sha256(packed).hexdigest()


def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, Refused):
        raise error
    text = json.dumps({"code": error.code, "msg": error.msg}, separators=(",", ":"))
    return Response(text, 400, media_type="application/json")


def say(text: str) -> None:
    """Tell a person at the terminal."""
    sys.stderr.write(f"SIMULATED exchange: {text}\n")
