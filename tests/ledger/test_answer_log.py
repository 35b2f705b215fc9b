"""What was answered stays answered: in memory, on disk, after a kill, and while the disk fails."""

import dataclasses
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.errors import ConfigError, WorkerError
from core.topic import Target, Topic, Volatility
from ledger.answer_log import READ_S, Ledger
from ledger.answers import Answer
from ledger.schema import CHECKED_AT_START_BYTES
from ledger.upgrade import bring_up_to_date
from tests.fakes.clock import START_MS, FakeClock, eventually
from tests.inference.hanging import hanging
from tests.inference.stand import ETH_10M, SOL_15M, topic
from tests.ledger.earlier import make_earlier

CLOCK = FakeClock()


def answer(height: int, value: str = "2650.25", market: str = "BINANCE", topic_id: int = 1) -> Answer:
    return Answer(
        topic_id=topic_id,
        height=height,
        network="allora-testnet-1",
        value=value,
        version="persistence",
        symbol="ETHUSDT",
        target=Target.PRICE,
        horizon_min=10,
        anchor=2650.25,
        anchor_asof_ms=START_MS - 400,
        asof_ms=START_MS - 10_000,
        answered_ms=START_MS,
        market=market,
    )


@contextmanager
def ledger(folder: Path, market: str = "BINANCE", recent: int = 128, asked: Topic = ETH_10M) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{folder / 'ledger.sqlite3'}", [asked], market, CLOCK, folder, recent=recent)
    try:
        yield opened
    finally:
        opened.close()


def stored(folder: Path) -> dict[int, str]:
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as connection:
        return dict(connection.execute("SELECT height, value FROM answers").fetchall())


def test_after_a_restart_the_newest_answer_is_known(tmp_path: Path) -> None:
    with ledger(tmp_path) as opened:
        assert opened.newest(ETH_10M) is None
        for height in (9, 7):
            opened.keep(answer(height)._replace(answered_ms=START_MS + 100 - height))
        opened.keep(answer(11, market="SIMULATED"))
    with ledger(tmp_path) as opened:
        newest = opened.newest(ETH_10M)
    assert newest is not None
    assert newest.height == 7, "the last one that was given, whatever its height"


def test_the_first_answer_stands_in_memory_and_after_a_restart(tmp_path: Path) -> None:
    with ledger(tmp_path) as opened:
        assert opened.recall(ETH_10M, 5) is None
        first = opened.keep(answer(5, "1"))
        assert opened.keep(answer(5, "2")) is first
        assert opened.recall(ETH_10M, 5) is first
    with ledger(tmp_path) as opened:
        assert opened.recall(ETH_10M, 5) == first
        assert opened.keep(answer(5, "3")) == first
    assert stored(tmp_path) == {5: "1"}


def test_an_answer_is_on_disk_at_once(tmp_path: Path) -> None:
    with ledger(tmp_path) as opened:
        opened.keep(answer(5))
        eventually(lambda: stored(tmp_path) == {5: "2650.25"}, what="the row")


def test_many_askers_of_one_question_get_one_answer(tmp_path: Path) -> None:
    standing: list[Answer] = []
    with ledger(tmp_path) as opened:

        def ask(number: int) -> None:
            standing.extend(opened.keep(answer(height, str(number))) for height in range(100))

        askers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    given = {height: {a.value for a in standing if a.height == height} for height in range(100)}
    assert all(len(values) == 1 for values in given.values())
    assert stored(tmp_path) == {height: values.pop() for height, values in given.items()}


def test_what_memory_has_let_go_is_fetched_from_the_database(tmp_path: Path) -> None:
    with ledger(tmp_path, recent=3) as opened:
        for height in range(10):
            opened.keep(answer(height, str(height)))
        eventually(lambda: len(stored(tmp_path)) == 10, what="all rows")
        eventually(lambda: opened.recall(ETH_10M, 2) is None, what="no more trace in memory")
        assert opened.may_be_elsewhere(ETH_10M, 2)
        assert not opened.may_be_elsewhere(ETH_10M, 9)
        assert not opened.may_be_elsewhere(ETH_10M, 10)
        opened.fetch(ETH_10M, 2)
        recalled = opened.recall(ETH_10M, 2)
        assert recalled
        assert recalled.value == "2"
    with ledger(tmp_path, recent=3) as opened:
        newest = [opened.recall(ETH_10M, height) for height in range(7, 10)]
        assert [kept and kept.value for kept in newest] == ["7", "8", "9"]
        assert opened.may_be_elsewhere(ETH_10M, 6)
        opened.fetch(ETH_10M, 6)
        assert opened.keep(answer(6, "anew")).value == "6"


