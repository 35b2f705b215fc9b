"""The arguments of ``python -m MODULE``, read by argparse; the verbs of ``birnn`` are read by typer."""

import argparse
from typing import NoReturn

from core.errors import ConfigError


class CommandLine(argparse.ArgumentParser):
    """A parser that reports a wrong command line as a ConfigError of one line, not as argparse's usage and exit.

    >>> CommandLine(prog="python -m door").parse_args(["--port", "1"])
    Traceback (most recent call last):
    core.errors.ConfigError: unrecognized arguments: --port 1; python -m door --help lists the arguments
    """

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {self.prog} --help lists the arguments")
