"""The ledger in PostgreSQL does all that it does in SQLite, and outlasts a server that dies and comes back."""

import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import requests
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from typer.testing import CliRunner

from cli.main import app
from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from core.topic import Target
from exchange.server import SimulatedExchange
from ledger.answer_log import READ_S, Ledger
from ledger.database import FAULTS, open_engine
from ledger.epochs import Adoption, Detail, Epoch, EpochBook, Inferer, Stage
from ledger.retention import STEP_ROWS
from ledger.schema import SCHEMA_VERSION, metadata, version_of
from ledger.scores import ScoreBook
from ledger.upgrade import bring_up_to_date
from model.registry.versions import Registry
from monitor.alarm_book import AlarmBook
from monitor.alarm_rows import Alarm, AlarmRows
from tests.fakes.clock import START_MS, FakeClock, eventually
from tests.fakes.klines import only, random_walk_klines
from tests.inference.stand import ETH_10M
from tests.inference.test_main import exchange, running
from tests.ledger.earlier import tables_of, upgraded, written_by
from tests.ledger.test_answer_log import CLOCK, answer
from tests.monitor.stand import NETWORK, Stand, answers_to, topic_of
from tests.monitor.test_main import monitoring, surroundings
from tests.postgresql import Server, serving
from tests.updater.test_judging import BTC, ETH, network, serve
from tests.updater.test_live import Folder
from tests.updater.test_live import scores as losses