def test_while_a_read_hangs_no_other_one_waits_behind_it(tmp_path: Path) -> None:
    with ledger(tmp_path, recent=3) as opened:
        for height in range(10):
            opened.keep(answer(height, str(height)))
        eventually(lambda: len(stored(tmp_path)) == 10, what="all rows")
        with hanging(tmp_path / "ledger.sqlite3"):
            waiting = [opened.look_up(ETH_10M, height) for height in (1, 2)]
            with pytest.raises(TimeoutError):
                waiting[0].result(READ_S + 0.1)
            for _ in range(100):
                with pytest.raises(WorkerError, match="height 3 was answered before is not known"):
                    opened.look_up(ETH_10M, 3)
            assert not waiting[0].cancel(), "it is under way"
            assert waiting[1].cancel(), "nobody waits for it any more"
        waiting[0].result(20)
        recalled = opened.recall(ETH_10M, 1)
        assert recalled
        assert recalled.value == "1"
        assert opened.recall(ETH_10M, 2) is None
        opened.look_up(ETH_10M, 3).result(20)
        assert opened.recall(ETH_10M, 3)


def test_many_answers_at_once_are_all_written_and_the_first_stands(tmp_path: Path) -> None:
    """More than go into one statement."""
    with ledger(tmp_path) as opened:
        for height in (*range(1000), *range(1000)):
            opened.keep(answer(height, str(height)))
    assert stored(tmp_path) == {height: str(height) for height in range(1000)}


def test_a_market_s_invented_answers_are_not_the_real_one_s(tmp_path: Path) -> None:
    with ledger(tmp_path, market="SIMULATED") as opened:
        opened.keep(answer(5, "1", market="SIMULATED"))
    with ledger(tmp_path) as opened:
        assert opened.recall(ETH_10M, 5) is None
        assert opened.keep(answer(5, "2")).value == "2"
    with ledger(tmp_path) as opened:
        recalled = opened.recall(ETH_10M, 5)
        assert recalled
        assert recalled.value == "2"


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(dataclasses.replace(ETH_10M, target=Target.LOG_RETURN), id="target"),
        pytest.param(dataclasses.replace(ETH_10M, horizon_min=20), id="horizon"),
        pytest.param(dataclasses.replace(ETH_10M, symbol="ETHUSDC"), id="symbol"),
        pytest.param(
            dataclasses.replace(ETH_10M, target=Target.VOLATILITY, volatility=Volatility.RMS), id="definition"
        ),
        pytest.param(dataclasses.replace(ETH_10M, network="allora-mainnet-1"), id="network"),
    ],
)
def test_a_topic_that_asks_for_something_else_by_now_is_answered_anew(tmp_path: Path, asked: Topic) -> None:
    with ledger(tmp_path) as opened:
        opened.keep(answer(5, "1"))
    with ledger(tmp_path, asked=asked) as opened:
        opened.fetch(asked, 5)
        assert opened.recall(asked, 5) is None
        anew = answer(5, "2")._replace(
            target=asked.asked,
            horizon_min=asked.horizon_min,
            symbol=asked.symbol,
            network=asked.network or "",
        )
        assert opened.keep(anew) is anew
    with ledger(tmp_path, asked=asked) as opened:
        assert opened.recall(asked, 5) == anew


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda whole: b"this is no database" * 100, id="another file"),
        pytest.param(lambda whole: whole[: len(whole) // 2 + 100], id="cut off"),
        pytest.param(lambda whole: whole[:4096] + b"\xff" * 8192 + whole[12288:], id="overwritten"),
    ],
)
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, spoil: object) -> None:
    with ledger(tmp_path) as opened:
        for height in range(200):
            opened.keep(answer(height))
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    with ledger(tmp_path) as opened:
        opened.keep(answer(5, "anew"))
    assert stored(tmp_path) == {5: "anew"}
    assert (tmp_path / f"ledger.sqlite3.damaged-{CLOCK.now_ms()}").exists()


