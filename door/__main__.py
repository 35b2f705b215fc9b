"""``python -m door``: listens on HOST and PORT, and runs ``python -m inference`` behind it until SIGTERM or SIGINT.

Its command line lacks the word inference: who ends inference by name leaves the port open. Reading the settings takes
libraries of 30 MB, so once the port is bound this process becomes ``door.holder``, which does without them.
"""

import os
import sys
from collections.abc import Sequence

from core.errors import ConfigError
from core.process.command_line import CommandLine
from core.process.listener import hand_over, handed_over, listen
from core.process.supervisor import CONFIG_EXIT
from core.settings import load_settings
from door.holder import arguments as holder_arguments


def main(arguments: Sequence[str]) -> int:
    """Listen and become the holder; return 2, with one line on stderr, if arguments or configuration are wrong."""
    try:
        CommandLine(prog="python -m door", description="Hold the port of python -m inference.").parse_args(arguments)
        settings = load_settings()
        listener = handed_over() or listen(settings.host, settings.port)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return CONFIG_EXIT
    market = settings.market.value
    more = holder_arguments(settings.answer_patience_s, settings.log_level, settings.log_format, market)
    environment = {**os.environ, **hand_over(listener.detach(), os.getpid())}
    os.execve(sys.executable, [sys.executable, "-m", "door.holder", *more], environment)  # noqa: S606 -- it ends here


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