__all__ = ["exchange"]
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
WALK = random_walk_klines(6 * 1440, start_ms=START_MS - 3 * DAY_MS)
PRICE, RETURN, VOLATILE = TOPICS = (
    topic_of(1, Target.PRICE, 10),
    topic_of(64, Target.LOG_RETURN, 60, "zptae", "BTCUSDT"),
    topic_of(79, Target.VOLATILITY, 15, symbol="BTCUSDT"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running_server:
        yield running_server


@pytest.fixture
def url(server: Server) -> str:
    """Of a ledger of this release."""
    made = server.new()
    bring_up_to_date(made)
    return made


@contextmanager
def ledger(url: str, folder: Path, recent: int = 128) -> Iterator[Ledger]:
    opened = Ledger(url, [ETH_10M], "BINANCE", CLOCK, folder, recent=recent)
    try:
        yield opened
    finally:
        opened.close(10)


def rows(url: str, query: str = "SELECT height, value FROM answers ORDER BY height") -> list[tuple[object, ...]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def test_the_first_answer_stands_also_after_a_restart_and_beyond_memory(url: str, tmp_path: Path) -> None:
    with ledger(url, tmp_path, recent=3) as opened:
        for height in (*range(1000), *range(1000)):
            opened.keep(answer(height, str(height)))
    assert rows(url) == [(height, str(height)) for height in range(1000)]
    with ledger(url, tmp_path, recent=3) as opened:
        assert opened.recall(ETH_10M, 5) is None
        opened.look_up(ETH_10M, 5).result(READ_S)
        assert opened.keep(answer(5, "another")).value == "5"
        assert opened.recall(ETH_10M, 999) == answer(999, "999")
        other_question = answer(999, "2")._replace(horizon_min=20)
        assert opened.keep(other_question) is other_question
        eventually(lambda: not opened.unwritten, what="the row")
        opened.note_block_times(lambda _, height: START_MS + height, START_MS)
    assert rows(url, "SELECT value, block_ms FROM answers WHERE height >= 998 ORDER BY height") == [
        ("998", START_MS + 998),
        ("2", START_MS + 999),
    ]
    assert not list(tmp_path.glob("*.journal"))


def earlier(server: Server, schema: int) -> str:
    """Make a database of an earlier schema and return its URL."""
    url = server.new()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(tables_of(schema))
        connection.exec_driver_sql("INSERT INTO ledger_schema VALUES (%s)", (schema,))
        written = written_by(schema)
        marks = ", ".join(["%s"] * len(written[0]))
        for row in written:
            connection.exec_driver_sql(f"INSERT INTO answers VALUES ({marks})", row)  # noqa: S608 -- marks alone
    return url


SCORED = "SELECT 1 FROM scores WHERE reason = ''"
ANSWERS = "SELECT * FROM answers ORDER BY network, topic_id, height"


@pytest.mark.parametrize("schema", range(1, SCHEMA_VERSION))
def test_an_earlier_schema_is_upgraded_without_losing_a_row(server: Server, tmp_path: Path, schema: int) -> None:
    url = earlier(server, schema)
    before = rows(url, ANSWERS)
    with pytest.raises(ConfigError, match=f"has schema {schema}, this release writes 5; run `python -m ledger`"):
        Ledger(url, [ETH_10M], "BINANCE", CLOCK, tmp_path)
    command, environment = [sys.executable, "-m", "ledger"], {"DATA_DIR": str(tmp_path), "DATABASE_URL": url}
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0], "of two at once one waits for the other"
    assert rows(url, ANSWERS) == upgraded(before, schema)
    engine = open_engine(url)
    with engine.connect() as connection:
        assert version_of(connection) == SCHEMA_VERSION
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    assert rows(url, "SELECT max(version) FROM ledger_schema") == [(4,)]
    with ledger(url, tmp_path) as opened:
        opened.keep(answer(7))
    assert len(rows(url)) == len(before) + 1


def test_an_upgrade_that_fails_on_the_way_leaves_the_old_schema(server: Server) -> None:
    url = earlier(server, 1)
    before = rows(url, ANSWERS)
    rows_in_the_way = sa.create_engine(url, poolclass=sa.NullPool)
    with rows_in_the_way.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE scores (of_another_program INTEGER)")
    with pytest.raises(ConfigError, match='relation "scores" already exists') as caught:
        bring_up_to_date(url)
    assert "\n" not in str(caught.value)
    assert rows(url, ANSWERS) == before
    assert rows(url, "SELECT max(version) FROM ledger_schema") == [(1,)]


@pytest.fixture
def stand(url: str, tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path, TOPICS, url)
    yield made
    made.close()


def fill(stand: Stand, epochs: int = 12) -> int:
    """Store candles and answer every topic; returns how many answers there are."""
    for symbol in ("ETHUSDT", "BTCUSDT"):
        stand.store(symbol, WALK)
    for topic in TOPICS:
        bases = range(START_MS, START_MS + epochs * 5 * MINUTE_MS, 5 * MINUTE_MS)
        stand.answer(answers_to(topic, WALK, bases, seed=topic.topic_id))
    return epochs * len(TOPICS)


def test_scores_equal_those_in_sqlite_to_the_last_digit(stand: Stand, tmp_path: Path) -> None:
    now_ms = START_MS + DAY_MS
    (tmp_path / "other").mkdir()
    sqlite = Stand(tmp_path / "other", TOPICS)
    for one in (stand, sqlite):
        assert one.score_all(now_ms) == 0
        assert fill(one) == one.score_all(now_ms)
    keys = [topic.key for topic in TOPICS]
    several = [list(one.book.stream(keys, rows_together=5)) for one in (stand, sqlite)]
    assert several[0] == several[1]
    for topic in TOPICS:
        for read in (ScoreBook.recent, ScoreBook.columns):
            columns = [read(one.book, topic, 0) for one in (stand, sqlite)]
            assert len(columns[0]) == 12
            for name in columns[0].__dataclass_fields__:
                np.testing.assert_array_equal(*(getattr(some, name) for some in columns))
        here, there = (one.book.record(topic, "BINANCE", 0) for one in (stand, sqlite))
        np.testing.assert_array_equal(here.truth, there.truth)
        assert stand.skills.skill(topic.key, 30) == sqlite.skills.skill(topic.key, 30)
        assert stand.book.answers_of(topic, 3, before_height=2**62) == sqlite.book.answers_of(topic, 3)
    sqlite.close()


def test_scores_are_made_again_from_repaired_candles(stand: Stand) -> None:
    fill(stand)
    assert stand.score_all(START_MS + DAY_MS) == 36
    assert len(stand.book.series()) == 2
    for path in (stand.folder / "klines").rglob("ETHUSDT-1m"):
        for file in path.iterdir():
            file.unlink()
    stand.store("ETHUSDT", only(WALK, WALK.open_time_ms != START_MS + 14 * MINUTE_MS))
    stand.scorer = stand.restarted()
    stand.score_all(START_MS + DAY_MS + HOUR_MS)
    assert stand.book.unscorable(PRICE, 0) == 2, "of one the candle is the last, of one the first"
    assert len(stand.book.recent(PRICE, 0)) == 10


def test_alarms_outlast_a_restart_and_hostile_text(url: str) -> None:
    clock = FakeClock()
    alarm = Alarm(name="topic", subject="a/1", what="a'; DROP TABLE alarms; --\x00\u2028", since_ms=1, remedy="mend")
    for found in ([alarm], [alarm], [], []):
        book = AlarmBook(url, [], clock)
        book.step(found, lambda _, __: True, clock.now_ms())
        clock.time_ms += 31_000
        book.step(found, lambda _, __: True, clock.now_ms())
        assert (book.database_fault, len(book.standing)) == ("", len(found))
        book.stop()
    several = AlarmRows(url)
    (kept,) = several.read(clock.now_ms())
    several.close()
    assert kept.what == "a'; DROP TABLE alarms; --\u2028"
    assert kept.ended_ms == START_MS + 2 * 31_000


def test_epochs_sightings_balances_and_adoptions(url: str, tmp_path: Path) -> None:
    with ledger(url, tmp_path) as opened:
        opened.keep(answer(5))
    book, detail = EpochBook(url), Detail((Inferer("allo1", "2.5"),), {"allo2": {"allo1": "-3"}})
    several = [Epoch(NETWORK, 1, nonce, None, nonce, Stage.OPEN.value) for nonce in range(4, 8)]
    book.write(several)
    settled = several[1]._replace(stage=Stage.SETTLED.value, active=True, detail=detail.packed(), combined="1" * 60)
    for _ in range(2):
        book.write([settled])
    (newest, _), (_, none), (read, own), _ = book.epochs_of(ETH_10M, 10)
    assert (newest, read, none) == (several[3], settled, None)
    assert own == answer(5) == book.answer(NETWORK, 1, 5)
    assert read.inside == detail
    assert book.unsettled(NETWORK) == [several[0], *several[2:]]
    for body in ({"a": 1}, {"a": None, "b": "2"}):
        book.note(NETWORK, 1, 7, body)
    assert book.sightings(NETWORK)[1].body == {"a": None, "b": "2"}
    for read_ms in (9, 3, 9):
        book.note_balance(NETWORK, "allo1", read_ms, str(10**30 + read_ms))
    assert book.balances(NETWORK, "allo1", 4) == [(9, str(10**30 + 9))]
    adoption = Adoption("BASE_RULE", "block", "why", 1)
    assert [book.adopt(adoption), book.adopt(adoption._replace(value="ask"))] == [True, False]
    assert book.adoptions() == {"BASE_RULE": adoption}
    assert book.trim(before_ms=5, detail_before_ms=6, most_rows=10) == 2
    assert [epoch.detail for epoch, _ in book.epochs_of(ETH_10M, 10)] == [None] * 3
    assert book.balances(NETWORK, "allo1") == [(9, str(10**30 + 9))]
    book.close()


def test_old_answers_are_trimmed_while_answers_are_given_and_scored(stand: Stand, tmp_path: Path) -> None:
    fill(stand)
    old = [answer(n, topic_id=7)._replace(answered_ms=START_MS - 400 * DAY_MS + n) for n in range(3 * STEP_ROWS)]
    stand.answer(old)
    ending, failures = threading.Event(), list[BaseException]()

    def maintain() -> None:
        try:
            while not ending.is_set():
                stand.book.trim(START_MS, 300, 200)
                stand.scorer.step(START_MS + DAY_MS)
        except BaseException as error:  # noqa: BLE001 -- told by the test
            failures.append(error)

    keeping = threading.Thread(target=maintain)
    keeping.start()
    with ledger(stand.url, tmp_path) as opened:
        gate = threading.Barrier(8)  # one who lags far behind would ask for what memory has forgotten

        def ask(number: int) -> None:
            for height in range(500):
                if height % 20 == 0:
                    gate.wait(60)
                opened.keep(answer(10**6 + height, f"{number}"))

        askers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        given = [opened.recall(ETH_10M, 10**6 + height) for height in range(500 - 100, 500)]
        eventually(lambda: not rows(stand.url, "SELECT 1 FROM answers WHERE topic_id = 7 LIMIT 1"), 30, "an end")
        assert (opened.failures, opened.dropped, opened.unjournalled) == (0, 0, 0)
    ending.set()
    keeping.join()
    assert not failures
    assert stand.scorer.fault == ""
    written = rows(stand.url, "SELECT value FROM answers WHERE height BETWEEN 1000400 AND 1000499 ORDER BY height")
    assert [(one.value,) for one in given if one] == written
    assert len(written) == 100
    assert len(rows(stand.url, SCORED)) == 36


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT], ids=["crash", "orderly"])
def test_a_server_that_dies_and_comes_back_costs_no_answer(
    server: Server, url: str, tmp_path: Path, number: signal.Signals
) -> None:
    stand = Stand(tmp_path, TOPICS, url)
    book = AlarmBook(url, [], FakeClock())
    fill(stand)
    with ledger(url, tmp_path) as opened:
        first = opened.keep(answer(10**6, "before"))
        eventually(lambda: not opened.unwritten, what="the row")
        server.end(number)
        try:
            for height in range(10**6, 10**6 + 50):
                opened.keep(answer(height, "meanwhile"))
            eventually(lambda: opened.failures > 0, what="a failed write")
            assert opened.recall(ETH_10M, 10**6) is first
            assert opened.unwritten == 49
            assert stand.scorer.step(START_MS + DAY_MS) == 0
            assert "refused" in stand.scorer.fault
            book.step([Alarm(name="clock", subject="", what="a", since_ms=1, remedy="b")], lambda _, __: True, 2)
            assert "refused" in book.database_fault
            assert list(tmp_path.glob("*.journal"))
        finally:
            server.start()
        eventually(lambda: not opened.unwritten, 30, "the rows")
        stand.score_all(START_MS + DAY_MS)
        assert len(rows(url, SCORED)) == 36
        book.step([], lambda _, __: False, 3)
        assert book.database_fault == ""
        book.stop()
    given = "SELECT value FROM answers WHERE height BETWEEN 1000000 AND 1000049 ORDER BY height"
    assert rows(url, given) == [("before",), *[("meanwhile",)] * 49]
    assert len(rows(url, "SELECT 1 FROM alarms")) == 1
    stand.close()


