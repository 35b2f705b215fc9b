"""A file of the answers that the database does not have yet, one line each, written before the answer is sent.

The file is mapped into memory: a copied line is with the kernel, and a kill of the process loses nothing. Disk space is
reserved before it is written to, so that a full disk is an error and not a signal. Each process has its own file and
holds a lock on it. The next start reads the files of earlier processes, and removes them once the database has their
answers.
"""

import fcntl
import mmap
import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import orjson
import structlog
from pydantic import TypeAdapter, ValidationError

from ledger.answers import Answer

PATTERN = "answers-*.journal"
LONG_BYTES = 1 << 20  # five thousand answers, then the file is begun anew
ROOM_BYTES = 1 << 18  # reserved at a time
ENDING_PATIENCE_S = 5.0  # for an earlier process that is ending: its last answers are to be read as well
PAUSE_S = 0.05
READ = TypeAdapter(Answer)

log = structlog.get_logger()


class _File:
    """A file of lines, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self._fd, name = tempfile.mkstemp(prefix=PATTERN.partition("*")[0], suffix=Path(PATTERN).suffix, dir=folder)
        _lock(self._fd)
        self.path = Path(name)
        self.size = 0
        self._room: mmap.mmap | None = None

    def append(self, lines: bytes) -> None:
        """Write the lines.

        Raises:
            OSError: the disk has no room.
        """
        end = self.size + len(lines)
        if self._room is None or end > len(self._room):
            room = (end // ROOM_BYTES + 1) * ROOM_BYTES
            os.posix_fallocate(self._fd, 0, room)
            if self._room is not None:
                self._room.close()
            self._room = mmap.mmap(self._fd, room)
        self._room[self.size : end] = lines
        self.size = end

    def close(self) -> None:
        """Give back the unused space and the lock."""
        if self._room is not None:
            self._room.close()
        with suppress(OSError):
            os.ftruncate(self._fd, self.size)
        os.close(self._fd)


class Journal:
    """The file of this process, made with its first answer, and the files that earlier processes left in the folder.

    Not for two threads at once.

    Attributes:
        left: answers of earlier processes, in the order in which each process gave them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: _File | None = None
        self._long = LONG_BYTES
        self.left: list[Answer] = []
        self._left_files: list[Path] = []
        self._read_all()

    def append(self, answer: Answer) -> None:
        """Write the answer.

        Raises:
            OSError: the disk has no room for it.
        """
        if self._file is None:
            self._file = _File(self._folder)
        self._file.append(_line(answer))

    @property
    def is_long(self) -> bool:
        """True if it is time to begin anew without the answers that the database has."""
        return self._file is not None and self._file.size > self._long

    def begin_anew(self, answers: Iterable[Answer]) -> Path | None:
        """Go on in a new file that begins with these answers; return the old file, which can then be removed.

        Raises:
            OSError: the disk did not take the new file; the old file stays in use.
        """
        before, new = self._file, _File(self._folder)
        try:
            new.append(b"".join(map(_line, answers)))
        except OSError:
            remove(new.path)
            new.close()
            self._long = 2 * before.size if before else LONG_BYTES
            raise
        self._file, self._long = new, max(LONG_BYTES, 2 * new.size)
        if before is None:
            return None
        before.close()
        return before.path

    def forget_left(self) -> None:
        """Remove the files of earlier processes, once the database has their answers."""
        for path in self._left_files:
            remove(path)
        self.left, self._left_files = [], []

    def close(self, *, all_written: bool) -> None:
        """End, and remove the file if the database has all its answers."""
        if self._file is None:
            return
        if all_written:
            remove(self._file.path)
        self._file.close()
        self._file = None

    def _read_all(self) -> None:
        deadline = time.monotonic() + ENDING_PATIENCE_S
        for path in sorted(self._folder.glob(PATTERN), key=_modified):
            try:
                with path.open("rb") as file:
                    while not (ended := _lock(file.fileno())) and time.monotonic() < deadline:
                        time.sleep(PAUSE_S)
                    lines = [line for line in file.read().rstrip(b"\0").split(b"\n") if line]
            except OSError as error:
                log.error("journal_not_read", file=str(path), reason=error.strerror)
                continue
            if ended:
                self._left_files.append(path)
            answers = [answer for line in lines if (answer := _answer(line))]
            self.left += answers
            if skipped := len(lines) - len(answers):
                log.warning("journal_lines_skipped", file=str(path), lines=skipped, answers=len(answers))


def _line(answer: Answer) -> bytes:
    """Begin with the newline, so that a line that was cut off does not spoil the next line."""
    return b"\n" + orjson.dumps(tuple(answer))


def _answer(line: bytes) -> Answer | None:
    try:
        answer = READ.validate_json(line)
    except ValidationError:
        return None
    return None if answer.height is None else answer


def _lock(fd: int) -> bool:
    """Lock the file for this process; return False if another living process holds the lock."""
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
    """Remove a file whose answers the database has."""
    if path:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # read once more by the next start, to no effect
            log.warning("journal_not_removed", file=str(path), reason=error.strerror)
