"""The criteria on the real record: those of the epochs that were answered, and what was missed."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from admission.criteria import NAMES, Record, criteria
from admission.live import NO_ANSWER, RECORD_DAYS, LiveReadiness, live_readiness
from admission.replay import Past, answers, epochs_between, past_of
from admission.standing import standing_of
from core.clock import DAY_MS, MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Bools, Floats
from ledger.answers import Answer
from ledger.database import Database
from ledger.schema import make_ready
from ledger.scores import AnsweredRecord, Score, ScoreBook
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines

RETURN = Topic(
    topic_id=1, token="BTC", symbol="BTCUSDT", target=Target.LOG_RETURN, horizon_min=15, epoch_length_blocks=60
)
PRICE = replace(RETURN, topic_id=2, target=Target.PRICE)
VOLATILITY = replace(RETURN, topic_id=3, target=Target.VOLATILITY)
EPOCH_MS = 5 * MINUTE_MS  # 60 blocks of 5 s
BASE = 50_000.0


def moves(epochs: int, skill: float = 0.5) -> tuple[Floats, Floats]:
    """Truths of overlapping intervals, and forecasts of them."""
    random = np.random.default_rng(3)
    steps = 1e-3 * random.standard_normal(epochs + 2)
    truth = steps[:-2] + steps[1:-1] + steps[2:]
    return truth, skill * truth + 3e-4 * random.standard_normal(epochs)


def record_of(topic: Topic, answered: Bools, *, scored: int | None = None) -> AnsweredRecord:
    """A record of one answer in each epoch that is marked.

    Args:
        scored: epochs whose truth is known; None is all.
    """
    truth, forecast = moves(len(answered))
    truth[len(answered) if scored is None else scored :] = np.nan
    known = np.isfinite(truth)
    if topic.target is Target.PRICE:
        truth, forecast = BASE * np.exp(truth), BASE * np.exp(forecast)
    number = np.flatnonzero(answered)
    return AnsweredRecord(
        height=100 + 60 * number,
        start_ms=START_MS + EPOCH_MS * number,
        value=forecast[number],
        truth=truth[number],
        base=np.where(known, BASE if topic.target is Target.PRICE else 0.0, np.nan)[number],
    )


def looked_at(topic: Topic, record: AnsweredRecord, epochs: float, block_ms: float | None = None) -> LiveReadiness:
    """The readiness at the end of the last of so many epochs."""
    return live_readiness(topic, record, now_ms=START_MS + round(epochs * EPOCH_MS), block_ms=block_ms)


@pytest.mark.parametrize("topic", [RETURN, PRICE], ids=["log-return", "price"])
def test_a_record_with_downtime_is_judged_as_computed_by_hand(topic: Topic) -> None:
    epochs = 900
    answered = np.ones(epochs, np.bool_)
    answered[100:140] = answered[301] = answered[500::37] = False  # it was down, it refused, it was late
    found = looked_at(topic, record_of(topic, answered, scored=880), epochs)

    truth, forecast = moves(epochs)
    by_hand: list[tuple[float, float, int]] = []
    before = -1
    for number in range(epochs):
        if answered[number]:
            by_hand.append((truth[number] if number < 880 else np.nan, forecast[number], number - before))
            before = number
    columns = [np.array(column) for column in zip(*by_hand, strict=True)]
    expected = criteria(
        Record(
            truth=columns[0],
            forecast=columns[1],
            gap=columns[2],
            horizon_min=15,
            ratio=3,
            submitted=len(by_hand),
            expected=epochs,
        )
    )
    assert (found.submitted, found.expected) == (len(by_hand), 900)
    assert [*found.criteria] == [*NAMES]
    for name, one in expected.items():
        exactly = one if topic is RETURN else replace(found.criteria[name], passed=one.passed)
        assert found.criteria[name] == exactly, name
        assert found.criteria[name].value == pytest.approx(one.value, rel=1e-9), name
        assert found.criteria[name].bound == pytest.approx(one.bound, rel=1e-9), name
    assert found.eligible
    assert found.since_ms == START_MS
    assert found.short == "nothing is short"
    assert found.expected_day == datetime.fromtimestamp(START_MS / 1000, UTC).date() + timedelta(days=3)


def test_answers_between_the_epochs_are_no_missed_epochs() -> None:
    """Heights that were asked by hand, less than half an epoch apart each: a few count as epochs, none as missed."""
    record = record_of(RETURN, np.ones(40, np.bool_))
    beside = [replace(record, start_ms=record.start_ms + minutes * MINUTE_MS) for minutes in (1, 2, 3, 4)]
    mixed = AnsweredRecord(
        **{name: np.concatenate([getattr(one, name) for one in (record, *beside)]) for name in asdict(record)}
    )
    found = looked_at(RETURN, mixed, 40)
    assert found.submitted == found.expected >= 40


def test_a_volatility_is_judged_by_its_change_beside_both_baselines() -> None:
    """The same as the replay, whose epochs are the same."""
    klines = random_walk_klines(16 * 1440, seed=4)
    start_ms = int(klines.open_time_ms[0])
    past: Past = past_of(VOLATILITY, klines, epochs_between(VOLATILITY, start_ms, klines.end_ms))
    said = answers(past, klines, None, 2)
    record = AnsweredRecord(
        height=past.epochs.number,
        start_ms=past.epochs.base_ms,
        value=np.where(np.isfinite(said), past.base * np.exp(said), 1.0),
        truth=past.base * np.exp(past.truth),
        base=past.base,
    )
    found = live_readiness(VOLATILITY, record, now_ms=klines.end_ms)
    replayed = standing_of(past, said, 120)
    assert replayed.criteria["wczar"].value is not None
    for name in NAMES[:-1]:
        one, other = found.criteria[name], replayed.criteria[name]
        assert one.passed == other.passed, name
        assert one.value == pytest.approx(other.value, rel=1e-6), name
    useless = replace(record, value=record.base)
    assert not live_readiness(VOLATILITY, useless, now_ms=klines.end_ms).criteria["wrmse"].passed


def test_downtime_until_now_counts_and_the_epoch_that_runs_does_not() -> None:
    record = record_of(RETURN, np.ones(100, np.bool_))
    found = [looked_at(RETURN, record, epochs).expected for epochs in (99.5, 100, 100.9, 101, 101.9, 150)]
    assert found == [100, 100, 100, 101, 101, 150]


def test_how_many_epochs_may_still_be_missed() -> None:
    epochs = 300
    answered = np.ones(epochs, np.bool_)
    answered[50:60] = False
    record = record_of(RETURN, answered)
    found = looked_at(RETURN, record, epochs)
    left = found.missed_left
    assert left is not None
    assert left > 0
    assert looked_at(RETURN, record, epochs + left).criteria["participation"].passed
    assert not looked_at(RETURN, record, epochs + left + 1).criteria["participation"].passed
    assert looked_at(RETURN, record, epochs + left).missed_left == 0
    assert looked_at(RETURN, record, epochs + left + 50).missed_left == 0


def test_participation_that_fell_is_back_after_enough_answers() -> None:
    answered = np.ones(1000, np.bool_)
    answered[100:250] = False
    found = looked_at(RETURN, record_of(RETURN, answered), 1000)
    assert found.short.startswith("short of epochs answered; if it goes on so, all seven hold about 2023-11-20")
    assert looked_at(RETURN, record_of(RETURN, np.append(answered, np.ones(500, np.bool_))), 1500).missed_left == 0
    assert looked_at(RETURN, record_of(RETURN, np.append(answered, np.ones(501, np.bool_))), 1501).eligible


def test_epochs_are_as_long_as_blocks_are_measured_to_be() -> None:
    record = record_of(RETURN, np.arange(400) % 2 == 0)  # every ten minutes
    assert looked_at(RETURN, record, 400).expected == 400
    twice = looked_at(RETURN, record, 400, block_ms=10_000.0)
    assert (twice.submitted, twice.expected) == (200, 200)
    jittered = replace(record, start_ms=record.start_ms + MINUTE_MS * np.random.default_rng(0).integers(0, 2, 200))
    assert looked_at(RETURN, jittered, 401, block_ms=10_000.0).expected == 200, "a base is cut to the minute"


def test_a_second_answer_within_an_epoch_is_no_second_epoch() -> None:
    record = record_of(RETURN, np.ones(50, np.bool_))
    twice = AnsweredRecord(
        height=np.append(record.height, record.height[20:30] + 7),
        start_ms=np.append(record.start_ms, record.start_ms[20:30] + MINUTE_MS),
        value=np.append(record.value, np.full(10, 9.0)),
        truth=np.append(record.truth, record.truth[20:30]),
        base=np.append(record.base, record.base[20:30]),
    )
    assert looked_at(RETURN, twice, 50) == looked_at(RETURN, record, 50)


def test_only_the_last_days_count() -> None:
    hourly = replace(RETURN, horizon_min=60, epoch_length_blocks=720)
    epochs = (RECORD_DAYS + 10) * 24
    truth, forecast = moves(epochs)
    record = AnsweredRecord(
        height=np.arange(epochs),
        start_ms=START_MS + np.arange(epochs) * 12 * EPOCH_MS,
        value=forecast,
        truth=truth,
        base=np.zeros(epochs),
    )
    found = live_readiness(hourly, record, now_ms=START_MS + epochs * 12 * EPOCH_MS)
    assert found.since_ms == START_MS + 10 * DAY_MS
    assert (found.submitted, found.expected) == (RECORD_DAYS * 24, RECORD_DAYS * 24)


@pytest.mark.parametrize("topic", [RETURN, PRICE, VOLATILITY], ids=lambda topic: topic.target)
def test_without_answers_or_truths_nothing_is_promised(topic: Topic) -> None:
    nothing = record_of(topic, np.zeros(5, np.bool_))
    assert looked_at(topic, nothing, 5) == NO_ANSWER
    for answered in (1, 5):
        found = looked_at(topic, record_of(topic, np.ones(answered, np.bool_), scored=0), answered)
        assert (found.submitted, found.expected, found.eligible, found.expected_day) == (
            answered,
            answered,
            False,
            None,
        )
        assert found.criteria["participation"].passed
        assert found.criteria["n_eff"].value == 0
    assert found.to_json()["criteria"]["pearson"] == {"value": None, "bound": None, "passed": False}


def test_no_skill_and_too_little_spread_have_no_day() -> None:
    truth, _ = moves(400)
    record = record_of(RETURN, np.ones(400, np.bool_))
    guess = np.random.default_rng(9).standard_normal(400) * 1e-3
    assert looked_at(RETURN, replace(record, value=guess), 400).expected_day is None
    narrow = looked_at(RETURN, replace(record, value=0.1 * truth), 400)
    assert narrow.short == "short of spread"
    assert narrow.expected_day is None


def test_a_short_record_of_skill_is_told_when_it_will_do() -> None:
    found = looked_at(RETURN, record_of(RETURN, np.ones(40, np.bool_)), 40)
    assert not found.eligible
    assert found.expected_day is not None
    assert found.to_json()["expected_day"] == found.expected_day.isoformat()
    assert f"all seven hold about {found.expected_day}" in found.short


def test_the_record_is_read_from_the_ledger(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    engine = sa.create_engine(url)
    make_ready(engine, FakeClock())
    engine.dispose()
    database, book = Database(url, FakeClock()), ScoreBook(url)
    record = record_of(PRICE, np.arange(60) % 7 > 0, scored=50)
    said = [
        Answer(
            network="",
            topic_id=PRICE.topic_id,
            height=height,
            value=repr(value),
            version="minute-1",
            symbol=symbol,
            target=PRICE.asked,
            horizon_min=15,
            anchor=1.0,
            anchor_asof_ms=0,
            asof_ms=0,
            answered_ms=start_ms + 70_000,
            market=market,
            base_ms=start_ms - MINUTE_MS,
            block_ms=start_ms + 3_000,
        )
        for symbol, market, first in ((PRICE.symbol, "BINANCE", 0), ("ETHUSDT", "BINANCE", 1), (PRICE.symbol, "X", 2))
        for height, start_ms, value in zip(
            (record.height + first).tolist(), record.start_ms.tolist(), record.value.tolist(), strict=True
        )
    ]
    database.write(said)
    book.write(
        [
            Score(
                network="",
                topic_id=PRICE.topic_id,
                height=height,
                answered_ms=0,
                version="minute-1",
                forecast="network",
                start_ms=0,
                end_ms=1,
                scored_ms=1,
                truth=truth,
                plain_naive=BASE,
            )
            for height, truth in zip(record.height.tolist(), record.truth.tolist(), strict=True)
            if np.isfinite(truth)
        ]
    )
    found = book.record(PRICE, "BINANCE", START_MS)
    for name in ("height", "start_ms", "value", "truth", "base"):
        assert np.array_equal(getattr(found, name), getattr(record, name), equal_nan=name in {"truth", "base"}), name
    assert len(book.record(PRICE, "BINANCE", START_MS + 30 * EPOCH_MS).height) == np.count_nonzero(
        record.start_ms >= START_MS + 30 * EPOCH_MS
    )
    assert looked_at(PRICE, book.record(VOLATILITY, "BINANCE", 0), 60) == NO_ANSWER
    book.close()
    database.disconnect()
