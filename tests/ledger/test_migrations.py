"""A ledger of each earlier schema is brought up to date without losing a row, whatever happens on the way."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from core.errors import ConfigError
from ledger.answer_log import Ledger
from ledger.database import open_engine
from ledger.schema import SCHEMA_VERSION, metadata, version_of
from ledger.upgrade import bring_up_to_date
from tests.disk import Disk, disk
from tests.fakes.clock import eventually
from tests.inference.stand import ETH_10M
from tests.ledger.earlier import make_earlier, rows_of, upgraded
from tests.ledger.test_answer_log import CLOCK, answer, ledger

__all__ = ["disk"]
EARLIER = range(1, SCHEMA_VERSION)


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def version(path: Path) -> int | None:
    with closing_engine(path) as engine, engine.connect() as connection:
        return version_of(connection)


@contextmanager
def closing_engine(path: Path) -> Iterator[sa.Engine]:
    engine = open_engine(url_of(path))
    yield engine
    engine.dispose()


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """``python -m ledger`` on the ledger of a folder."""
    environment = {"DATA_DIR": str(folder), "PATH": ""}
    command = [sys.executable, "-m", "ledger"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("schema", EARLIER)
def test_every_row_of_an_earlier_schema_is_there_afterwards(tmp_path: Path, schema: int) -> None:
    path = tmp_path / "ledger.sqlite3"
    make_earlier(path, schema)
    before = rows_of(path)
    for _ in range(2):
        done = run(tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert rows_of(path) == upgraded(before, schema)
        assert version(path) == SCHEMA_VERSION
    with ledger(tmp_path) as opened:
        opened.keep(answer(7))
    assert len(rows_of(path)) == len(before) + 1


@pytest.mark.parametrize("schema", EARLIER)
def test_an_upgraded_database_is_as_a_new_one(tmp_path: Path, schema: int) -> None:
    upgraded_path, new_path = tmp_path / "upgraded", tmp_path / "new"
    make_earlier(upgraded_path, schema)
    for path in (upgraded_path, new_path):
        bring_up_to_date(url_of(path))
    with closing_engine(upgraded_path) as engine, engine.connect() as connection:
        context = MigrationContext.configure(connection)
        differences = compare_metadata(context, metadata)
    assert differences == []
    assert columns(upgraded_path) == columns(new_path)


def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """By table and index: the columns in their order, with types and defaults."""
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master").fetchall()
        return {
            name: connection.execute(f"PRAGMA table_info('{name}')").fetchall()
            + connection.execute(f"PRAGMA index_info('{name}')").fetchall()
            for (name,) in names
        }


@pytest.mark.parametrize("schema", [0, *EARLIER])
def test_the_release_before_can_go_back_and_the_upgrade_still_holds(tmp_path: Path, schema: int) -> None:
    """It compares the number in ledger_schema with its own, and writes the columns that it knows."""
    path = tmp_path / "ledger.sqlite3"
    if schema:
        make_earlier(path, schema)
    bring_up_to_date(url_of(path))
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("SELECT max(version) FROM ledger_schema").fetchall() == [(4,)]
        connection.execute("INSERT INTO answers SELECT * FROM answers WHERE true ON CONFLICT DO NOTHING")
    bring_up_to_date(url_of(path))
    assert version(path) == SCHEMA_VERSION


def test_an_empty_database_gets_tables_with_and_without_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    assert run(folder).returncode == 0
    assert version(folder / "ledger.sqlite3") == SCHEMA_VERSION
    with ledger(folder) as opened:
        opened.keep(answer(5))
    assert len(rows_of(folder / "ledger.sqlite3")) == 1


def test_alembic_is_not_loaded_for_a_database_that_is_up_to_date(tmp_path: Path) -> None:
    bring_up_to_date(url_of(tmp_path / "ledger.sqlite3"))
    code = f"""
