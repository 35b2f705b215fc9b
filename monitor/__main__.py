"""``python -m monitor``: scores answers, serves the status page and sends alarms, until SIGTERM or SIGINT."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import FrameType

import structlog
import uvicorn

from core.clock import Clock, SystemClock
from core.data_folder import MONITOR_LOCK, only_updater
from core.errors import ConfigError, WorkerError
from core.heap import keep_heap_whole
from core.logs import configure_logging
from core.process.command_line import CommandLine
from core.process.commands import say_ready
from core.process.listener import handed_over, listen, url_of
from core.process.stand_back import stand_back
from core.settings import Market, Settings, load_settings
from monitor.alarm_book import AlarmBook
from monitor.alarms import can_be_over, conditions
from monitor.loops import Loops, Step
from monitor.parts import Ground, Parts, build
from monitor.send import addresses_of
from monitor.watch import Watch
from monitor.watched import Watched
from node.config_file import read_config
from truth.adopted import LOOK_S as ADOPTIONS_S
from truth.adopted import Adopted

LOOK_S = 5.0
STOP_S = 1.0  # for each kind of thread
WRONG_CONFIG = 2  # exit status

log = structlog.get_logger()


def main(arguments: Sequence[str] = ()) -> int:
    """Run until a signal; return 2, with one line on stderr, if the arguments or the configuration are wrong."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        CommandLine(
            prog="python -m monitor", description="Score answers, show the status page, send alarms."
        ).parse_args(arguments)
        keep_heap_whole()
        stand_back(500)  # behind inference, before a training
        return serve(load_settings(), SystemClock(), build, handed_over())
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return WRONG_CONFIG


def serve(
    settings: Settings, clock: Clock, build_parts: Callable[[Ground], Parts], given: socket.socket | None = None
) -> int:
    """Look, alarm and serve until a signal.

    Args:
        build_parts: makes the page, the scorer and what they tell the alarms.
        given: the socket of the page, if another process holds it open; None listens on MONITOR_HOST and MONITOR_PORT.
    Raises:
        ConfigError: a setting is wrong, or another monitor runs on the folder.
    """
    if settings.market is Market.AUTO:
        raise ConfigError("MARKET=auto is for `birnn run` alone; set MARKET to binance or simulated")
    market = settings.market.value.upper()
    configure_logging(
        settings.log_level,
        service="monitor",
        simulated=settings.market is Market.SIMULATED,
        form=settings.log_format,
    )
    adopted = Adopted(settings)
    settings = adopted.settings
    config = read_config(*settings.config_files, node_version=settings.node_version, workers=settings.workers)
    topics = config.topics
    looks: list[Watched] = []  # the newest alone
    with ExitStack() as stack:
        listener = stack.enter_context(given or listen(settings.monitor_host, settings.monitor_port, "MONITOR_"))
        stack.enter_context(_only_monitor(settings))
        alarms = AlarmBook(settings.ledger_url, addresses_of(settings.alarm_urls), clock, market)
        parts = build_parts(
            Ground(
                settings=settings,
                topics=topics,
                clock=clock,
                alarms=alarms,
                newest=lambda: looks[0] if looks else None,
                rpc_urls=settings.rpcs(config.rpc_urls),
                nodes=config.nodes,
                waiting=lambda: adopted.waiting,
            )
        )
        loops = Loops()
        watch = Watch(settings, topics, clock, lambda: loops.faults | {"ledger": alarms.database_fault}, parts.checked)
        thresholds = settings.alarms

        def look() -> None:
            watched = watch.look()
            skills, participation = parts.skills(watched), parts.participation(watched)
            alarms.step(
                conditions(watched, skills, participation, thresholds),
                lambda name, subject: (
                    name not in thresholds or can_be_over(name, subject, watched, skills, participation)
                ),
                watched.now_ms,
            )
            parts.seen(watched)
            looks[:] = [watched]  # last, so that /healthz turns 503 when any step above fails

        server = uvicorn.Server(
            uvicorn.Config(
                parts.app,
                loop="asyncio",
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                headers=[("X-Market", market)],
                timeout_graceful_shutdown=1,
            )
        )

        def look_for_adoptions() -> None:
            """End to be started anew with what was newly adopted: nothing that this process does is urgent."""
            if adopted.look():
                log.info("ending_to_be_started_anew", reason="TRUTH_VENUE or BASE_RULE was adopted")
                server.should_exit = True

        _end_on_signals(server)
        log.info("listening", url=url_of(listener), inference=settings.inference_address, alarms_to=len(alarms))
        alarms.start()
        own = (
            Step(name="look", run=look, every_s=LOOK_S),
            Step(name="adoptions", run=look_for_adoptions, every_s=ADOPTIONS_S),
        )
        for step in (*own, *parts.steps):
            loops.start(step)
        say_ready()
        try:
            server.run(sockets=[listener])
        finally:
            loops.stop(STOP_S)
            alarms.stop()
            watch.close()
            parts.end()
        log.info("ended")
    return 0


def _only_monitor(settings: Settings) -> ExitStack:
    """Be the only monitor on the data folder; a disk that takes no lock is no reason to send no alarms."""
    stack = ExitStack()
    try:
        stack.enter_context(only_updater(settings.data_dir, lock_name=MONITOR_LOCK))
    except ConfigError:
        raise
    except WorkerError as error:
        log.warning("not_locked", reason=str(error))
    return stack


def _end_on_signals(server: uvicorn.Server) -> None:
    """Let SIGTERM and SIGINT end the server before and after it serves; while it serves it catches them itself."""

    def stop(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _leave(_: int, __: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: a thread that waits for a server or a database would keep the interpreter from ending, and to take the
    # interpreter apart takes seconds at this niceness.
    os._exit(status)
