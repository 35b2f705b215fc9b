"""The status line of ``birnn run``: age of the prices behind the answers, and how many topics are ready."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from cli.ready import News
from cli.screen import folded
from core.logs import LogFormat, console_lines, readable
from core.net.http_get import NoAnswer
from inference.probe import topics_of

LOOK_S = 1.0
LOG_EVERY_S = 30.0  # without a terminal
TIMEOUT_S = 2.0
CLEAR = b"\r\x1b[K"
USUAL_WIDTH = 80  # columns of a terminal that does not tell its width

log = structlog.get_logger()

Topics = Sequence[dict[str, Any]]  # the document of /topics
Show = Callable[[Callable[[int], str]], None]
"""Called with what makes the line of a terminal's width."""


@contextmanager
def status_line(form: LogFormat = "auto") -> Iterator[Show | None]:
    """Keep a line at the bottom of the terminal while the block runs.

    Standard output and error go through a pipe that children inherit: they write JSON, and this process makes it
    readable.

    Args:
        form: LOG_FORMAT.
    Yields:
        The function that sets the line; None if standard output is not a terminal.
    """
    if not sys.stdout.isatty():
        yield None
        return
    sys.stdout.flush()
    sys.stderr.flush()
    piped = [fd for fd in (1, 2) if os.isatty(fd)]
    terminals = {fd: os.dup(fd) for fd in piped}
    source, sink = os.pipe()
    for fd in piped:
        os.dup2(sink, fd)
    os.close(sink)
    bottom = _Bottom(terminals[1], form)
    thread = threading.Thread(target=bottom.pass_on, args=(source,), name="terminal", daemon=True)
    thread.start()
    try:
        yield bottom.show
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for fd, terminal in terminals.items():
            os.dup2(terminal, fd)
        thread.join(timeout=1.0)  # a child that outlives us may hold the pipe open
        bottom.show(lambda _: "")
        for terminal in terminals.values():
            os.close(terminal)


class _Bottom:
    """Writes lines and the status below them, one at a time."""

    def __init__(self, terminal: int, form: LogFormat) -> None:
        self._terminal = terminal
        self._render = console_lines(terminal, form)
        self._line: Callable[[int], str] = lambda _: ""
        self._shown = 0  # characters of the line on the screen
        self._writing = threading.Lock()

    def show(self, line: Callable[[int], str]) -> None:
        with self._writing:
            self._line = line
            self._write(b"")

    def pass_on(self, source: int) -> None:
        with os.fdopen(source, "rb") as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip("\n")
                if self._render:
                    text = folded(readable(text, self._render), _width(self._terminal))
                with self._writing:
                    self._write(text.encode() + b"\n")

    def _write(self, above: bytes) -> None:
        """Write whole lines over the status line, and the status line again below them."""
        width = _width(self._terminal)
        text = self._line(width - 1)[: width - 1]
        folded = max(0, self._shown - 1) // width  # a terminal that became narrower broke the line into rows
        up = b"\x1b[%dA\r\x1b[J" % folded if folded else CLEAR
        self._shown = len(text)
        content = up + above + text.encode(errors="replace")
        try:
            while content:
                content = content[os.write(self._terminal, content) :]
        except OSError:
            pass  # the terminal is gone


def _width(terminal: int) -> int:
    try:
        columns = os.get_terminal_size(terminal).columns
    except OSError:
        columns = 0
    given = os.environ.get("COLUMNS", "")
    return columns or (int(given) if given.isdecimal() else 0) or USUAL_WIDTH


