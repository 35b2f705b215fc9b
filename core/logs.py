"""The log: JSON lines for programs, or short lines for people. Both say SIMULATED if prices are not live.

Our lines go to stdout, lines of libraries to stderr. A line that cannot be written is dropped. A process that writes
into a pipe writes JSON, and the process at the terminal makes it readable: only that one knows colours and width.
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter

LogFormat = Literal["auto", "console", "json"]  # auto: console on a terminal, else json

SLOW_MS = 10.0  # faster answers do not show their time, so that the line fits 80 columns
LONGEST_NUMBER = 8  # characters of a number, if its size allows
LONGEST_TEXT = 160  # characters of a value on the console; JSON has the whole value
DIM, BOLD, CYAN, MAGENTA, RESET = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[35;1m", "\x1b[0m"
LEVEL_COLOURS = {"debug": DIM, "info": "\x1b[32m", "warning": "\x1b[33;1m", "error": "\x1b[31;1m"}
SHORT_LEVELS = {"warning": "warn"}


class _Lines:
    """Writes whole lines. Drops a line that a full disk or a closed pipe does not take: that must not end a process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._writing = threading.Lock()

    def msg(self, line: str) -> None:
        with self._writing, suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = msg  # the names that structlog calls


class ConsoleLines:
    """Renders an event as one line for people: structlog's console form with short times, levels and values."""

    def __init__(self, *, colours: bool) -> None:
        dim, bold, cyan, magenta, reset = (DIM, BOLD, CYAN, MAGENTA, RESET) if colours else ("", "", "", "", "")

        def level(key: str, value: object) -> str:
            name = str(value)
            colour = LEVEL_COLOURS.get(name, LEVEL_COLOURS["error"]) if colours else ""
            return f"{colour}{SHORT_LEVELS.get(name, name):4}{reset}"

        def without_key(style: str, width: int = 0) -> KeyValueColumnFormatter:
            return KeyValueColumnFormatter(None, style, reset, value_repr=str, width=width)

        self._render = ConsoleRenderer(
            columns=[
                Column("at", without_key(dim)),
                Column("market", without_key(magenta)),
                Column("level", level),
                Column("service", without_key(cyan, width=9)),
                Column("event", without_key(bold)),
                Column("", KeyValueColumnFormatter(dim, "", reset, value_repr=str)),
            ]
        )

    def __call__(self, logger: Any, name: str, event: Mapping[str, Any]) -> str:
        shown = dict(event)
        if {"topic_id", "status", "took_ms"} <= event.keys():
            shown = _answer_in_short(event)
        elif event.get("event") == "progress" and {"task", "done", "wanted", "note"} <= event.keys():
            shown = _progress_in_short(event)
        if event.get("event") == "admission":
            shown["event"] = shown.pop("said")
        if event.get("event") == "round" and event.get("verdicts"):
            won = sum(verdict["promoted"] for verdict in event["verdicts"])
            shown["verdicts"] = f"won {won} of {len(event['verdicts'])}"
        exception = {"exception": _printable(shown.pop("exception"))} if "exception" in shown else {}
        values = {key: text for key, value in shown.items() if (text := _value_in_short(value))}
        at = {"at": str(event["at"])[11:19]} if "at" in event else {}
        return self._render(logger, name, values | at | exception)


def readable(line: str, render: Any = None) -> str:
    """Return a log line of another process in this process's form; other lines stay as they are.

    Args:
        line: without its newline.
        render: renders the line; None is this process's renderer.
    """
    render = render or structlog.get_config()["processors"][-1]
    if not isinstance(render, ConsoleLines) or not line.startswith("{"):
        return line
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line
    return render(None, "", event) if {"at", "event", "level"} <= event.keys() else line


def _progress_in_short(event: Mapping[str, Any]) -> dict[str, Any]:
    """
    >>> _progress_in_short({"event": "progress", "task": "train hour", "done": 3, "wanted": 12, "note": "epoch 2"})
    {'event': 'train hour 25 %, epoch 2'}
    """
    part = f"{100 * event['done'] // event['wanted']} %" if event["wanted"] else str(event["done"])
    rest = {key: value for key, value in event.items() if key not in {"task", "done", "wanted", "note"}}
    return rest | {"event": f"{event['task']} {part}, {event['note']}"}