import sys
import inference.__main__
from ledger.upgrade import bring_up_to_date
bring_up_to_date("{url_of(tmp_path / "ledger.sqlite3")}")
print([name for name in sys.modules if name.startswith(("alembic", "mako"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.parametrize("schema", [0, 1, 4])
def test_a_kill_after_any_statement_leaves_the_whole_old_or_the_whole_new_schema(tmp_path: Path, schema: int) -> None:
    """What a kill leaves are the files as they are at that moment."""
    path = tmp_path / "ledger.sqlite3"
    make_earlier(path, schema) if schema else path.touch()
    before = rows_of(path) if schema else []
    left: list[tuple[bytes, bytes]] = []  # the file and its write-ahead log, after each statement

    def note(*_: object) -> None:
        wal = path.with_name(f"{path.name}-wal")
        left.append((path.read_bytes(), wal.read_bytes() if wal.exists() else b""))

    sa.event.listen(sa.engine.Engine, "after_cursor_execute", note)
    try:
        bring_up_to_date(url_of(path))
    finally:
        sa.event.remove(sa.engine.Engine, "after_cursor_execute", note)
    assert len(left) > 30
    note()
    for number, files in enumerate(dict.fromkeys(left)):
        killed = tmp_path / str(number)
        for file, content in zip((killed, killed.with_name(f"{number}-wal")), files, strict=True):
            file.write_bytes(content)
        found = version(killed)
        assert found in {schema or None, SCHEMA_VERSION}
        if found == schema:
            assert rows_of(killed) == before
        bring_up_to_date(url_of(killed))
        assert version(killed) == SCHEMA_VERSION
        assert rows_of(killed) == upgraded(before, schema)
        assert columns(killed) == columns(path)


def test_a_kill_while_an_index_of_many_rows_is_made_leaves_the_old_schema(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    make_earlier(path, 4, rows=200_000)
    command = [sys.executable, "-m", "ledger"]
    with subprocess.Popen(command, env={"DATA_DIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert "ledger_upgrade_begun" in process.stdout.readline()
        process.kill()
    assert version(path) in {4, SCHEMA_VERSION}
    assert run(tmp_path).returncode == 0
    assert version(path) == SCHEMA_VERSION
    assert len(rows_of(path)) == 200_005


@pytest.mark.parametrize("name", ["0006", "0099", "1975ea83b712"])
def test_the_database_of_a_newer_release_or_another_program_is_left_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / "ledger.sqlite3"
    bring_up_to_date(url_of(path))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [name])
    before = path.read_bytes()
    done = run(tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"has schema {name.lstrip('0')}, this release reads 5" in done.stderr
    assert path.read_bytes() == before


def test_a_table_of_answers_without_a_schema_s_number_is_another_program_s(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE answers (x)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="of another program; choose another database"):
        bring_up_to_date(url_of(path))
    assert path.read_bytes()[100:] == before[100:], "but for the header, which names the journal's kind"


def test_a_locked_database_is_waited_for_and_then_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    make_earlier(path, 4)
    with closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConfigError, match="database is locked; another process works on it") as caught:
            bring_up_to_date(url_of(path), patience_s=0.2)
        assert "\n" not in str(caught.value)
        assert version(path) == 4
        threading.Timer(0.5, other.rollback).start()
        bring_up_to_date(url_of(path))
    assert version(path) == SCHEMA_VERSION


def test_two_upgrades_at_once_are_one(tmp_path: Path) -> None:
    make_earlier(tmp_path / "ledger.sqlite3", 1, rows=20_000)
    environment = {"DATA_DIR": str(tmp_path)}
    both = [subprocess.Popen([sys.executable, "-m", "ledger"], env=environment) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(rows_of(tmp_path / "ledger.sqlite3")) == 20_005


def test_readers_of_the_old_schema_go_on_during_an_upgrade_and_writers_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    make_earlier(path, 4)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN")
        before = other.execute("SELECT * FROM answers").fetchall()
        bring_up_to_date(url_of(path))
        assert other.execute("SELECT * FROM answers").fetchall() == before
        other.rollback()
        with other:
            other.execute("UPDATE answers SET block_ms = 1")


@pytest.mark.parametrize("how", ["noise", "a page"])
def test_a_damaged_file_does_not_stand_in_the_way_and_is_set_aside_by_inference(tmp_path: Path, how: str) -> None:
    path = tmp_path / "ledger.sqlite3"
    make_earlier(path, 3, rows=2000)
    content = bytearray(path.read_bytes())
    content[4096 if how == "a page" else 0 :: 3] = b"\xff" * len(content[4096 if how == "a page" else 0 :: 3])
    path.write_bytes(content)
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "inference sets the file aside" in done.stdout
    assert path.read_bytes() == content
    with ledger(tmp_path) as opened:
        opened.keep(answer(5))
    assert len(rows_of(path)) == 1
    assert version(path) == SCHEMA_VERSION
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1


def test_answers_outlive_damage_to_what_the_monitor_wrote(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    make_earlier(path, 4)
    bring_up_to_date(url_of(path))
    with closing(sqlite3.connect(path)) as connection:
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'scores'").fetchall()
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with ledger(tmp_path) as opened:
        assert opened.recall(ETH_10M, 5)
        opened.keep(answer(6))
    assert len(rows_of(path)) == 6


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_refuses_stops_nothing(tmp_path: Path, disk: Disk, how: str) -> None:
    bring_up_to_date(url_of(disk.folder / "ledger.sqlite3"))
    disk.refuse(how)
    done = run(disk.folder)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_on_a_disk_that_refuses_answers_go_on_and_are_written_after_the_upgrade(disk: Disk, how: str) -> None:
    path = disk.folder / "ledger.sqlite3"
    make_earlier(path, 4)
    disk.refuse(how)
    done = run(disk.folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"make room in {disk.folder}, or mount it writable; then run `python -m ledger` again" in done.stdout
    opened = Ledger(url_of(path), [ETH_10M], "BINANCE", CLOCK, disk.folder)
    try:
        assert opened.recall(ETH_10M, 5)  # given before
        opened.keep(answer(6))
        disk.give_way()
        assert run(disk.folder).returncode == 0
        eventually(lambda: not opened.unwritten, 30, "the answer on the disk")
    finally:
        opened.close()
    assert version(path) == SCHEMA_VERSION
    assert len(rows_of(path)) == 6


def test_a_disk_that_is_too_small_for_the_upgrade_keeps_the_old_schema(disk: Disk) -> None:
    path = disk.folder / "ledger.sqlite3"
    make_earlier(path, 1, rows=8_000)
    free = shutil.disk_usage(disk.folder).free
    assert free > 1 << 18
    before = rows_of(path)
    done = run(disk.folder)
    assert done.returncode == 2
    assert "is full; make room: an upgrade needs about as much as the file has" in done.stderr
    assert rows_of(path) == before
