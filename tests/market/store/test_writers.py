"""A full disk, several processes, kills at any moment, and no damage that goes unnoticed."""

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from core.clock import MINUTE_MS
from core.errors import ConfigError, WorkerError
from market.store.inspection import gaps, tail_fault
from market.store.kline_store import KlineStore
from market.store.month_file import Damaged, unpacked
from market.store.warm_start import read_tail
from tests.disk import disk
from tests.fakes.klines import assert_exact, random_walk_klines, same
from tests.market.store.month_end import CORRECTED, REPOSITORY, WALK, at, everything, rows

__all__ = ["disk"]

# -- a full disk ------------------------------------------------------------------------------------------------------


class Limited:
    """A disk that refuses files of more than so many bytes, where no disk can be mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder, (_, self.most) = folder, resource.getrlimit(resource.RLIMIT_FSIZE)

    def refuse(self, _: str, size: int = 1000) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, self.most))

    def give_way(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, self.most))


@pytest.fixture
def limited(tmp_path: Path) -> Limited:
    return Limited(tmp_path)


@pytest.mark.parametrize(("kind", "says"), [("limited", "File too large"), ("disk", "No space left on device")])
def test_a_disk_that_is_full_costs_nothing_that_was_stored(
    request: pytest.FixtureRequest, kind: str, says: str
) -> None:
    small = request.getfixturevalue(kind)
    store = KlineStore(small.folder / "klines", journal_rows=40, small_bytes=0)
    store.append("ETHUSDT", rows(0, 1600))
    absent = [(at(row), at(row + 1)) for row in range(2000, 2900, 2)]
    for last in (1610, 1700):  # to the journal; to the month
        small.refuse("full")
        try:
            with pytest.raises(WorkerError, match=f"^{store.root}/.*: {says}; check the space"):
                store.append("ETHUSDT", rows(1600, last))
            with pytest.raises(WorkerError, match=says):
                store.remember_absent("ETHUSDT", MINUTE_MS, absent, now_ms=0)
            for reader in (store, KlineStore(store.root)):
                assert_exact(everything(reader), rows(0, 1600))
                assert reader.latest("ETHUSDT", MINUTE_MS) == at(1599)
            assert not list(store.root.rglob(".tmp-*"))
        finally:
            small.give_way()
    assert store.append("ETHUSDT", rows(1600, 1700)) == 100
    assert_exact(everything(store), rows(0, 1700))
    assert tail_fault(store, "ETHUSDT", MINUTE_MS) == ""


def corrected(store: KlineStore) -> None:
    store.append("ETHUSDT", CORRECTED.between(at(1550), at(1551)))


def removed(store: KlineStore) -> None:
    store.remove("ETHUSDT", MINUTE_MS, (at(1550), at(1551)))


@pytest.mark.parametrize("change", [corrected, removed])
def test_a_tail_that_cannot_be_written_tells_nothing_else_than_the_months(
    limited: Limited, change: Callable[[KlineStore], None]
) -> None:
    store = KlineStore(limited.folder, journal_rows=40, small_bytes=0)
    store.append("ETHUSDT", rows(0, 1600))
    before = everything(store)
    limited.refuse("the tail", size=20_000)  # which is larger than a journal, and than the hundred rows of December
    try:
        with pytest.raises(WorkerError, match="File too large"):
            change(store)
    finally:
        limited.give_way()
    assert not same(everything(store), before)
    assert tail_fault(store, "ETHUSDT", MINUTE_MS) == ""
    store.append("ETHUSDT", rows(1600, 1601))
    assert same(read_tail(store.root, "ETHUSDT", MINUTE_MS), everything(store))


# -- several processes ------------------------------------------------------------------------------------------------

WRITER = """
import json
import sys
from pathlib import Path
from core.clock import MINUTE_MS
from market.store.kline_store import KlineStore
from tests.disk import disk
from tests.fakes.klines import assert_exact, random_walk_klines
store, start_ms = KlineStore(Path(sys.argv[1]), **json.loads(sys.argv[4])), int(sys.argv[3])
walk = random_walk_klines(3000, start_ms=start_ms)
with store.writing():
    latest = store.latest("ETHUSDT", MINUTE_MS)
    row = 0 if latest is None else (latest - start_ms) // MINUTE_MS + 1
    print(row, flush=True)
    while sys.argv[2] == "append":
        row = row + 37 if row < 3000 else 1300  # goes round: the last part is written over and over
        store.append("ETHUSDT", walk.between(start_ms + (row - 60) * MINUTE_MS, start_ms + row * MINUTE_MS))
        print(row, flush=True)
    sys.stdin.read()
