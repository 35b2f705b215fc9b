"""A champion that was worse than the naive forecast on what it answered goes, and no other."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from rich.console import Console
from structlog.testing import capture_logs

from admission.readiness import Days, Readiness, Standing, write_admission
from cli.status.report import status_report
from cli.status.tables import status_tables
from core.clock import HOUR_MS, MINUTE_MS
from core.settings import load_settings
from core.sources import NAIVE, NETWORK
from core.topic import Topic
from ledger.schema import make_ready
from ledger.scores import Score, ScoreBook
from market.store.home_store import HomeStore
from model.judging.comparison import LEAST_HORIZONS
from model.panels import PanelPlan
from model.registry.versions import Registry
from model.stretch import Stretch
from tests.fakes.clock import FakeClock
from tests.updater.folder import ETH as ANSWERED
from tests.updater.folder import updater_on
from tests.updater.test_judging import BAD, BTC, ETH, NOW_MS, PRICE, klines, network, plan, serve
from updater.live import LiveJudge
from updater.state import StateFile

HOURS = 24
EPOCH_MIN = 5
ROWS = HOURS * 60 // EPOCH_MIN


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


class Folder:
    """A data folder: a registry, a store and a ledger, and the judge of what was answered."""

    def __init__(self, registry: Registry, database_url: str = "") -> None:
        self.registry, self.clock = registry, FakeClock(NOW_MS)
        self.settings = load_settings(data_dir=registry.root, database_url=database_url)
        self.file = registry.root / "ledger.sqlite3"
        store = HomeStore(self.settings.klines_dir, self.settings.venues)
        for symbol, candles in klines().items():
            store.of("binance").append(symbol, candles)
        engine = sa.create_engine(self.settings.ledger_url)
        make_ready(engine, self.clock)
        engine.dispose()
        self.store = store
        self.judge = self.judge_of(plan())

    def judge_of(self, of: PanelPlan) -> LiveJudge:
        return LiveJudge(
            settings=self.settings,
            plans={of.panel.name: of},
            store=self.store,
            registry=self.registry,
            clock=self.clock,
        )

    def write(self, *scores: Score) -> None:
        book = ScoreBook(self.settings.ledger_url)
        book.write(scores)
        book.close()

    def served(self, topic: Topic) -> str | None:
        champion = self.registry.champions().get(topic.key)
        return champion.version if champion else None


@pytest.fixture
def folder(registry: Registry) -> Folder:
    return Folder(registry)


def scores(topic: Topic, version: str, share: float, *, rows: int = ROWS, skill: float = 0.0) -> list[Score]:
    """Answers of the last hours, whose errors are the truth's own and noise of a share of it; the newest ends now.

    Args:
        skill: share of the truth that is forecast.
    """
    random = np.random.default_rng(topic.topic_id)
    truth, noise = random.standard_normal((2, rows))
    level = {"price": 100.0, "log_return": 0.0, "volatility": 1.0}[topic.target]
    truth, value = 1e-3 * truth, 1e-3 * (skill * truth + share * noise)
    if topic is PRICE:
        truth, value = level * np.exp(truth), level * np.exp(value)
    else:
        truth, value = level + truth, level + value
    return [
        Score(
            network=topic.network or "",
            topic_id=topic.topic_id,
            height=number,
            answered_ms=end_ms - topic.horizon_ms,
            version=version,
            forecast=NETWORK,
            start_ms=end_ms - topic.horizon_ms,
            end_ms=end_ms,
            scored_ms=NOW_MS,
            venue="binance",
            value=float(value[number]),
            truth=float(truth[number]),
            truth_sd=0.0,
            naive=level,
            plain_naive=level,
            loss=float((truth[number] - value[number]) ** 2),
            naive_loss=float((truth[number] - level) ** 2),
            plain_naive_loss=float((truth[number] - level) ** 2),
        )
        for number in range(rows)
        for end_ms in [NOW_MS - (rows - 1 - number) * EPOCH_MIN * MINUTE_MS]
    ]


def test_a_worse_champion_gives_way_to_the_one_before_and_the_reason_is_shown(folder: Folder) -> None:
    first, second = serve(folder.registry, network(hours_ago=48), network(hours_ago=26))
    folder.write(*scores(ETH, second, 0.5), *scores(BTC, second, 0.0, skill=0.3))
    folder.judge.look()
    assert (folder.served(ETH), folder.served(BTC), folder.served(PRICE)) == (first, second, second)
    (demotion,) = folder.registry.demotions()[ETH.key]
    assert (demotion.champion.version, demotion.demoted_ms, demotion.successor) == (second, NOW_MS, first)
    assert demotion.reason.startswith("worse than the naive forecast on what it answered: 27")
    (report,) = status_report(folder.settings)["folders"]
    assert report["demotions"][ETH.key][0]["reason"] == demotion.reason
    StateFile(folder.registry.root, folder.clock, [plan().panel.name])
    shown = StringIO()
    console = Console(file=shown, width=240)
    for part in status_tables(status_report(folder.settings), console.width):
        console.print(part)
    assert demotion.reason in shown.getvalue()
    stamp = folder.registry.stamp()
    folder.judge.look()
    assert folder.registry.stamp() == stamp, "it goes once, and what was answered by it does not count against another"


@pytest.mark.parametrize(
    "biases", [pytest.param([BAD], id="the one before is worse itself"), pytest.param([], id="none before")]
)
def test_where_nobody_may_follow_the_naive_forecast_answers(folder: Folder, biases: list[float]) -> None:
    before = [network(bias, hours_ago=48) for bias in biases]
    *_, version = serve(folder.registry, *before, network(hours_ago=26))
    folder.write(*scores(ETH, version, 0.5))
    folder.judge.look()
    assert folder.served(ETH) is None
    assert folder.registry.demotions()[ETH.key][-1].successor is None


def not_scorable(one: Score) -> Score:
    return one._replace(reason="candles are missing", loss=None, naive_loss=None, value=None, truth=None)


def earlier(one: Score) -> Score:
    """So that of 24 hours fewer than the needed horizons lie after the champion began to serve."""
    return one._replace(start_ms=one.start_ms - 20 * HOUR_MS, end_ms=one.end_ms - 20 * HOUR_MS)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda one: one._replace(loss=one.naive_loss, value=one.naive), id="naive"),
        pytest.param(lambda one: one._replace(loss=0.9 * one.naive_loss), id="better"),
        pytest.param(lambda one: one._replace(forecast=NAIVE), id="the stretched naive forecast"),
        pytest.param(not_scorable, id="not scorable"),
        pytest.param(lambda one: one._replace(version="minute-20200101T000000Z-000000"), id="of another version"),
        pytest.param(lambda one: one._replace(topic_id=77), id="of another topic"),
        pytest.param(lambda one: one._replace(start_ms=one.start_ms - MINUTE_MS), id="of another question"),
        pytest.param(earlier, id="mostly before it served"),
    ],
)
def test_what_does_not_prove_it_worse_changes_nothing(folder: Folder, change: Callable[[Score], Score]) -> None:
    (version,) = serve(folder.registry, network(hours_ago=26))
    folder.write(*map(change, scores(ETH, version, 0.5)))
    with capture_logs() as logs:
        folder.judge.look()
    assert folder.served(ETH) == version
    assert logs == []


def test_nothing_is_said_before_enough_time_is_covered(folder: Folder) -> None:
    (version,) = serve(folder.registry, network(hours_ago=26))
    all_rows = scores(ETH, version, 3.0)
    needed = LEAST_HORIZONS * ETH.horizon_min // EPOCH_MIN
    folder.write(*all_rows[: needed - 3])
    folder.judge.look()
    assert folder.served(ETH) == version
    folder.write(*all_rows[: needed + 1])
    folder.judge.look()
    assert folder.served(ETH) is None


def stretched(topic: Topic, version: str, share: float, factor: float) -> list[Score]:
    """Answers that know a third of the move, and are stretched as on a testnet."""
    found = []
    for one in scores(topic, version, 0.0):
        random = np.random.default_rng(one.height)
        truth, known = np.log((one.truth or 0) / 100), 5e-4 * random.standard_normal()
        move = factor * (known + share * 1e-3 * random.standard_normal())
        truth, value, naive = (float(100 * np.exp(x)) for x in (truth + known, move, known))
        found.append(
            one._replace(
                truth=truth, value=value, naive=naive, loss=(truth - value) ** 2, naive_loss=(truth - naive) ** 2
            )
        )
    return found


@pytest.mark.parametrize(("share", "goes"), [(0.0, False), (0.02, False), (0.6, True)])
def test_a_stretch_is_no_reason(folder: Folder, share: float, goes: bool) -> None:
    """An answer that is stretched for admission loses more than the naive forecast on purpose."""
    from_testnet = replace(PRICE, objective="admission")
    (version,) = serve(folder.registry, network(hours_ago=26))
    folder.write(*stretched(PRICE, version, share, 2.0))
    folder.judge_of(replace(plan(), topics=(from_testnet,))).look()
    assert (folder.served(PRICE) is None) is goes


@pytest.mark.parametrize(("shift", "goes"), [(-0.2, False), (0.0, True)])
def test_nor_is_the_level_of_a_stretched_volatility(folder: Folder, shift: float, goes: bool) -> None:
    """The expected logarithm is answered, which lies below the expectation."""
    from_testnet = replace(ETH, objective="admission")
    nothing = Standing(eligible=False, known_s=0, days=Days(median=None, p90=None, never=1.0), holds=None, criteria={})
    readiness = Readiness(
        network=None,
        topic_id=ETH.topic_id,
        standing=nothing,
        shown={},
        stretch=Stretch(shift=shift),
        objective="admission",
        short="",
    )
    write_admission(folder.registry.root, NOW_MS, {ETH.key: readiness})
    (version,) = serve(folder.registry, network(hours_ago=26))
    level = float(np.exp(-0.2))
    folder.write(
        *(one._replace(value=level, loss=((one.truth or 0) - level) ** 2) for one in scores(ETH, version, 0.0))
    )
    folder.judge_of(replace(plan(), topics=(from_testnet,))).look()
    assert (folder.served(ETH) is None) is goes


def missing(folder: Folder) -> None:
    folder.file.unlink()


def damaged(folder: Folder) -> None:
    folder.file.write_bytes(b"no database" * 1000)


def of_an_older_release(folder: Folder) -> None:
    with closing(sqlite3.connect(folder.file)) as connection:
        connection.execute("DROP TABLE scores")


@pytest.mark.parametrize("fault", [missing, damaged, of_an_older_release])
def test_a_database_that_cannot_be_read_changes_nothing_and_is_said_once(
    folder: Folder, fault: Callable[[Folder], None]
) -> None:
    (version,) = serve(folder.registry, network(hours_ago=26))
    fault(folder)
    with capture_logs() as logs:
        folder.judge.look()
        folder.judge.look()
    assert [line["event"] for line in logs] == ["live_scores_not_judged"]
    assert folder.served(ETH) == version


@contextmanager
def locked(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("COMMIT")


def test_a_locked_database_is_read_at_the_next_look(folder: Folder) -> None:
    (version,) = serve(folder.registry, network(hours_ago=26))
    folder.write(*scores(ETH, version, 0.5))
    with locked(folder.file), capture_logs() as logs:
        folder.judge.look()
    assert "locked" in logs[0]["reason"]
    assert folder.served(ETH) == version
    folder.judge.look()
    assert folder.served(ETH) is None


def test_registry_that_another_process_writes_is_left_alone(folder: Folder) -> None:
    (version,) = serve(folder.registry, network(hours_ago=26))
    folder.write(*scores(ETH, version, 0.5))
    with Registry(folder.registry.root).writing(), capture_logs() as logs:
        folder.judge.look()
    assert "another updater is writing" in logs[0]["reason"]
    assert folder.served(ETH) == version


def test_the_updater_looks_whenever_it_syncs_and_so_before_each_training(published: Path) -> None:
    updater = updater_on(published, ANSWERED)
    now_ms = updater.clock.now_ms()
    (version,) = updater.registry.versions()
    file = published / "champions.json"
    champion = updater.registry.champions()[ANSWERED.key]
    file.write_text(file.read_text().replace(str(champion.since_ms), str(now_ms - 26 * HOUR_MS)))
    engine = sa.create_engine(updater.settings.ledger_url)
    make_ready(engine, updater.clock)
    engine.dispose()
    book = ScoreBook(updater.settings.ledger_url)
    late = now_ms - NOW_MS
    made = scores(replace(PRICE, topic_id=ANSWERED.topic_id), version, 0.5)
    book.write([one._replace(start_ms=one.start_ms + late, end_ms=one.end_ms + late) for one in made])
    book.close()
    outcome = updater.train("minute").outcome
    assert outcome is not None
    assert "time limit" in outcome.reason, "the training was begun, and no more"
    (demotion,) = updater.registry.demotions()[ANSWERED.key]
    assert "on what it answered" in demotion.reason