def make_large(path: Path) -> None:
    """Make a file so large that its answers are not checked at the start."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE padding (x)")
        connection.execute("INSERT INTO padding VALUES (zeroblob(?))", [CHECKED_AT_START_BYTES])


def damage_page(path: Path, network: bytes) -> None:
    """Overwrite the last page of rows that are of this network alone."""
    others = {b"allora-testnet-1", b"other", b"big"} - {network}
    content = path.read_bytes()
    pages = [content[start : start + 4096] for start in range(0, len(content), 4096)]
    of_rows = [n for n, page in enumerate(pages) if min(page.count(network), page.count(b"persistence")) > 10]
    chosen = [number for number in of_rows if not any(other in pages[number] for other in others)][-1]
    with path.open("r+b") as file:
        file.seek(chosen * 4096)
        file.write(b"\xff" * 4096)


def test_damage_far_from_the_newest_answers_is_found_after_the_start(tmp_path: Path) -> None:
    """A large file is read in the background; what memory knows is in the new file too."""
    path = tmp_path / "ledger.sqlite3"
    make_earlier(path, 4, rows=2000)
    bring_up_to_date(f"sqlite:///{path}")
    make_large(path)
    damage_page(path, b"big")
    with ledger(tmp_path) as opened:
        first = opened.recall(ETH_10M, 5)
        assert first
        opened.keep(answer(6, "6"))
        eventually(lambda: len(list(tmp_path.glob("*.damaged-*"))) >= 1, what="the file set aside")
        opened.keep(answer(7, "7"))
        assert opened.recall(ETH_10M, 5) == first
        assert opened.keep(answer(6, "anew")).value == "6"
    with ledger(tmp_path):  # writes what the end came before, from the journal
        assert stored(tmp_path) == {5: first.value, 6: "6", 7: "7"}


def test_a_large_file_that_is_well_stays(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    with ledger(tmp_path) as opened:
        opened.keep(answer(5))
    make_large(path)
    with capture_logs() as logs, ledger(tmp_path) as opened:
        eventually(lambda: any(line["event"] == "ledger_checked" for line in logs), what="the check")
        opened.keep(answer(6))
    assert sorted(stored(tmp_path)) == [5, 6]


@pytest.mark.parametrize("newest", [False, True], ids=["old rows", "newest rows"])
def test_damage_to_the_newest_answers_of_a_large_file_is_found_at_the_start(tmp_path: Path, newest: bool) -> None:
    path = tmp_path / "ledger.sqlite3"
    with ledger(tmp_path) as opened:
        for height in range(400):
            opened.keep(answer(height)._replace(network="allora-testnet-1" if newest else "other"))
    make_large(path)
    damage_page(path, b"allora-testnet-1" if newest else b"other")
    with ledger(tmp_path, recent=1000) as opened:
        assert opened.recall(ETH_10M, 5) is None
        opened.keep(answer(5, "anew"))
        eventually(lambda: len(list(tmp_path.glob("*.damaged-*"))) >= 1, what="the file set aside")
    with ledger(tmp_path):  # writes what the end came before, from the journal
        assert stored(tmp_path) == {5: "anew"}


def test_a_damaged_file_is_set_aside_also_while_no_answer_is_known(tmp_path: Path) -> None:
    with ledger(tmp_path) as opened:
        for height in range(400):
            opened.keep(answer(height)._replace(network="other"))
    make_large(tmp_path / "ledger.sqlite3")
    damage_page(tmp_path / "ledger.sqlite3", b"other")
    with capture_logs() as logs, ledger(tmp_path):
        eventually(lambda: bool(list(tmp_path.glob("*.damaged-*"))), what="the file set aside")
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["ledger_damaged"]


def damage_all(path: Path) -> None:
    """Overwrite all pages but the first of a file in use."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


def test_a_file_that_is_damaged_meanwhile_is_set_aside_and_no_answer_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    with ledger(tmp_path) as opened:
        for height in range(100):
            opened.keep(answer(height, str(height)))
        eventually(lambda: not opened.unwritten, what="the rows")
        damage_all(path)
        for height in range(100, 200):
            opened.keep(answer(height, str(height)))
        eventually(lambda: not opened.unwritten, 30, "the rows in a new file")
    assert len(list(tmp_path.glob("*.damaged-*"))) >= 1
    found = stored(tmp_path)
    assert {height: found[height] for height in range(72, 200)} == {height: str(height) for height in range(72, 200)}


def test_an_end_before_the_new_file_has_what_memory_knows_loses_no_answer(tmp_path: Path) -> None:
    with ledger(tmp_path, recent=1000) as opened:
        for height in range(100):
            opened.keep(answer(height, str(height)))
    in_the_way = tmp_path / "ledger.sqlite3-journal"
    with ledger(tmp_path, recent=1000) as opened:
        damage_all(tmp_path / "ledger.sqlite3")
        in_the_way.mkdir()  # SQLite can make no new file
        for height in range(100, 200):
            opened.keep(answer(height, str(height)))
        eventually(lambda: opened.failures > 1, what="a new file that cannot be made")
    assert list(tmp_path.glob("*.damaged-*"))
    in_the_way.rmdir()
    with ledger(tmp_path, recent=1000) as opened:
        assert opened.keep(answer(50, "anew")).value == "50"
    assert stored(tmp_path) == {height: str(height) for height in range(200)}


def test_a_database_that_cannot_be_written_stops_no_answer_and_is_caught_up(tmp_path: Path) -> None:
    with ledger(tmp_path) as opened, closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as other:
        other.execute("BEGIN EXCLUSIVE")
        first = opened.keep(answer(5))
        assert opened.recall(ETH_10M, 5) is first
        eventually(lambda: opened.failures > 0, what="a failed write")
        other.rollback()
        eventually(lambda: stored(tmp_path) == {5: first.value}, what="the row")