def _answer_in_short(event: Mapping[str, Any]) -> dict[str, Any]:
    """Show topic, value, network, age of the price, and the time if it was long; or the status and the reason.

    "(by hand)" stands in place of both times: only those of the node matter. "again" stands in place of the age for an
    answer that was given before. A line of what the node would submit has the value alone: the endpoint's line for the
    same answer has the rest.

    >>> answer = {"event": "answer", "topic_id": 1, "token": "ETH", "status": 200, "value": "2000.51234567",
    ...           "version": "minute-20261122T084500Z-1a2b3c", "anchor_age_ms": 412, "took_ms": 0.0871}
    >>> _answer_in_short(answer)["event"]
    'topic 1 ETH 2000.512 minute-1a2b3c 0.4s'
    >>> _answer_in_short(answer | {"status": 503, "reason": "no candles yet"})["event"]
    'topic 1 ETH 503 no candles yet 0.1ms'
    >>> _answer_in_short(answer | {"asked_ms": 90_000, "answered_ms": 60_000})["event"]
    'topic 1 ETH 2000.512 minute-1a2b3c again'
    >>> _answer_in_short(answer | {"asker": "hand"})["event"]
    'topic 1 ETH 2000.512 minute-1a2b3c (by hand)'
    >>> _answer_in_short(answer | {"event": "would_submit", "forecast": "network"})["event"]
    'would submit topic 1 ETH 2000.512 network'
    """
    version = str(event.get("version") or event.get("model_version") or "")
    naive, is_by_hand = event.get("forecast") == "naive", event.get("asker") == "hand"
    age_ms, value = event.get("anchor_age_ms"), event.get("value")
    answered = event["status"] == 200 and value is not None
    frame = {name: event[name] for name in ("market", "level", "service", "exception") if name in event}
    topic = ["topic", str(event["topic_id"] or "?"), str(event.get("token") or "")]
    if answered and event["event"] == "would_submit":
        return frame | {
            "event": " ".join(["would submit", *topic, _number_in_short(value), "naive" if naive else "network"])
        }
    answer_words = [_number_in_short(value), "naive" if naive else short_version(version)] if answered else []
    again = 0 < (event.get("answered_ms") or 0) < (event.get("asked_ms") or 0)
    answer_words += (
        ["again" if again else f"{age_ms / 1000:.1f}s"] if answered and age_ms is not None and not is_by_hand else []
    )
    answer_words += [] if answered else [str(event["status"] or ""), str(event.get("reason") or "")]
    said = [] if event["event"] == "answer" else [str(event["event"])]
    took_ms = event["took_ms"]
    took = f"{took_ms:.0f}ms" if took_ms >= SLOW_MS else "" if answered else f"{took_ms:.1f}ms"
    parts = [*said, *topic, *answer_words, "(by hand)" if is_by_hand else took]
    return frame | {"event": " ".join(part for part in parts if part)}


def short_version(version: str) -> str:
    """Shorten a version to its panel and the end of its id; other names stay as they are.

    >>> short_version("minute-20261122T084500Z-1a2b3c"), short_version("persistence")
    ('minute-1a2b3c', 'persistence')
    """
    panel, _, rest = version.partition("-")
    made, _, fingerprint = rest.partition("-")
    return f"{panel}-{fingerprint}" if made[:1].isdigit() and fingerprint else version


def _number_in_short(text: object) -> str:
    """
    >>> [_number_in_short(text) for text in ("61234.5678912", "0.00246015812", "0.000012345678912", "n/a")]
    ['61234.57', '0.00246', '1.23e-05', 'n/a']
    """
    try:
        number = float(str(text))
    except ValueError:
        return str(text)
    return next(
        (short for digits in range(7, 3, -1) if len(short := f"{number:.{digits}g}") <= LONGEST_NUMBER), f"{number:.3g}"
    )


def _value_in_short(value: object) -> str:
    """Return a short text; empty for None, an empty text or an empty list."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {_value_in_short(part)}" for key, part in value.items())
    elif isinstance(value, list | tuple):
        plain = not any(isinstance(part, Mapping | list | tuple) for part in value)
        text = ", ".join(map(_value_in_short, value)) if plain else f"{len(value)} items"
    else:
        text = str(value)
    text = _printable(text.replace("\n", " "))
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."


def _printable(text: object) -> str:
    """Escape characters that could move the cursor or change colours: a token in a URL can be any text."""
    return "".join(
        sign if sign.isprintable() or sign == "\n" else sign.encode("unicode_escape").decode() for sign in str(text)
    )


def console_lines(stream: TextIO | int, form: LogFormat) -> ConsoleLines | None:
    """Return the renderer of readable lines for a stream; None if its lines are JSON.

    Colours are for terminals only, and not if NO_COLOR is set or TERM is dumb.

    Args:
        stream: where the lines go, or its file descriptor.
    """
    terminal = os.isatty(stream) if isinstance(stream, int) else stream.isatty()
    if form == "json" or (form == "auto" and not terminal):
        return None
    return ConsoleLines(colours=terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def configure_logging(level: str, *, service: str, simulated: bool, form: LogFormat = "auto") -> None:
    """Send this process's log lines to stdout, and warnings of libraries to stderr in the same form.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        service: written in each line's ``service``.
        simulated: adds ``"market": "SIMULATED"`` to each line.
        form: LOG_FORMAT.
    """
    numeric = logging.getLevelNamesMapping()[level.upper()]
    fixed: dict[str, Any] = {"service": service} | ({"market": "SIMULATED"} if simulated else {})

    def add_fixed(_: Any, __: str, event: Any) -> Any:
        return {**event, **fixed}

    described: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        add_fixed,
        structlog.processors.format_exc_info,
    ]
    stdout = _own_stdout()
    lines = _Lines(stdout)
    structlog.configure(
        processors=[*described, console_lines(stdout, form) or _json],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    of_libraries = logging.StreamHandler(sys.stderr)
    rendered = (sys.stderr and console_lines(sys.stderr, form)) or _json
    of_libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *described],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered],
        )
    )
    logging.basicConfig(level=max(numeric, logging.WARNING), handlers=[of_libraries])


def _json(_: Any, __: str, event: Any) -> str:
    """Render with orjson: with the standard library, answer lines are a twentieth of inference's work under load."""
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # an integer of more than 64 bits, or text that is not Unicode
        return json.dumps(event, default=str, sort_keys=True)


def _own_stdout() -> TextIO:
    """Open stdout a second time: a failed write in ``sys.stdout`` itself would spoil the exit status."""
    if sys.stdout is None:  # started with it closed
        return Path(os.devnull).open("w", encoding="utf-8")
    return os.fdopen(1, "w", encoding="utf-8", closefd=False)
