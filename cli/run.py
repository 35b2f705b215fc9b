"""``birnn run``: the ledger's upgrade, then inference, updater, monitor and a dry-run node on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from cli.freshness import Watch, status_line
from cli.market import EXCHANGE, choose_market, exchange_arguments, local_environment, replaying, simulated_exchange
from cli.place import note_run, tape_folder, try_folders
from cli.screen import say
from cli.session import log_as
from cli.verbs import or_example
from core.clock import SystemClock
from core.errors import ConfigError, WorkerError
from core.process.commands import child_command
from core.process.listener import listen, url_of
from core.process.supervisor import Child, Supervisor
from core.settings import Market, Settings
from door.holder import arguments as door_arguments
from inference.probe import ask, some_ready
from node.config_file import read_config
from truth.start_check import StartCheck

ALL_READY_PATIENCE_S = 120.0  # then some topics are enough for the dry-run node to start


def run_node(settings: Settings, replay: Path | None) -> int:
    """Run everything until a signal; the exit code."""
    patient_until_s = time.monotonic() + ALL_READY_PATIENCE_S
    notes: list[str] = []
    settings = or_example(replaying(settings, replay), notes.append)
    config_read = read_config(
        *settings.config_files, node_version=settings.node_version, own=settings.address, workers=settings.workers
    )
    notes += [f"warning: {line}" for line in config_read.warnings]
    contract = StartCheck(settings, config_read.topics, SystemClock())  # asks the chain while all else starts
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the supervisor takes over
    with ExitStack() as stack:
        # Faults of this machine are found before any venue is asked. The socket stays open to the end: questions find
        # it while the door is started again, and no second process can take the port.
        listener = stack.enter_context(listen(settings.host, settings.port))
        page = stack.enter_context(_listen_for_pages(settings))
        try:
            try_folders(settings, replay)
        except ConfigError:
            raise
        except WorkerError as error:  # the disk, which answers do not need
            notes.append(f"warning: {error}")
        choice = choose_market(settings, replay)
        contract.market = choice.market
        for line in (choice.sentence, *notes):
            say(line)
        note_run(settings, choice.market, replay, url_of(listener), url_of(page))
        show = stack.enter_context(status_line(settings.log_format))
        form = "json" if show else settings.log_format  # the status line makes JSON readable
        log_as(settings, choice.market, form=form)
        url, exchange, folder = None, None, settings.data_dir
        if choice.market is Market.SIMULATED:
            url, process = stack.enter_context(simulated_exchange(settings, replay))
            again = (*exchange_arguments(settings, replay), "--port", str(urlsplit(url).port))
            exchange = Child(module=EXCHANGE, arguments=again, process=process, starts=1)
            folder = tape_folder(settings, replay)
        environment = local_environment(settings, url, folder) | {"LOG_FORMAT": form}
        if exit_code := _ready_ledger(environment):
            return exit_code
        base_url = url_of(listener)
        environment |= {
            "INFERENCE_URL": base_url,
            "NODE_METRICS_URLS": "none",  # the dry-run node counts nothing
            "MONITOR_HOST": settings.monitor_host,
            "MONITOR_PORT": str(page.getsockname()[1]),
        }
        door = door_arguments(settings.answer_patience_s, settings.log_level, form, choice.market.value)
        children = [
            Child(module="door.holder", arguments=door, listener_fd=listener.fileno()),
            Child(module="updater"),
            Child(module="monitor", listener_fd=page.fileno()),
            Child(
                module="worker",
                arguments=("--base-url", base_url),
                may_start=lambda: contract.is_over and _ready(base_url, patient_until_s),
            ),
        ]
        heed = _Heed(contract)
        heed()
        say(f"status page: {url_of(page)}/")
        say(
            f"asking: curl -s '{base_url}/inference/TOKEN?topic=ID'; state: {base_url}/topics and birnn status; "
            f"data in {environment['DATA_DIR']}; Ctrl-C ends"
        )
        with Watch(base_url, show, Path(environment["DATA_DIR"])):
            code = Supervisor(children, environment, structlog.get_logger, exchange=exchange, each_tick=heed).run()
    return code


class _Heed:
    """Called until the chain was asked: tells once what differs there. Nothing waits for it."""

    def __init__(self, contract: StartCheck) -> None:
        self._contract: StartCheck | None = contract

    def __call__(self) -> None:
        """Tell what was found, if that is known now.

        Raises:
            ConfigError: a topic on chain is another one than that we train for.
        """
        if self._contract is None or not self._contract.is_over:
            return
        found, self._contract = self._contract.found(), None
        for line in found.warnings:
            structlog.get_logger().warning("contract", says=line)
        found.heed()


def _ready_ledger(environment: Mapping[str, str]) -> int:
    """Bring the ledger to this release's schema before a process opens it; the exit code."""
    # Its standard input is a pipe of ours: with us, even killed, it ends as well.
    with subprocess.Popen(
        child_command("ledger"), stdin=subprocess.PIPE, env={**os.environ, **environment}, start_new_session=True
    ) as process:
        try:
            return process.wait()
        except BaseException:
            process.kill()
            raise


def _listen_for_pages(settings: Settings) -> socket.socket:
    """Listen for the status page: on MONITOR_PORT if it is set, else on its default or, if that is taken, on any port.

    Raises:
        ConfigError: MONITOR_PORT is set and cannot be had.
    """
    try:
        return listen(settings.monitor_host, settings.monitor_port, "MONITOR_")
    except ConfigError as error:
        if "monitor_port" not in settings.model_fields_set:
            with suppress(ConfigError):
                return listen(settings.monitor_host, 0, "MONITOR_")
        raise error from None


def _ready(base_url: str, patient_until_s: float) -> bool:
    """True if every topic can be answered, or when patience ends some: the official node waits for the same."""
    patient = time.monotonic() < patient_until_s
    return ask(f"{base_url}/readyz", timeout_s=1)[0] or (not patient and some_ready(base_url))
