"""A SQLite file that another process keeps everybody from reading, as a file server that has lost its locks does."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The five read marks of the write-ahead log's index. Source: sqlite.org/walformat.html, section 2.3.2.
LOCKED = """
import fcntl, sys
with open(sys.argv[1], "r+b") as index:
    fcntl.lockf(index, fcntl.LOCK_EX, 5, 123)
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def hanging(database: Path) -> Iterator[None]:
    """While the block lasts, a transaction on ``database`` waits, for up to ten seconds, and then fails."""
    command = [sys.executable, "-c", LOCKED, f"{database}-shm"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            process.kill()