@pytest.mark.parametrize("ends", ["killed", "in good order"])
def test_a_ledger_that_is_opened_while_the_server_is_away_writes_once_it_is_back(
    server: Server, url: str, tmp_path: Path, ends: str
) -> None:
    with ledger(url, tmp_path) as opened:
        opened.keep(answer(1, "before"))
        eventually(lambda: not opened.unwritten, what="the row")
    server.end()
    try:
        bring_up_to_date(url)  # raises nothing: inference goes on without
        first = Ledger(url, [ETH_10M], "BINANCE", CLOCK, tmp_path)
        assert first.keep(answer(2, "meanwhile")).value == "meanwhile"
        assert first.keep(answer(2, "another")).value == "meanwhile"
        eventually(lambda: first.failures > 1, what="a failed write")
        if ends == "in good order":
            first.close(0.1)
        opened = Ledger(url, [ETH_10M], "BINANCE", CLOCK, tmp_path)  # meanwhile the first one takes no more answers
        assert opened.recall(ETH_10M, 2) == answer(2, "meanwhile"), "from the journal"
        opened.keep(answer(3, "meanwhile"))
    finally:
        server.start()
    eventually(lambda: not opened.unwritten, 60, "the rows")
    assert rows(url) == [(1, "before"), (2, "meanwhile"), (3, "meanwhile")]
    assert opened.recall(ETH_10M, 1) == answer(1, "before")
    opened.close(10)
    first.close(10)


