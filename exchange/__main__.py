"""The simulated exchange as a program: its first line on stdout says where it listens."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from core.clock import SystemClock
from core.errors import ConfigError
from core.logs import configure_logging
from core.process.command_line import CommandLine
from exchange.server import SimulatedExchange, say
from exchange.sources.replay import Replay

LOG = structlog.get_logger()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandLine(prog="python -m exchange", description="A simulated exchange.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=0, help="0 for any free port")
    parser.add_argument("--seed", type=int, default=0, help="of the invented prices")
    parser.add_argument("--replay", type=Path, help="folder of Parquet klines to play; then no price is invented")
    parser.add_argument("--state", type=Path, help="file in which a replay keeps where it is")
    parser.add_argument("--symbols", type=lambda text: text.split(","), help="comma-separated; default all")
    arguments = parser.parse_args(argv)
    if arguments.seed < 0:
        parser.error(f"--seed must not be negative, was {arguments.seed}")
    if arguments.state and not arguments.replay:
        parser.error(f"--state {arguments.state} is for a replay; give --replay FOLDER or leave it out")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the first line on stdout says where."""
    stops = {signal.SIGTERM, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before there are threads, which inherit it
    try:
        given = _arguments(argv)
        clock, replay = SystemClock(), given.replay
        source = replay and Replay.open(replay, clock.now_ms(), symbols=given.symbols, state=given.state)
        exchange = SimulatedExchange(
            seed=given.seed, symbols=given.symbols, source=source, clock=clock, host=given.host, port=given.port
        )
    except ConfigError as error:
        say(str(error))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return 2
    configure_logging("info", service="exchange", simulated=True)
    with exchange:
        source = exchange.source
        LOG.info("listening", url=exchange.url, stream_url=exchange.stream_url, prices=source.name, note=source.note)
        if source.note:
            say(source.note)
        signal.sigwait(stops)
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # Python takes most of a second to clear away its modules, and birnn run waits for half of one
