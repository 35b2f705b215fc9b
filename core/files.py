"""Replace files so that a kill leaves either the whole old file or the whole new file."""

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

DISK_REFUSES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
)  # may pass; other errors are a wrong setting


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def disk_refusal(folder: Path, size: int) -> str:
    """Return why the disk takes no new file of ``size`` bytes; empty if it does, or if the folder is wrong."""
    try:
        with tempfile.TemporaryFile(dir=existing(folder)) as probe:
            probe.write(bytes(size))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return os.strerror(error.errno) if error.errno in DISK_REFUSES else ""
    return ""


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write ``content`` beside ``path`` and swap it in with one rename, synced to disk before and after.

    A reader sees the whole old file or the whole new one. A kill leaves at most a ``.tmp-*`` file
    beside it, which ``sweep_leftovers`` removes.
    """
    fd, name = tempfile.mkstemp(prefix=f".tmp-{path.name}-", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_json(path: Path, value: Any) -> None:
    """``replace_file`` with ``value`` as indented JSON."""
    replace_file(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sweep_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed writers left below ``folder``; call it only while nothing writes there."""
    for leftover in folder.rglob(".tmp-*"):
        if leftover.is_file():
            leftover.unlink(missing_ok=True)
