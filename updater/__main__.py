"""``python -m updater``: keeps the klines fresh, trains, judges and publishes, until SIGTERM or SIGINT."""

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path

import structlog

from core.clock import Clock
from core.errors import ConfigError, WorkerError
from core.logs import configure_logging
from core.process.command_line import CommandLine
from core.settings import Market, load_settings
from core.show.progress import show_cursor_again
from node.config_file import topics_from_config
from truth.adopted import Adopted
from updater.schedule import Schedule, cron_trigger
from updater.service import open_updater
from updater.state import StateFile

HEARTBEAT_S = 20.0
PATIENCE_S = 2.5  # for the job at hand after a signal: a request in flight may take longer and is abandoned
WRONG_CONFIG = 2  # exit status
SLICE_S = 0.5
START_ANEW = 1  # exit status: the supervisor starts the updater again

log = structlog.get_logger()


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal comes; exit status 2, with a line on stderr, if arguments or configuration are wrong."""
    parser = CommandLine(prog="python -m updater", description="keeps klines fresh, trains and publishes")
    parser.add_argument(
        "--config-json",
        type=Path,
        metavar="FILE",
        help="JSON of training settings that differ from the defaults, in the place of DATA_DIR/training.json",
    )
    # A handler may run in the middle of anything; putting into a SimpleQueue is safe even then.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.put(received))
    try:
        return _run(parser.parse_args(arguments).config_json, signals)
    except WorkerError as error:
        sys.stderr.write(f"{error}\n")
        return WRONG_CONFIG if isinstance(error, ConfigError) else START_ANEW


def _run(training_file: Path | None, signals: "queue.SimpleQueue[int]") -> int:
    settings = load_settings()
    if settings.market is Market.AUTO:
        raise ConfigError("MARKET=auto is for birnn run alone; set binance, or simulated with the exchange's URLs")
    configure_logging(
        settings.log_level,
        service="updater",
        simulated=settings.market is Market.SIMULATED,
        form=settings.log_format,
    )
    adopted = Adopted(settings)
    settings = adopted.settings
    topics = topics_from_config(
        *settings.config_files, node_version=settings.node_version
    )  # inference logs the warnings
    trigger = cron_trigger(settings.retrain_cron)
    stop = threading.Event()
    with open_updater(settings, topics, training_file, stop) as updater:
        schedule = Schedule(updater, updater.state, tuple(updater.plans), trigger)
        log.info("started", data_dir=str(settings.data_dir), topics=[t.key for t in topics], panels=[*updater.plans])
        schedule.start()
        status = watch(schedule, updater.state, signals, updater.clock, adopted)
        stop.set()
        ended = schedule.end(PATIENCE_S)
        updater.state.end()
        log.info("ended", abandoned_a_request=not ended)
        if not ended:
            # A request still waits for the venue. All files are written by rename, so nothing can be torn; but the
            # interpreter would wait for the request's thread.
            show_cursor_again()
            os._exit(status)
    return status


def watch(
    schedule: Schedule,
    state: StateFile,
    signals: "queue.SimpleQueue[int]",
    clock: Clock,
    adopted: Adopted | None = None,
) -> int:
    """Beat while the schedule can be relied on and no signal comes.

    After a clock set back or a job that hangs the process ends and is started anew: retries and state hold dates too, a
    thread that hangs cannot be ended, and a start is the best tested way out. So the process also takes up what was
    newly adopted, as soon as no job is at work.

    Returns:
        the exit status.
    """
    while not (reason := schedule.trouble(clock.now_ms() / 1000, time.monotonic())):
        if adopted and (adopted.look() or adopted.is_outdated) and not schedule.is_at_work:
            log.info("ending_to_be_started_anew", reason="TRUTH_VENUE or BASE_RULE was adopted")
            return START_ANEW
        state.beat()
        schedule.note_next_runs()
        beaten_s = time.monotonic()
        while time.monotonic() < beaten_s + HEARTBEAT_S:
            with contextlib.suppress(queue.Empty):
                # In slices, because a signal just before a wait begins does not end that wait.
                log.info("ending", signal=signal.Signals(signals.get(timeout=SLICE_S)).name)
                return 0
    log.error("ending_to_be_started_anew", reason=reason)
    return START_ANEW


if __name__ == "__main__":
    sys.exit(main())
