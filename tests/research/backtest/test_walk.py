"""What a backtest is asked: topics, spans and klines, and the one line that says what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS
from core.errors import ConfigError
from core.topic import CLASSIFICATION, Target, Topic, catalogue
from market.store.home import write_homes
from market.store.kline_store import KlineStore
from model.panels import panels_for
from research.backtest.command import chosen_topics, introduction, walk_of
from research.backtest.folder import Folder
from research.backtest.walk import catalogue_topics, short_history, with_unseen
from research.data import recording_of
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines, write_klines
from tests.research.tape import BTC, ETH, HISTORY_DAYS, SOL, after, asked, clustered, tape


def test_topics_of_the_catalogue_are_the_networks_questions() -> None:
    price, returns = catalogue_topics("allora-testnet-1", [1, 64, 1])
    assert (price.symbol, price.target, price.horizon, price.loss) == ("ETHUSDT", Target.PRICE, "10m", "mse")
    assert (returns.symbol, returns.target, returns.horizon, returns.loss) == ("BTCUSDT", "log_return", "8h", "czar")


@pytest.mark.parametrize(
    ("network", "ids", "said"),
    [
        pytest.param("allora-testnet-1", [999], "--topic 999: allora-testnet-1 has no such topic", id="unknown id"),
        pytest.param("allora-testnet-9", [1], "it knows allora-mainnet-1, allora-testnet-1", id="unknown network"),
    ],
)
def test_a_topic_that_is_not_there_is_named(network: str, ids: list[int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        catalogue_topics(network, ids)


def test_a_classification_topic_is_refused_by_name() -> None:
    network, topic_id = next(key for key, entry in catalogue().items() if entry.target == CLASSIFICATION)
    with pytest.raises(ConfigError, match="classification"):
        catalogue_topics(network, [topic_id])


def test_topics_of_a_config_are_all_or_those_named() -> None:
    assert chosen_topics("", (), (ETH, BTC)) == (ETH, BTC)
    assert chosen_topics("", (9002,), (ETH, BTC)) == (BTC,)
    with pytest.raises(ConfigError, match="it has 9001, 9002"):
        chosen_topics("", (1,), (ETH, BTC))


def test_an_unseen_symbol_is_asked_what_the_others_are_and_trained_on_by_nobody(tmp_path: Path) -> None:
    tape(tmp_path / "tape", "BTCUSDT", "ETHUSDT", "SOLUSDT", days=6)
    walk, _ = walk_of(asked(tmp_path, ETH, BTC, unseen=("SOLUSDT",)))
    assert {(one.symbol, one.target, one.horizon) for one in walk.topics[2:]} == {
        ("SOLUSDT", Target.PRICE, "10m"),
        ("SOLUSDT", Target.VOLATILITY, "15m"),
    }
    (plan,) = walk.plans()
    assert plan.symbols == ("BTCUSDT", "ETHUSDT", "SOLUSDT"), "unseen symbols last"
    trained = walk.trained(plan)
    assert trained.symbols == ("BTCUSDT", "ETHUSDT")
    assert trained.heads == plan.heads
    assert trained.topics == (ETH, BTC)


def test_an_unseen_symbol_with_topics_of_its_own_keeps_them() -> None:
    assert with_unseen((ETH, BTC, SOL), ("SOLUSDT",)) == (ETH, BTC, SOL)


@pytest.mark.parametrize(
    ("unseen", "said"),
    [
        pytest.param("BTCUSDT", "stands beside every symbol", id="the leader"),
        pytest.param("SOLUSDT", "leaves no topic to train", id="nothing left"),
    ],
)
def test_what_cannot_be_unseen_is_refused(unseen: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_unseen((SOL,), (unseen,))


@pytest.mark.parametrize(
    ("training_days", "begins"),
    [pytest.param(3, 5, id="a whole training fits"), pytest.param(7, 6, id="else half of what there is")],
)
def test_the_span_begins_after_enough_history_and_ends_with_the_klines(
    tmp_path: Path, training_days: int, begins: int
) -> None:
    tape(tmp_path / "tape", "BTCUSDT", "ETHUSDT", days=12)
    walk, recording = walk_of(asked(tmp_path, ETH, start=None, training_days=training_days))
    assert walk.dates == [(after(day), after(day + 1)) for day in range(begins, 12)]
    assert len(short_history(recording, walk)) == (training_days == 7), "and says so when it is less than wanted"


def test_nothing_after_the_end_is_read(tmp_path: Path) -> None:
    tape(tmp_path / "tape", "BTCUSDT", days=8)
    walk, recording = walk_of(asked(tmp_path, BTC, end="2023-11-21T12:00"))
    assert walk.end_ms == after(6.5)
    assert walk.dates == [(after(5), after(6)), (after(6), after(6.5))]
    (plan,) = walk.plans()
    assert recording.until(plan, 0, walk.end_ms)["BTCUSDT"].end_ms == after(6.5)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        pytest.param({"start": "2023-11-16"}, "has 1.00 days of 1m klines of BTCUSDT", id="too little before"),
        pytest.param({"start": "2024-01-01"}, "must begin before it ends", id="begins after the klines end"),
        pytest.param({"end": "2024-01-01"}, "klines of .* end at 2023-11-22", id="ends after them"),
        pytest.param(
            {"end": "2023-11-01"}, "klines of .* begin at 2023-11-15.*: give a later day", id="ends before them"
        ),
        pytest.param({"start": "soon"}, "--start must be a UTC day", id="no day"),
        pytest.param({"every_days": 0}, "--every must be 1 or more, was 0", id="no days between"),
        pytest.param({"baselines": ("arima",)}, "choose among har, ridge", id="unknown baseline"),
        pytest.param({"data": Path("nowhere")}, "nowhere: no such folder", id="no folder"),
        pytest.param({"data": None}, "run birnn train once", id="no store"),
    ],
)
def test_what_cannot_be_walked_is_refused_in_one_line(tmp_path: Path, others: dict[str, object], said: str) -> None:
    tape(tmp_path / "tape", "BTCUSDT", days=7)
    with pytest.raises(ConfigError, match=said) as refusal:
        walk_of(asked(tmp_path, BTC, **others))
    assert "\n" not in str(refusal.value)


def test_wrong_training_settings_are_named_with_their_file_before_anything_is_kept(tmp_path: Path) -> None:
    tape(tmp_path / "tape", "BTCUSDT", days=7)
    what = asked(tmp_path, BTC, out=tmp_path / "out")
    (tmp_path / "training.json").write_text('{"minute": {"epochs": 0}}')
    with pytest.raises(ConfigError, match=r"training\.json: panel minute: epochs must be 1 or more, was 0"):
        walk_of(what)
    assert not (tmp_path / "out").exists()


def test_a_symbol_without_klines_is_named(tmp_path: Path) -> None:
    tape(tmp_path / "tape", "BTCUSDT", days=7)
    with pytest.raises(ConfigError, match="no klines of ETHUSDT"):
        walk_of(asked(tmp_path, ETH))


def test_hours_are_made_of_minutes_where_there_are_none(tmp_path: Path) -> None:
    minutes = clustered(3, 1)
    hours = random_walk_klines(24, HOUR_MS, seed=5, start_ms=START_MS - DAY_MS + HOUR_MS)
    write_klines(tmp_path / "tape", "BTCUSDT", minutes)
    write_klines(tmp_path / "tape", "BTCUSDT", hours)
    topic = Topic(topic_id=1, token="BTC", symbol="BTCUSDT", target=Target.PRICE, horizon_min=480)
    found = recording_of(list(panels_for([topic]).values()), tmp_path / "tape", tmp_path, ()).series["BTCUSDT", HOUR_MS]
    np.testing.assert_array_equal(found.between(0, hours.end_ms).close, hours.close)
    rest = minutes.resample(HOUR_MS).between(hours.end_ms, minutes.end_ms)
    np.testing.assert_array_equal(found.between(hours.end_ms, minutes.end_ms).close, rest.close)
    assert not list(found.gaps())


def test_the_workers_own_store_will_do(tmp_path: Path) -> None:
    klines = clustered(7, 1)
    KlineStore(tmp_path / "data" / "klines" / "binance").append("BTCUSDT", klines)
    walk, recording = walk_of(asked(tmp_path, BTC, data=None))
    np.testing.assert_array_equal(recording.series["BTCUSDT", 60_000].close, klines.close)
    assert not recording.simulated
    assert walk.start_ms == after(HISTORY_DAYS)


def test_the_stores_klines_are_of_the_first_venue_of_the_line(tmp_path: Path) -> None:
    klines = {name: clustered(7, seed) for seed, name in enumerate(("binance", "kraken", "truth"))}
    for name, of_venue in klines.items():
        KlineStore(tmp_path / "data" / "klines" / name).append("BTCUSDT", of_venue)
    for venues, home in ((("kraken", "binance"), "kraken"), (("coinbase", "binance"), "binance")):
        _, recording = walk_of(asked(tmp_path, BTC, data=None, venues=venues))
        np.testing.assert_array_equal(recording.series["BTCUSDT", 60_000].close, klines[home].close)
    with pytest.raises(ConfigError) as refused:
        walk_of(asked(tmp_path, BTC, data=None, venues=("coinbase",)))
    assert str(refused.value) == (
        f"{tmp_path / 'data' / 'klines'}: klines of BTCUSDT are there from binance and kraken and truth, and "
        "MARKET_VENUES=coinbase does not name one of them: set MARKET_VENUES to the venue whose klines are to be read"
    )
    write_homes(tmp_path / "data" / "klines", {"BTCUSDT": "truth"})
    _, recording = walk_of(asked(tmp_path, BTC, data=None, venues=("coinbase",)))
    np.testing.assert_array_equal(recording.series["BTCUSDT", 60_000].close, klines["truth"].close)


def test_invented_prices_are_known_by_their_folder(tmp_path: Path) -> None:
    home = tmp_path / "simulated" / "seed-0"
    KlineStore(home / "klines" / "binance").append("BTCUSDT", clustered(7, 1))
    _, recording = walk_of(asked(tmp_path, BTC, data=None, data_dir=home))
    assert recording.simulated == "SIMULATED: these prices are invented"


def test_replayed_klines_are_not_called_invented(tmp_path: Path) -> None:
    home = tmp_path / "simulated" / "replay-spot"
    KlineStore(home / "klines" / "binance").append("BTCUSDT", clustered(7, 1))
    walk, recording = walk_of(asked(tmp_path, BTC, data=None, data_dir=home))
    (first, *_) = introduction(walk, recording, Folder(tmp_path / "out"))
    assert first == recording.simulated == "SIMULATED: replayed, real klines moved to another time"
