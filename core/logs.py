"""One JSON object per line on stdout; while prices are invented, every line says so."""

import logging
import sys
from typing import Any

import structlog


def configure_logging(level: str, *, service: str, simulated: bool) -> None:
    """Send this process's log lines to stdout as JSON.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        service: written in each line's ``service``.
        simulated: adds ``"market": "SIMULATED"`` to each line.
    """
    numeric = logging.getLevelNamesMapping()[level.upper()]
    fixed: dict[str, Any] = {"service": service} | ({"market": "SIMULATED"} if simulated else {})

    def add_fixed(_: Any, __: str, event: Any) -> Any:
        return {**event, **fixed}

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            add_fixed,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=True, default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        level=max(numeric, logging.WARNING), stream=sys.stderr, format='{"logger":"%(name)s","event":"%(message)s"}'
    )