def freshness(topics: Topics, width: int | None = None) -> str:
    """The ages of ``/topics`` in one line.

    Args:
        width: most characters; the least important parts are shortened first. None for any number.

    >>> topic = {"symbol": "ETHUSDT", "anchor_age_ms": 412, "forecast_age_ms": 12_345, "ready": True,
    ...          "market": "SIMULATED", "stream": ""}
    >>> freshness([topic])
    'SIMULATED | price age: ETHUSDT 0.4 s | forecasts 12 s old | stream up | 1 of 1 topics ready'
    >>> freshness([topic], 60)
    'SIMULATED | price age: ETHUSDT 0.4 s | 1 of 1 topics ready'
    """
    if not topics:
        return "no topics"
    parts = [
        (topics[0]["market"],),
        _price_forms(topics),
        _forecast_forms(topics),
        _stream_forms(topics[0]["stream"]),
        _ready_forms(topics),
    ]
    chosen = [0] * len(parts)

    def line() -> str:
        return " | ".join(text for forms, which in zip(parts, chosen, strict=True) if (text := forms[which]))

    if width is None:
        return line()
    for which in SHORTENING:
        if len(line()) > width:
            chosen[which] = min(chosen[which] + 1, len(parts[which]) - 1)
    for which in reversed(SHORTENING):  # a later step may have made room for a longer form
        if chosen[which]:
            chosen[which] -= 1
            chosen[which] += len(line()) > width
    return line()[:width]


PRICE, FORECAST, STREAM, READY = 1, 2, 3, 4  # parts of the line
SHORTENING = (FORECAST, READY, PRICE, STREAM, PRICE, READY, PRICE, STREAM)  # each one step, the least important first


def _ready_forms(topics: Topics) -> tuple[str, ...]:
    ready, by = sum(topic["ready"] for topic in topics), [topic.get("forecast") for topic in topics]
    counted = f"{ready} of {len(topics)} topics ready"
    networks, naive = by.count("network"), by.count("naive")
    who = f": {networks} by a network, {naive} naive" if networks + naive else ""
    return f"{counted}{who}", counted, f"{ready}/{len(topics)} ready"


def _price_forms(topics: Topics) -> tuple[str, ...]:
    ages = {topic["symbol"]: topic["anchor_age_ms"] for topic in topics}
    age_texts = {symbol: "none yet" if age is None else f"{age / 1000:.1f} s" for symbol, age in ages.items()}
    tokens = ", ".join(f"{symbol.removesuffix('USDT')} {text}" for symbol, text in age_texts.items())
    known = [age for age in ages.values() if age is not None]
    missing = len(ages) - len(known)
    oldest = f"{max(known) / 1000:.1f} s" if known else ""
    short = f"{missing} of {len(ages)} without" if missing else oldest if len(ages) == 1 else f"at most {oldest}"
    return (
        f"price age: {'  '.join(f'{symbol} {text}' for symbol, text in age_texts.items())}",
        f"price age: {tokens}",
        f"price age: {short}",
        f"price {short.removeprefix('at most ')}",
    )


def _stream_forms(fault: str) -> tuple[str, ...]:
    return (f"polling ({fault})", "polling", "") if fault else ("stream up", "")


def _forecast_forms(topics: Topics) -> tuple[str, ...]:
    ages = [topic["forecast_age_ms"] for topic in topics if topic["forecast_age_ms"] is not None]
    return (f"forecasts {min(ages) // 1000} s old" if ages else "no forecasts yet", "")


class Watch:
    """Asks the endpoint once a second in a thread, and shows or logs the ages.

    The number of topics that would be admitted is logged at the start and whenever the updater judged anew.

    Args:
        base_url: of the inference endpoint.
        show: sets the status line; if None, a line is logged every half minute.
        folder: DATA_DIR of the updater.
    """

    def __init__(self, base_url: str, show: Show | None, folder: Path) -> None:
        self._base_url = base_url
        self._show = show
        self._news = News(folder)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="freshness", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=TIMEOUT_S)

    def _run(self) -> None:
        pause_s = LOOK_S
        while not self._stopping.wait(pause_s):
            for sentence in self._news.lines():
                log.info("admission", said=sentence)
            line = self._line()
            if self._show:
                self._show(line)
            elif text := line(None):
                log.info("freshness", said=text)
                pause_s = LOG_EVERY_S

    def _line(self) -> Callable[[int | None], str]:
        try:
            topics = topics_of(self._base_url, TIMEOUT_S)
            freshness(topics)  # raises if the document is not readable
        except (NoAnswer, KeyError, TypeError) as error:
            why = error.kind if isinstance(error, NoAnswer) else type(error).__name__
            said = "" if self._show is None else f"inference at {self._base_url}: no answer yet ({why})"
            return lambda _: said
        return lambda width: freshness(topics, width)
