"""``birnn run``: how old the prices behind the answers are, on one line that stays below the log."""

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import requests
import structlog

LOOK_S = 1.0
LOG_EVERY_S = 30.0  # where there is no terminal to keep a line on
TIMEOUT_S = 2.0
CLEAR = b"\r\x1b[K"

log = structlog.get_logger()

Show = Callable[[str], None]


@contextmanager
def status_line() -> Iterator[Show | None]:
    """Keep a line at the bottom of the terminal while the block runs, whoever of this process's family writes above it.

    Standard output and error go through a pipe meanwhile, which the children inherit.

    Yields:
        What sets the line; None where standard output is no terminal.
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
    bottom = _Bottom(terminals[1])
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
        bottom.show("")
        for terminal in terminals.values():
            os.close(terminal)


class _Bottom:
    """Writes lines and the status below them, one at a time."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._text = b""
        self._writing = threading.Lock()

    def show(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        with self._writing:
            self._text = text[:width].encode(errors="replace")
            self._write(CLEAR + self._text)

    def pass_on(self, source: int) -> None:
        with os.fdopen(source, "rb") as lines:
            for line in lines:
                with self._writing:
                    self._write(CLEAR + line + self._text)

    def _write(self, content: bytes) -> None:
        try:
            while content:
                content = content[os.write(self._terminal, content) :]
        except OSError:
            pass  # the terminal is gone; whoever runs us will hear of it otherwise


def freshness(topics: Sequence[dict[str, Any]]) -> str:
    """What ``/topics`` says about age, in one line.

    >>> freshness([{"symbol": "ETHUSDT", "anchor_age_ms": 412, "forecast_age_ms": 12_345, "ready": True,
    ...             "market": "SIMULATED", "stream": ""}])
    'SIMULATED | price age: ETHUSDT 0.4 s | forecasts 12 s old | stream up | 1 of 1 topics ready'
    """
    if not topics:
        return "no topics"
    ages = {topic["symbol"]: topic["anchor_age_ms"] for topic in topics}
    prices = "  ".join(
        f"{symbol} {'none yet' if age is None else f'{age / 1000:.1f} s'}" for symbol, age in ages.items()
    )
    forecasts = [topic["forecast_age_ms"] for topic in topics if topic["forecast_age_ms"] is not None]
    ready = sum(topic["ready"] for topic in topics)
    fault = topics[0]["stream"]
    return " | ".join(
        (
            topics[0]["market"],
            f"price age: {prices}",
            f"forecasts {min(forecasts) // 1000} s old" if forecasts else "no forecasts yet",
            "stream up" if not fault else f"polling ({fault})",
            f"{ready} of {len(topics)} topics ready",
        )
    )


class Watch:
    """Asks the endpoint for the ages once a second, in a thread of its own, and shows or logs them.

    Args:
        base_url: of the inference endpoint.
        show: sets the status line; None logs every half minute.
    """

    def __init__(self, base_url: str, show: Show | None) -> None:
        self._url = f"{base_url}/topics"
        self._show = show
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
        with requests.Session() as session:
            session.trust_env = False  # a proxy of the environment does not lead to this machine
            while not self._stopping.wait(pause_s):
                text = self._look(session)
                if self._show:
                    self._show(text)
                elif text:
                    log.info("freshness", said=text)
                    pause_s = LOG_EVERY_S

    def _look(self, session: requests.Session) -> str:
        try:
            answer = session.get(self._url, timeout=TIMEOUT_S)
            answer.raise_for_status()
            return freshness(answer.json())
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            return "" if self._show is None else f"inference at {self._url}: no answer yet ({type(error).__name__})"