"""


def writer(root: Path, what: str, **limits: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), what, str(at(0)), json.dumps(limits)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_there_is_one_writer_and_its_lock_ends_with_it(store: KlineStore) -> None:
    process = writer(store.root, "wait")
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ConfigError, match="another process is writing"):
            store.append("ETHUSDT", WALK)
        assert len(everything(store)) == 0
    finally:
        finish(process)
    with store.writing(), store.writing():
        assert store.append("ETHUSDT", WALK) == 3000


def test_what_killed_writers_left_is_swept(store: KlineStore) -> None:
    store.append("ETHUSDT", rows(0, 10))
    leftover = store.root / "ETHUSDT-1m" / ".tmp-2023-11.parquet-abc"
    leftover.write_bytes(b"half")
    with store.writing():
        assert not leftover.exists()


@pytest.mark.parametrize("limits", [{}, {"journal_rows": 100, "small_bytes": 0}], ids=["months", "journals"])
def test_kills_at_any_moment_lose_nothing_that_was_stored(store: KlineStore, limits: dict[str, int]) -> None:
    chance = random.Random(5)
    stored = 0
    for _ in range(8):
        process = writer(store.root, "append", **limits)
        try:
            assert process.stdout is not None
            for _ in range(chance.randint(1, 12)):
                stored = max(stored, min(int(process.stdout.readline()), 3000))
                seen = everything(store)  # while it is being written
                assert_exact(seen, rows(0, len(seen)))
                assert len(seen) >= stored
            time.sleep(chance.uniform(0, 0.05))  # so that the kill falls anywhere in the next appends
        finally:
            finish(process)
        seen = everything(store)
        assert len(seen) >= stored
        assert_exact(seen, rows(0, len(seen)))
        assert store.repair("ETHUSDT", MINUTE_MS) == []
        assert not list(store.root.rglob(".tmp-*"))
    assert store.append("ETHUSDT", WALK) == 3000 - len(seen)
    assert_exact(everything(store), WALK)


def test_a_file_that_cannot_be_read_is_named(store: KlineStore) -> None:
    store.append("ETHUSDT", random_walk_klines(10))
    path = store.root / "ETHUSDT-1m" / "absent.json"
    path.mkdir()
    with pytest.raises(WorkerError, match=r"absent\.json: Is a directory; check the space, owner and mode"):
        gaps(store, "ETHUSDT", MINUTE_MS)


def test_no_damage_to_a_month_goes_unnoticed(store: KlineStore) -> None:
    """Wherever a byte is another one: the file is refused, or what is read is what was written."""
    store.append("ETHUSDT", WALK)
    path = sorted(store.root.rglob("2*.parquet"))[0]
    content, written = path.read_bytes(), unpacked(path, MINUTE_MS)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        at = int(rng.integers(len(content)))
        damaged[at : at + int(rng.integers(1, 64))] = rng.bytes(1) if rng.random() < 0.8 else b""
        if rng.random() < 0.1:
            del damaged[at:]
        path.write_bytes(damaged)
        try:
            found = unpacked(path, MINUTE_MS)
        except Damaged:
            refused += 1
        else:
            assert_exact(found, written)
    assert refused > 300


def test_a_month_of_before_there_were_checksums_is_read(store: KlineStore) -> None:
    store.append("ETHUSDT", WALK)
    path = sorted(store.root.rglob("2*.parquet"))[0]
    written = unpacked(path, MINUTE_MS)
    pl.read_parquet(path).write_parquet(path)
    assert_exact(unpacked(path, MINUTE_MS), written)