def refusal(code: str, message: str) -> bytes:
    """What a server sends to a client that it does not let in."""
    fields = b"".join(kind + text.encode() + b"\0" for kind, text in ((b"S", "FATAL"), (b"C", code), (b"M", message)))
    return b"E" + struct.pack("!i", 4 + len(fields) + 1) + fields + b"\0"


@contextmanager
def refusing(reply: bytes) -> Iterator[str]:
    """A server that lets nobody in; gives the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_all() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        while (asked := client.recv(1024)) == SSL_REQUEST:
                            client.sendall(b"N")
                        assert asked
                        client.sendall(reply)

        thread = threading.Thread(target=serve_all)
        thread.start()
        yield f"postgresql://ledger@127.0.0.1:{listener.getsockname()[1]}/x"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.parametrize(
    ("reply", "is_fault_of_ours"),
    [
        (refusal("57P03", "the database system is starting up"), False),
        (refusal("53300", "sorry, too many clients already"), False),
        (refusal("28P01", 'password authentication failed for user "ledger"'), True),
        (refusal("3D000", 'database "x" does not exist'), True),
        (b"", False),
    ],
    ids=["starting", "full", "password", "name", "closed"],
)
def test_only_a_refused_password_or_name_ends_the_start(tmp_path: Path, reply: bytes, is_fault_of_ours: bool) -> None:
    with refusing(reply) as url:
        if is_fault_of_ours:
            for begin in (lambda: Ledger(url, [ETH_10M], "BINANCE", CLOCK, tmp_path), lambda: bring_up_to_date(url)):
                with pytest.raises(ConfigError, match=r"FATAL: .*; check that it is there") as caught:
                    begin()
                assert "\n" not in str(caught.value)
        else:
            bring_up_to_date(url)
            with ledger(url, tmp_path) as opened:
                assert opened.failures == 1


def test_a_server_that_takes_connections_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent_server:
        book = ScoreBook(f"postgresql://ledger@127.0.0.1:{silent_server.getsockname()[1]}/x")
        with pytest.raises(FAULTS, match="timeout expired"):
            book.unscorable(PRICE, 0)
        book.close()


@pytest.mark.parametrize("ending", ["table", "csv", "parquet"])
def test_birnn_scores_reads_and_exports(stand: Stand, url: str, tmp_path: Path, ending: str) -> None:
    fill(stand)
    stand.score_all(START_MS + DAY_MS)
    config = {"CONFIG_FILE": "config.example.json", "DATA_DIR": str(tmp_path), "MARKET": "binance", "DATABASE_URL": url}
    more = () if ending == "table" else ("--export", str(tmp_path / f"all.{ending}"))
    span = ("--since", "2023-11-01", "--until", "2023-11-30", "--topic", "1", "--topic", "64")
    done = CliRunner().invoke(app, ["scores", "--by", "version", *span, *more], env={"COLUMNS": "120", **config})
    assert done.exit_code == 0, done.output
    if ending == "table":
        assert "12 scored answers" in " ".join(done.output.split()), "topic 64 of the example has another loss by now"
        return
    frame = (pl.read_csv if ending == "csv" else pl.read_parquet)(tmp_path / f"all.{ending}")
    expected = [*stand.book.recent(PRICE, 0).loss, *stand.book.recent(RETURN, 0).loss]
    assert frame["loss"].to_list() == expected
    server_away = CliRunner().invoke(app, ["scores"], env=config | {"DATABASE_URL": "postgresql://127.0.0.1:1/x"})
    assert (server_away.exit_code, server_away.stderr.count("\n")) == (1, 1)
    assert "cannot be read: connection failed" in server_away.stderr


def test_a_worse_champion_is_demoted_by_what_it_answered(url: str, tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    folder = Folder(registry, url)
    first, second = serve(registry, network(hours_ago=48), network(hours_ago=26))
    folder.write(*losses(ETH, second, 0.5), *losses(BTC, second, 0.0, skill=0.3))
    folder.judge.look()
    assert (folder.served(ETH), folder.served(BTC)) == (first, second)


FAULT = 'birnn_monitor_fault{part="trim"} 1.0'


def test_the_page_tells_of_a_server_that_is_away_and_recovers(
    server: Server, tmp_path: Path, exchange: SimulatedExchange
) -> None:
    """Inference and monitor as processes: answers go on, the page says what is wrong, and afterwards nothing lacks."""
    url = server.new()
    given = surroundings(tmp_path, exchange.url, DATABASE_URL=url, ALARM_STORE="1")
    done = subprocess.run([sys.executable, "-m", "ledger"], env=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    question = "/inference/ETH?topic=1&height="
    with running(given, tmp_path / "log") as inference, monitoring(given, tmp_path / "monitor.log") as monitor:
        api = f"{monitor.url}/api/topics/allora-testnet-1/1/answers"

        def page(path: str = "/") -> str:
            return requests.get(monitor.url + path, timeout=10).text

        def heights() -> list[int]:
            return [row["height"] for row in requests.get(api, timeout=10).json()]

        eventually(lambda: inference.answers("/readyz"), 60, "/readyz")
        eventually(monitor.is_well, 30, "the first look")
        values = {height: requests.get(f"{inference.url}{question}{height}", timeout=5).text for height in (1, 2)}
        eventually(lambda: heights() == [2, 1], 30, "the answers on the page")
        server.end()
        try:
            values[3] = requests.get(f"{inference.url}{question}3", timeout=5).text
            assert requests.get(f"{inference.url}{question}2", timeout=5).text == values[2]
            assert requests.get(api, timeout=10).status_code == 503
            assert "connection failed" in page("/topics/allora-testnet-1/1")
            eventually(lambda: FAULT in page("/metrics"), 30, "the fault, which the front page shows after a minute")
        finally:
            server.start()
        eventually(lambda: heights() == [3, 2, 1], 60, "all answers")
        eventually(lambda: FAULT not in page("/metrics"), 60, "the end of the fault")
        assert "connection failed" not in page("/topics/allora-testnet-1/1")
        assert [monitor.end(), inference.end(signal.SIGTERM)] == [0, 0]
    assert rows(url) == sorted(values.items())
    for log in ("log", "monitor.log"):
        assert "Traceback" not in (tmp_path / log).read_text()
