"""Answers that the database does not have yet, in a file: one line each, with the kernel before the answer is sent.

A kill of the process loses nothing that one ``write`` has taken. Each process has a file of its own and holds a lock on
it; the next start reads what the files of its forerunners have and removes them once the database has it too.
"""

import ctypes
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import orjson
import structlog
from pydantic import TypeAdapter, ValidationError

from inference.answer import Answer

PATTERN = "answers-*.journal"
LONG_BYTES = 1 << 22  # thirteen thousand answers
ENDING_PATIENCE_S = 5.0  # for a forerunner that is still ending: what it answers meanwhile is to be read as well
PAUSE_S = 0.05

# As os.write, which lets go of Python's lock for the microsecond that this takes: under load some other thread then has
# it, and the event loop waits. That took a quarter of all answers.
_write = ctypes.PyDLL(None, use_errno=True).write
_write.argtypes, _write.restype = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t), ctypes.c_ssize_t

log = structlog.get_logger()


class Journal:
    """The file of this process, made with its first answer, and what others left in the folder.

    Not to be used by two threads at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._long = LONG_BYTES
        self.left: list[Answer] = []  # by forerunners, in the order in which each gave them
        self._theirs: list[Path] = []  # their files
        self._read_all()

    def append(self, answer: Answer) -> None:
        """Hand the answer to the kernel.

        Raises:
            OSError: the disk did not take all of it.
        """
        self._append(_line(answer))

    @property
    def is_long(self) -> bool:
        """Whether it is time to leave out what the database has."""
        return self._size > self._long

    def begin_anew(self, answers: Iterable[Answer]) -> Path | None:
        """Go on in a new file that has these answers; what had been written before can then be removed.

        Raises:
            OSError: the disk did not take it; the file before stays in use.
        """
        fd, path, size = self._fd, self._path, self._size
        self._open()
        try:
            self._append(b"".join(map(_line, answers)))
        except OSError:
            self.close(all_written=True)
            self._fd, self._path, self._size, self._long = fd, path, size, 2 * size
            raise
        self._long = max(LONG_BYTES, 2 * self._size)
        if fd is not None:
            os.close(fd)
        return path

    def forget_left(self) -> None:
        """Remove what the forerunners left: the database has it."""
        for path in self._theirs:
            remove(path)
        self.left, self._theirs = [], []

    def close(self, *, all_written: bool) -> None:
        """End; the file stays where the database does not have all of it."""
        if self._fd is not None:
            if all_written:
                remove(self._path)
            os.close(self._fd)
            self._fd = None

    def _append(self, lines: bytes) -> None:
        written = _write(self._open() if self._fd is None else self._fd, lines, len(lines))
        if written < len(lines):
            number = ctypes.get_errno() if written < 0 else errno.ENOSPC
            raise OSError(number, os.strerror(number))
        self._size += written

    def _open(self) -> int:
        fd, name = tempfile.mkstemp(prefix=PATTERN.partition("*")[0], suffix=Path(PATTERN).suffix, dir=self._folder)
        _lock(fd)
        self._fd, self._path, self._size = fd, Path(name), 0
        return fd

    def _read_all(self) -> None:
        deadline = time.monotonic() + ENDING_PATIENCE_S
        for path in sorted(self._folder.glob(PATTERN), key=_modified):
            try:
                with path.open("rb") as file:
                    while not (ended := _lock(file.fileno())) and time.monotonic() < deadline:
                        time.sleep(PAUSE_S)
                    lines = [line for line in file.read().split(b"\n") if line]
            except OSError as error:
                log.error("journal_not_read", file=str(path), reason=error.strerror)
                continue
            if ended:
                self._theirs.append(path)
            answers = [answer for line in lines if (answer := _answer(line))]
            self.left += answers
            if skipped := len(lines) - len(answers):
                log.warning("journal_lines_skipped", file=str(path), lines=skipped, answers=len(answers))


def _line(answer: Answer) -> bytes:
    """A line that begins with its newline: one that was cut off spoils none after it."""
    return b"\n" + orjson.dumps(answer)


def _answer(line: bytes) -> Answer | None:
    try:
        answer = TypeAdapter(Answer).validate_json(line)
    except ValidationError:
        return None
    return None if answer.height is None else answer


def _lock(fd: int) -> bool:
    """Whether the file is nobody else's who lives; it is this process's from now on."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone meanwhile
        return 0.0


def remove(path: Path | None) -> None:
    """Remove a file that the database makes superfluous."""
    if path:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # read once more by the next start, to no effect
            log.warning("journal_not_removed", file=str(path), reason=error.strerror)