def test_topics_do_not_share_answers(tmp_path: Path) -> None:
    with ledger(tmp_path) as opened:
        opened.keep(answer(5, "1"))
        assert opened.recall(SOL_15M, 5) is None
        assert opened.recall(topic(2, "ETH", 10), 5) is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param("ledger.sqlite3", "no database URL", id="a path"),
        pytest.param("mysql://localhost/a", "sqlite:/// or postgresql://", id="another database"),
        pytest.param("sqlite://", "name a file", id="memory"),
        pytest.param("sqlite:////no/such/folder/a.db", "unable to open", id="folder that is not there"),
        pytest.param("postgresql+pg8000://me:secret@127.0.0.1/a", "not installed", id="driver that is not installed"),
    ],
)
def test_a_database_that_cannot_be_used_stops_the_start_in_one_line(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Ledger(url, [ETH_10M], "BINANCE", CLOCK, tmp_path)
    text = str(caught.value)
    assert says in text
    assert text.startswith("DATABASE_URL")
    assert "\n" not in text
    assert "secret" not in text


def test_a_newer_release_s_ledger_is_left_alone(tmp_path: Path) -> None:
    with ledger(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
        connection.commit()
    with pytest.raises(ConfigError, match="schema 99"), ledger(tmp_path):
        pass


def test_an_older_release_s_ledger_is_to_be_upgraded_first(tmp_path: Path) -> None:
    database = tmp_path / "ledger.sqlite3"
    make_earlier(database, 4)
    before = database.read_bytes()
    with pytest.raises(ConfigError, match=r"has schema 4, this release writes 5; run `python -m ledger`"):
        Ledger(f"sqlite:///{database}", [ETH_10M], "BINANCE", CLOCK, tmp_path)
    assert database.read_bytes()[100:] == before[100:]  # but for the header, which says that there is a log now


def test_what_an_older_release_wrote_is_read_and_written_on(tmp_path: Path) -> None:
    make_earlier(tmp_path / "ledger.sqlite3", 1)
    bring_up_to_date(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    for _ in range(2):
        with ledger(tmp_path) as opened:
            then_ms = 1700006400000  # an interval of that release began with the answer
            old = answer(5)._replace(forecast="naive", answered_ms=then_ms, asked_ms=then_ms, base_ms=then_ms)
            assert opened.recall(ETH_10M, 5) == old
            opened.keep(answer(6)._replace(venue="kraken", truth_ratio=1.0005))
    with ledger(tmp_path) as opened:
        assert opened.recall(ETH_10M, 6) == answer(6)._replace(venue="kraken", truth_ratio=1.0005)


def test_what_schema_2_called_volatility_was_per_minute_and_no_answer_to_today_s_question(tmp_path: Path) -> None:
    make_earlier(tmp_path / "ledger.sqlite3", 2)
    bring_up_to_date(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    with ledger(tmp_path, asked=SOL_15M) as opened:
        opened.fetch(SOL_15M, 6)
        assert opened.recall(SOL_15M, 6) is None
        old = dataclasses.replace(SOL_15M, volatility=Volatility.STD)
        before = opened.recall(old, 6)
        assert before
        assert (before.value, before.target, before.forecast) == ("0.0004", "volatility std", "naive")
        opened.keep(before._replace(value="0.0015", target=SOL_15M.asked, forecast="naive"))
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as connection:
        rows = connection.execute(
            "SELECT height, value, target, forecast FROM answers WHERE topic_id = 82 ORDER BY height"
        ).fetchall()
    assert rows == [(6, "0.0015", "volatility std_horizon", "naive"), (7, "0.0004", "volatility rms", "")]


KILLED = """
import sys
from pathlib import Path
from core.clock import SystemClock
from core.topic import Target
from ledger.answers import Answer
from ledger.schema import CHECKED_AT_START_BYTES
from ledger.answer_log import Ledger
ledger = Ledger(f"sqlite:///{sys.argv[1]}/ledger.sqlite3", [], "BINANCE", SystemClock(), Path(sys.argv[1]))
for height in range(10**9):
    ledger.keep(Answer(topic_id=1, height=height, network="allora-testnet-1", value=str(height), version="v",
                       symbol="ETHUSDT", target=Target.PRICE, horizon_min=10, anchor=1.0, anchor_asof_ms=0,
                       asof_ms=0, answered_ms=0, market="BINANCE"))
    print(height, flush=True)
"""


def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        last = 0
        while last < 50:
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in process.stdout)])
    with ledger(tmp_path) as opened:
        recalled = opened.recall(ETH_10M, last)
        assert recalled
        assert recalled.value == str(last)
