"""The journal: what a kill leaves of answers that the database had not taken, and what of it is believed."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from ledger.answer_log import Ledger
from ledger.answers import Answer
from ledger.journal import PATTERN, Journal
from ledger.schema import answers
from tests.fakes.clock import eventually
from tests.inference.stand import ETH_10M
from tests.ledger.test_answer_log import CLOCK, answer, ledger, stored


def left_by_a_kill(folder: Path, *heights: int, value: str = "1") -> Path:
    """The file of a process that answered these heights and wrote none into the database."""
    before = set(folder.glob(PATTERN))
    journal = Journal(folder)
    for height in heights:
        journal.append(answer(height, value))
    journal.close(all_written=False)
    (path,) = set(folder.glob(PATTERN)) - before
    return path


def values(opened: Ledger, *heights: int) -> list[str | None]:
    known = (opened.recall(ETH_10M, height) for height in heights)
    return [found.value if found else None for found in known]


def test_the_next_start_answers_the_same_and_writes_it_down(tmp_path: Path) -> None:
    left_by_a_kill(tmp_path, 5, 6)
    left_by_a_kill(tmp_path, 7)
    with ledger(tmp_path) as opened:
        assert values(opened, 5, 6, 7) == ["1"] * 3
        assert opened.keep(answer(5, "2")).value == "1"
        assert stored(tmp_path) == {5: "1", 6: "1", 7: "1"}
        assert not list(tmp_path.glob(PATTERN)), "the database has it"


def test_the_first_answer_wins_whether_the_database_has_it_or_a_journal(tmp_path: Path) -> None:
    with ledger(tmp_path) as opened:
        opened.keep(answer(5, "first"))
    left_by_a_kill(tmp_path, 5, 6, value="second")
    left_by_a_kill(tmp_path, 6, value="third")
    with ledger(tmp_path) as opened:
        assert values(opened, 5, 6) == ["first", "second"]
    assert stored(tmp_path) == {5: "first", 6: "second"}


@pytest.mark.parametrize(
    ("spoil", "known"),
    [
        pytest.param(lambda whole: whole[:-9], ["1", None], id="a kill in the midst of a write"),
        pytest.param(lambda whole: whole[:40] + whole[whole.rindex(b"\n") :], [None, "1"], id="a disk that was full"),
        pytest.param(lambda whole: b"\0" * 99 + b'\n{"height": 5}\n[]\nno' + whole, ["1", "1"], id="foreign lines"),
    ],
)
def test_lines_that_are_no_answers_are_passed_over_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[bytes], bytes], known: list[str | None]
) -> None:
    path = left_by_a_kill(tmp_path, 5, 6)
    path.write_bytes(spoil(path.read_bytes()))
    with ledger(tmp_path) as opened:
        assert values(opened, 5, 6) == known
    said = capsys.readouterr().out
    assert "journal_lines_skipped" in said
    assert path.name in said


def test_an_answer_is_in_a_file_before_the_database_has_it_and_in_none_after(tmp_path: Path) -> None:
    with ledger(tmp_path) as opened, closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as other:
        other.execute("BEGIN EXCLUSIVE")
        opened.keep(answer(5))
        opened.keep(answer(5, "again"))
        (path,) = tmp_path.glob(PATTERN)
        assert path.read_bytes().count(b'"allora-testnet-1",1,5,') == 1
        other.rollback()
    assert stored(tmp_path) == {5: "2650.25"}
    assert not path.exists()


def test_a_line_that_names_its_values_is_read_as_well(tmp_path: Path) -> None:
    path = left_by_a_kill(tmp_path, 5)
    path.write_bytes(b"\n" + orjson.dumps(answer(6)._asdict()))
    with ledger(tmp_path) as opened:
        assert opened.recall(ETH_10M, 6) == answer(6)


def test_an_answer_is_a_row_of_the_ledger_as_it_is() -> None:
    assert Answer._fields == tuple(column.name for column in answers.c)


def test_a_question_without_a_height_is_not_kept(tmp_path: Path) -> None:
    with ledger(tmp_path) as opened:
        opened.keep(answer(None))  # type: ignore[arg-type]
        assert not list(tmp_path.glob(PATTERN))


def test_the_file_of_a_process_that_lives_on_is_read_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.journal.ENDING_PATIENCE_S", 0.1)
    living = Journal(tmp_path)
    living.append(answer(5, "1"))
    with ledger(tmp_path) as opened:
        assert values(opened, 5) == ["1"]
        living.append(answer(6, "2"))
    living.close(all_written=False)
    with ledger(tmp_path) as opened:
        assert values(opened, 5, 6) == ["1", "2"]


def test_what_a_forerunner_answers_while_it_ends_is_waited_for(tmp_path: Path) -> None:
    ending = Journal(tmp_path)
    ending.append(answer(5, "1"))

    def end() -> None:
        ending.append(answer(6, "2"))
        ending.close(all_written=False)

    timer = threading.Timer(0.3, end)
    timer.start()
    with ledger(tmp_path) as opened:
        assert values(opened, 5, 6) == ["1", "2"]
    timer.join()


def test_it_stays_short_and_never_lacks_what_the_database_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.journal.LONG_BYTES", 10_000)
    with ledger(tmp_path) as opened:
        for height in range(200):
            opened.keep(answer(height))
            if height % 20 == 19:
                eventually(lambda: not opened.unwritten, what="the database's end of it")
        written = (path.read_bytes().rstrip(b"\0") for path in tmp_path.glob(PATTERN))
        assert sum(map(len, written)) < 30_000, "of 60,000 written"
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as other:
            other.execute("BEGIN EXCLUSIVE")
            for height in range(300, 400):
                opened.keep(answer(height))
            eventually(lambda: opened.failures > 0, what="a failed write")
            kept = b"".join(path.read_bytes() for path in tmp_path.glob(PATTERN))
            assert all(b'"allora-testnet-1",1,%d,' % height in kept for height in range(300, 400))
            other.rollback()
    assert len(stored(tmp_path)) == 300
    assert not list(tmp_path.glob(PATTERN))


def test_it_lies_in_the_data_folder_wherever_the_database_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    left_by_a_kill(data, 5)
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}", [ETH_10M], "BINANCE", CLOCK, data)
    try:
        assert values(opened, 5) == ["1"]
    finally:
        opened.close()
    assert stored(tmp_path) == {5: "1"}
