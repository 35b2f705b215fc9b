"""One process at a time keeps klines and trains in a data folder: a lock file in it says which."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import ConfigError, WorkerError
from core.files import DISK_REFUSES
from core.process.commands import is_ending, lock_holder, try_lock

ENDING_PATIENCE_S = 6.0  # a run that is told to end, and the children of a killed one, end within five seconds
POLL_S = 0.1
LOCK = ".updater.lock"


def refuse_file(data_dir: Path) -> None:
    """Raises ConfigError where the folder, or one that it is to be in, is a file."""
    there = next(path for path in (data_dir, *data_dir.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"DATA_DIR={there}: is a file; give a folder that can be made and written")


@contextmanager
def only_updater(data_dir: Path, patience_s: float = ENDING_PATIENCE_S) -> Iterator[None]:
    """Be the only updater on this folder; the kernel lets go of the lock when the process dies, however it does.

    Args:
        patience_s: how long a process that is about to end is waited for.
    Raises:
        ConfigError: another one works on it, or the folder cannot be made or written.
        WorkerError: the disk is full, read-only or broken.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno in DISK_REFUSES:
            raise WorkerError(f"DATA_DIR={data_dir}: {error.strerror}; make room, or mount it writable") from error
        refuse_file(data_dir)
        raise ConfigError(
            f"DATA_DIR={data_dir}: {error.strerror}; give a folder that can be made and written"
        ) from error
    try:
        deadline = time.monotonic() + patience_s
        while not try_lock(lock):
            pid, holder = lock_holder(lock)
            unknown = pid in {None, os.getpid()}  # our own number: that of another container's process
            if not (unknown or is_ending(pid or 0)) or time.monotonic() > deadline:
                raise ConfigError(f"DATA_DIR={data_dir}: {holder} works on this folder; end it, or give another folder")
            time.sleep(POLL_S)
        yield
    finally:
        os.close(lock)
