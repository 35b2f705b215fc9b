"""``python -m worker``: the dry-run node. SIGTERM or SIGINT ends it."""

import re
import signal
import sys
import threading
import time
from collections.abc import Sequence

import structlog

from core.clock import SystemClock
from core.errors import ConfigError
from core.logs import configure_logging
from core.process.command_line import CommandLine
from core.settings import Market, load_settings
from node.config_file import topics_from_config
from worker.dry_run import DryRunNode

STOP_PATIENCE_S = 0.5


class _WakingClock(SystemClock):
    """The machine's clock; a sleep ends early when ``stopped`` is set."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def sleep(self, seconds: float) -> None:
        self._stopped.wait(seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; the exit code: 0 after a signal, 2 if the arguments or the configuration are wrong."""
    parser = CommandLine(prog="python -m worker", description="Ask as the node does; log, send nothing.")
    parser.add_argument("--base-url", help="ask here, in the place of each endpoint's scheme, host and port")
    signals = {signal.SIGTERM, signal.SIGINT}
    # Blocked in every thread and waited for here: nothing is interrupted half-way.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        base_url = parser.parse_args(arguments).base_url
        if base_url is not None and not re.fullmatch(r"https?://[^/?#\s]+/?", base_url):
            raise ConfigError(f"--base-url was {base_url!r}: it must be like http://127.0.0.1:8000")
        settings = load_settings()
        topics = topics_from_config(*settings.config_files, node_version=settings.node_version)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(
        settings.log_level,
        service="node",
        simulated=settings.market is Market.SIMULATED,
        form=settings.log_format,
    )
    stopped = threading.Event()
    node = DryRunNode(topics, _WakingClock(stopped), stopped, base_url=base_url)
    structlog.get_logger().info("dry_run_started", topics=[topic.key for topic in topics], base_url=base_url)
    threads = node.start()
    signal.sigwait(signals)
    stopped.set()
    deadline = time.monotonic() + STOP_PATIENCE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
