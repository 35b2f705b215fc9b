"""A disk that gets full, small or read-only: a real one, of two megabytes or more, in memory."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MOUNT, UMOUNT = (shutil.which(name) or name for name in ("mount", "umount"))


class Disk:
    """A file system of its own."""

    def __init__(self, folder: Path, megabytes: int = 2) -> None:
        self.folder = folder
        folder.mkdir()
        if (
            os.geteuid()
            or subprocess.run(
                [MOUNT, "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=False
            ).returncode
        ):
            pytest.skip("needs to mount a file system, which is root's to do")

    def refuse(self, how: str) -> None:
        if how == "read-only":
            self._remount("ro")
            return
        fill = os.open(self.folder / "fill", os.O_CREAT | os.O_WRONLY)
        try:
            while os.write(fill, bytes(512)):
                pass
        except OSError:
            os.close(fill)

    def resize(self, megabytes: int) -> None:
        """Make it larger or smaller than it is, by what is free."""
        self._remount(f"size={megabytes}m")

    def give_way(self) -> None:
        self._remount("rw")
        (self.folder / "fill").unlink(missing_ok=True)

    def _remount(self, how: str) -> None:
        subprocess.run([MOUNT, "-o", f"remount,{how}", str(self.folder)], check=True)


@contextmanager
def mounted(folder: Path, megabytes: int = 2) -> Iterator[Disk]:
    """A disk while the block runs."""
    disk = Disk(folder, megabytes)
    try:
        yield disk
    finally:
        subprocess.run([UMOUNT, "--lazy", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk") as disk:
        yield disk
