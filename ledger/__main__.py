"""``python -m ledger``: brings the database of answers to this release's schema, and ends."""

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from core.errors import ConfigError
from core.logs import configure_logging
from core.process.command_line import CommandLine
from core.settings import Market, load_settings
from ledger.upgrade import bring_up_to_date

WRONG_CONFIG = 2  # exit status


def main(arguments: Sequence[str] = ()) -> int:
    """Upgrade; return 2, with one line on stderr, if inference could not work on the database either."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as a kill: the database stays as it was
    try:
        about = "Bring the database of answers to this release's schema; run it before the other processes."
        CommandLine(prog="python -m ledger", description=about).parse_args(arguments)
        settings = load_settings()
        configure_logging(
            settings.log_level,
            service="ledger",
            simulated=settings.market is Market.SIMULATED,
            form=settings.log_format,
        )
        with suppress(OSError):  # the database cannot be opened then, and the reason is given there
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        bring_up_to_date(settings.ledger_url)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return WRONG_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
