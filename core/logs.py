"""One JSON object per line; while prices are the simulated exchange's, every line says so.

Our lines go to stdout, those of libraries to stderr. A line that cannot be written is dropped.
"""

import json
import logging
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import orjson
import structlog


class _Lines:
    """Writes whole lines, and lets go of those that a full disk or a closed pipe does not take.

    Whoever logs has something better to do than to end over a line of log.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._writing = threading.Lock()

    def msg(self, line: str) -> None:
        with self._writing, suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = msg  # by these names structlog calls it


def configure_logging(level: str, *, service: str, simulated: bool) -> None:
    """Send this process's log lines to stdout as JSON, and what libraries warn of to stderr in the same form.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        service: written in each line's ``service``.
        simulated: adds ``"market": "SIMULATED"`` to each line.
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
    rendered = structlog.processors.JSONRenderer(lambda event, **_: _json(event))
    lines = _Lines(_own_stdout())
    structlog.configure(
        processors=[*described, rendered],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    others = logging.StreamHandler(sys.stderr)
    others.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *described],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered],
        )
    )
    logging.basicConfig(level=max(numeric, logging.WARNING), handlers=[others])


def _json(event: Any) -> str:
    """One line; under load those of answers are a twentieth of all that inference does with the standard library."""
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # an integer of more than 64 bits, or text that is none
        return json.dumps(event, default=str, sort_keys=True)


def _own_stdout() -> TextIO:
    """Stdout once more: what it could not write ends with it, and in ``sys.stdout`` would spoil the exit status."""
    if sys.stdout is None:  # started with it closed
        return Path(os.devnull).open("w", encoding="utf-8")
    return os.fdopen(1, "w", encoding="utf-8", closefd=False)
