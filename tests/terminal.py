"""A terminal of a given size that a process writes to, and what a person sees on it."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


class Terminal:
    """The far end of a pseudo-terminal: reads all that is written to it."""

    def __init__(self, columns: int) -> None:
        self._ours, self.theirs = pty.openpty()
        self._content = bytearray()
        self.resize(columns)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def resize(self, columns: int) -> None:
        """Make it as wide as ``columns``; 0 is a terminal that does not say."""
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))

    @property
    def written(self) -> str:
        """Everything as it came, escape sequences included."""
        return bytes(self._content).decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """Each row's newest text; what was erased in between is gone."""
        rows = []
        for row in self.written.split("\n"):
            newest = re.split(r"\x1b\[[KJ]", row)[-1]
            rows.append(ESCAPE.sub("", newest).strip("\r"))
        return rows

    def _read(self) -> None:
        try:
            while part := os.read(self._ours, 65536):
                self._content.extend(part)
        except OSError:
            pass  # the other end is closed

    def close(self) -> None:
        """Wait for what is still on its way, and close both ends."""
        self._reader.join(10)
        os.close(self._ours)


@contextmanager
def on_terminal(
    command: Sequence[str], columns: int, environment: Mapping[str, str] | None = None, cwd: str | None = None
) -> Iterator[tuple[Terminal, "subprocess.Popen[bytes]"]]:
    """Run a command whose standard output and error are a terminal and whose standard input is a pipe.

    The terminal's own width counts, so COLUMNS is not handed on; nor is NO_COLOR.
    """
    terminal = Terminal(columns)
    hidden = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "LOG_FORMAT"}
    given = {name: value for name, value in os.environ.items() if name not in hidden}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
        env={**given, "TERM": "xterm-256color", **(environment or {})},
        cwd=cwd,
    )
    try:
        yield terminal, process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdin
        process.stdin.close()
        os.close(terminal.theirs)
        terminal.close()
