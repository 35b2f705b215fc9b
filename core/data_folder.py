"""The locks of a data folder: one process at a time keeps klines and trains in it, one monitor looks after it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import ConfigError, WorkerError
from core.files import DISK_REFUSES
from core.process.commands import is_ending, lock_holder, try_lock

ENDING_PATIENCE_S = 6.0  # an ending run, and the children of a killed run, end within five seconds
POLL_S = 0.1
LOCK = ".updater.lock"
MONITOR_LOCK = ".monitor.lock"


def refuse_file(data_dir: Path) -> None:
    """Raise ConfigError if the folder, or a folder above it, is a file."""
    there = next(path for path in (data_dir, *data_dir.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"DATA_DIR={there}: is a file; give a folder that can be made and written")


@contextmanager
def only_updater(data_dir: Path, patience_s: float = ENDING_PATIENCE_S, *, lock_name: str = LOCK) -> Iterator[None]:
    """Be the only updater on this folder. The kernel frees the lock whenever and however the process ends.

    Args:
        patience_s: how long to wait for a process that is about to end.
        lock_name: another file for a process of another kind.
    Raises:
        ConfigError: another such process works on the folder, or the folder cannot be made or written.
        WorkerError: the disk is full, read-only or broken.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(data_dir / lock_name, os.O_RDWR | os.O_CREAT, 0o644)
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
            unknown = pid in {None, os.getpid()}  # our own pid: a process of another container
            if not (unknown or is_ending(pid or 0)) or time.monotonic() > deadline:
                raise ConfigError(f"DATA_DIR={data_dir}: {holder} works on this folder; end it, or give another folder")
            time.sleep(POLL_S)
        yield
    finally:
        os.close(lock)
