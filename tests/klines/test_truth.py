"""Truths: the labels on the edges of candles, bounded and as sure as they say within them, and never made up."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import HOUR_MS, MINUTE_MS, iso
from core.errors import ConfigError, MalformedKlines, StaleKlines
from core.topic import Target, Topic, Volatility
from klines.klines import PRICE_COLUMNS, Floats, Klines
from klines.truth import Truth, log_return, price_at, truth_of, volatility
from market.store.recording import load_recording
from model.heads import head_of
from model.panels import HOUR, MINUTE, Panel
from model.targets import truth as labels
from tests.fakes.clock import START_MS
from tests.fakes.klines import only, random_walk_klines

KLINES = random_walk_klines(400)
HOURS = random_walk_klines(100, HOUR_MS, seed=3)
COARSE_MS = 5 * MINUTE_MS
VENUE = "kraken"


def without(klines: Klines, *rows: int) -> Klines:
    return only(klines, np.delete(np.arange(len(klines)), rows))


def topic(target: Target, horizon_min: int, measure: Volatility = Volatility.STD) -> Topic:
    return Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=target, horizon_min=horizon_min, volatility=measure)


# On the edges.


@pytest.mark.parametrize(
    ("target", "measure"),
    [(Target.PRICE, None), (Target.LOG_RETURN, None), *((Target.VOLATILITY, measure) for measure in Volatility)],
)
@pytest.mark.parametrize(
    ("klines", "panel", "horizon_min"),
    [
        pytest.param(KLINES, MINUTE, 1, id="1m"),
        pytest.param(KLINES, MINUTE, 15, id="15m"),
        pytest.param(KLINES, MINUTE, 60, id="60m"),
        pytest.param(HOURS, HOUR, 480, id="8h"),
    ],
)
def test_on_edges_the_truth_is_the_label_in_the_topics_unit(
    klines: Klines, panel: Panel, horizon_min: int, target: Target, measure: Volatility | None
) -> None:
    """Of a price, that is the close of the candle that ends there."""
    horizon_min = max(2, horizon_min) if measure else horizon_min  # one return has no volatility
    asked = topic(target, horizon_min, measure or Volatility.STD)
    steps = panel.steps(head_of(asked))
    label = labels(klines, panel, head_of(asked)) * asked.unit
    if target is Target.PRICE:
        label = np.append(klines.close[steps:], np.full(steps, np.nan))
    known = np.flatnonzero(np.isfinite(label))
    assert len(known) == len(klines) - steps
    for row in known[::5].tolist():
        asked_ms = int(klines.open_time_ms[row]) + panel.interval_ms
        end_ms = asked_ms + horizon_min * MINUTE_MS
        truth = truth_of(asked, klines, asked_ms, VENUE)
        assert truth.value == pytest.approx(label[row], abs=1e-12 * asked.unit, rel=0)
        first_ms = (end_ms if target is Target.PRICE else asked_ms) - panel.interval_ms
        assert (truth.start_ms, truth.end_ms, truth.source) == (first_ms, end_ms, VENUE)


def test_an_edge_is_as_wide_as_from_the_close_to_the_next_open() -> None:
    at_11 = np.arange(len(KLINES)) == 11
    opened = np.where(at_11, np.roll(KLINES.close, 1) * 1.0003, KLINES.open)
    klines = replace(KLINES, open=opened, high=KLINES.high * 1.01, low=KLINES.low * 0.99)
    truth = price_at(klines, int(klines.open_time_ms[11]), VENUE)
    assert (truth.value, truth.bounds) == (klines.close[10], (klines.close[10], klines.open[11]))
    assert truth.sd == pytest.approx(truth.value * math.log(1.0003) / 3**0.5)
    newest = price_at(klines.between(0, int(klines.open_time_ms[12])), int(klines.open_time_ms[12]), VENUE)
    assert newest.bounds is None, "nothing follows yet"
    assert newest.sd == pytest.approx(newest.value * math.log(1.0003) / (3 * 11) ** 0.5), "as the 11 edges before"
    assert price_at(klines.between(0, START_MS + MINUTE_MS), START_MS + MINUTE_MS, VENUE).sd == 0


# Within candles.

moments = st.integers(START_MS + 1, KLINES.end_ms - 1)


def sigma_of(row: int) -> float:
    """Parkinson's deviation of a minute's return."""
    return math.log(KLINES.high[row] / KLINES.low[row]) / (2 * math.sqrt(math.log(2)))


@given(at_ms=moments)
def test_a_price_within_a_minute_is_on_the_line_from_open_to_close_between_low_and_high(at_ms: int) -> None:
    truth = price_at(KLINES, at_ms, VENUE)
    row, passed_ms = divmod(at_ms - 1 - START_MS, MINUTE_MS)
    share, sigma = (passed_ms + 1) / MINUTE_MS, sigma_of(row)
    assert truth.bounds
    assert KLINES.low[row] <= truth.bounds[0] <= truth.value <= truth.bounds[1] <= KLINES.high[row]
    assert truth.value == pytest.approx(KLINES.open[row] + share * (KLINES.close[row] - KLINES.open[row]))
    assert truth.sd == pytest.approx(truth.value * (share * (1 - share)) ** 0.5 * sigma)
    assert truth.sd <= 0.31 * (KLINES.high[row] - KLINES.low[row]) * 1.01
    assert truth.start_ms < at_ms <= truth.end_ms


@given(
    prices=st.lists(st.floats(1e-8, 1e8), min_size=4, max_size=4),
    after_ms=st.integers(1, MINUTE_MS),
)
def test_whatever_a_candle_is_its_price_is_in_it(prices: list[float], after_ms: int) -> None:
    low, opened, close, high = sorted(prices)
    for first, last in ((opened, close), (close, opened)):
        columns = [np.array([price]) for price in (first, high, low, last)]
        klines = replace(random_walk_klines(1), open=columns[0], high=columns[1], low=columns[2], close=columns[3])
        truth = price_at(klines, START_MS + after_ms, VENUE)
        assert min(first, last) <= truth.value <= max(first, last)
        assert math.isfinite(truth.sd)


@given(start_ms=moments, length=st.integers(1, 60 * MINUTE_MS))
def test_a_return_is_that_of_the_two_prices_and_lies_in_its_bounds(start_ms: int, length: int) -> None:
    end_ms = min(start_ms + length, KLINES.end_ms - 1)
    if end_ms == start_ms:
        return
    truth = log_return(KLINES, start_ms, end_ms, VENUE)
    start, end = price_at(KLINES, start_ms, VENUE), price_at(KLINES, end_ms, VENUE)
    assert truth.value == pytest.approx(math.log(end.value / start.value), abs=1e-15)
    assert truth.bounds
    assert truth.bounds[0] <= truth.value <= truth.bounds[1]
    row, last = ((at_ms - 1 - START_MS) // MINUTE_MS for at_ms in (start_ms, end_ms))
    if row != last:
        assert truth.sd == pytest.approx(math.hypot(start.sd / start.value, end.sd / end.value), abs=1e-15)
    else:
        between = (end_ms - start_ms) / MINUTE_MS
        assert truth.sd == pytest.approx((between * (1 - between)) ** 0.5 * sigma_of(row), rel=1e-6, abs=1e-10)


def quiet(klines: Klines, first: int, last: int) -> Klines:
    """Without a trade from one row to before another; afterwards as it was."""
    rows = np.arange(len(klines))
    still = (rows >= first) & (rows < last)
    price = float(klines.close[first - 1])
    columns = {name: np.where(still, price, getattr(klines, name)) for name in PRICE_COLUMNS}
    return replace(klines, volume=np.where(still, 0.0, klines.volume), **columns)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [1, 5, 45])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_without_a_trade_a_price_is_as_unsure_as_a_walk_since_the_last_one(length: int, share: float) -> None:
    """What the market did meanwhile is known here: the walk that the quiet was put over."""
    squares, said = [], []
    for first in range(100, 340, 3):
        klines, row = quiet(KLINES, first, first + length), first + length - 1
        at_ms = int(klines.open_time_ms[row]) + round(share * MINUTE_MS)
        truth, true = price_at(klines, at_ms, VENUE), price_at(KLINES, at_ms, VENUE)
        assert (truth.value, truth.bounds) == (klines.close[first - 1], None)
        squares.append(math.log(true.value / truth.value) ** 2 + (true.sd / true.value) ** 2)
        said.append((truth.sd / truth.value) ** 2)
    assert 0.7 < math.sqrt(np.mean(squares) / np.mean(said)) < 1.4
    after = int(klines.open_time_ms[first + length]) + MINUTE_MS
    assert price_at(klines, after, VENUE) == price_at(KLINES, after, VENUE)
    unsure = price_at(klines, at_ms, VENUE)
    assert log_return(klines, at_ms, after, VENUE).sd >= (1 - 1e-9) * unsure.sd / unsure.value


def test_two_moments_without_a_trade_between_go_together_until_the_first() -> None:
    klines = quiet(KLINES, 100, 140)
    start_ms, end_ms = (int(klines.open_time_ms[row]) + MINUTE_MS // 4 for row in (110, 119))
    once, later = (price_at(klines, at_ms, VENUE) for at_ms in (start_ms, end_ms))
    between = log_return(klines, start_ms, end_ms, VENUE)
    assert between.value == 0
    assert between.sd**2 == pytest.approx((later.sd**2 - once.sd**2) / once.value**2)


def test_without_any_volume_nothing_is_made_up() -> None:
    """Some venues' candles have none; and a market may never have traded."""
    silent = replace(KLINES, volume=np.zeros(len(KLINES)))
    for at_ms in (int(KLINES.open_time_ms[200]) + MINUTE_MS // 3, int(KLINES.open_time_ms[200])):
        assert price_at(silent, at_ms, VENUE) == price_at(KLINES, at_ms, VENUE)
    still = quiet(KLINES, 1, len(KLINES)).rows(1, len(KLINES))
    assert price_at(still, still.end_ms - 7_000, VENUE).sd == 0


@pytest.mark.parametrize("count", [2, 3, 15])
@pytest.mark.parametrize("measure", [Volatility.STD, Volatility.RMS])
def test_the_volatility_of_bridges_is_what_draws_of_them_give(count: int, measure: Volatility) -> None:
    """Prices within candles are drawn, of the variance that the candles tell: mean and spread of the sum of squares."""
    share, rng = 0.3, np.random.default_rng(5)
    start_ms = START_MS + round(share * MINUTE_MS)
    klines = KLINES.between(START_MS, START_MS + (count + 1) * MINUTE_MS)
    line = np.log(klines.open + share * (klines.close - klines.open))
    deviation = (share * (1 - share) / (4 * math.log(2))) ** 0.5 * np.log(klines.high / klines.low)
    returns = np.diff(line + deviation * rng.standard_normal((200_000, count + 1)), axis=1)
    drawn: Floats = (returns**2).mean(axis=1) if measure.about_zero else returns.var(axis=1, ddof=1)
    truth = volatility(klines, start_ms, start_ms + count * MINUTE_MS, VENUE, measure)
    assert truth.value**2 == pytest.approx(drawn.mean(), rel=0.01)
    assert 2 * truth.value * truth.sd == pytest.approx(drawn.std(), rel=0.02)


def test_a_volatility_on_edges_is_as_sure_as_they_are_narrow() -> None:
    price = np.full(len(KLINES), 7.0)
    flat = replace(KLINES, open=price, high=price, low=price, close=price)
    jumpy = replace(KLINES, open=np.sqrt(KLINES.open * KLINES.high), high=KLINES.high * 1.001)
    still, usual, wide = (
        volatility(klines, START_MS + MINUTE_MS, START_MS + 6 * MINUTE_MS, VENUE, Volatility.STD)
        for klines in (flat, KLINES, jumpy)
    )
    assert (still.value, still.sd, usual.sd) == (0.0, 0.0, 0.0)
    assert wide.sd > 0


# What cannot be told.

ASKS: dict[str, Callable[[Klines, int], Truth]] = {
    "price": lambda klines, at_ms: price_at(klines, at_ms, VENUE),
    "return": lambda klines, at_ms: log_return(klines, at_ms - 5 * MINUTE_MS, at_ms, VENUE),
    "volatility": lambda klines, at_ms: volatility(klines, at_ms - 5 * MINUTE_MS, at_ms, VENUE, Volatility.STD),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
@pytest.mark.parametrize("within_ms", [1, 30_000, MINUTE_MS])
@pytest.mark.parametrize(
    ("klines", "reason"),
    [
        pytest.param(without(KLINES, 50), "is missing", id="a missing minute"),
        pytest.param(KLINES.rows(0, 50), "has not closed yet", id="a minute that has not closed"),
    ],
)
def test_without_its_minute_a_truth_is_refused_with_the_moment_and_the_venue(
    ask: Callable[[Klines, int], Truth], within_ms: int, klines: Klines, reason: str
) -> None:
    at_ms = START_MS + 50 * MINUTE_MS + within_ms
    assert ask(KLINES.rows(0, 51), at_ms).end_ms == START_MS + 51 * MINUTE_MS
    with pytest.raises(StaleKlines, match=reason) as caught:
        ask(klines, at_ms)
    assert all(name in str(caught.value) for name in (VENUE, iso(at_ms), iso(START_MS + 50 * MINUTE_MS)))


def test_before_the_klines_or_without_any_there_is_no_truth() -> None:
    for klines, reason in ((KLINES, "is missing"), (Klines.empty(MINUTE_MS), "there are no candles")):
        with pytest.raises(StaleKlines, match=reason):
            price_at(klines, START_MS, VENUE)


@given(hole=st.integers(0, 15), share=st.integers(0, MINUTE_MS - 1), measure=st.sampled_from(Volatility))
def test_a_volatility_needs_each_minute_of_its_span_and_no_other(hole: int, share: int, measure: Volatility) -> None:
    start_ms = START_MS + 100 * MINUTE_MS + share
    end_ms = start_ms + 15 * MINUTE_MS
    first = (start_ms - 1 - START_MS) // MINUTE_MS
    with pytest.raises(StaleKlines, match="is missing"):
        volatility(without(KLINES, first + hole), start_ms, end_ms, VENUE, measure)
    truth = volatility(without(KLINES, first - 1, first + 16), start_ms, end_ms, VENUE, measure)
    assert 0.1 * 6e-4 < truth.value / measure.factor(15) < 4 * 6e-4
    assert 0 <= truth.sd < 2 * truth.value


def test_a_return_needs_the_candles_at_its_ends_alone() -> None:
    start_ms, end_ms = START_MS + 10 * MINUTE_MS, START_MS + 20 * MINUTE_MS
    whole = log_return(KLINES, start_ms, end_ms, VENUE)
    assert log_return(without(KLINES, 14, 15), start_ms, end_ms, VENUE) == whole


def test_questions_without_an_answer_are_refused() -> None:
    start_ms = START_MS + 10 * MINUTE_MS
    with pytest.raises(ConfigError, match="after the start"):
        log_return(KLINES, start_ms, start_ms, VENUE)
    with pytest.raises(ConfigError, match="after the start"):
        volatility(KLINES, start_ms, start_ms - MINUTE_MS, VENUE, Volatility.STD)
    with pytest.raises(ConfigError, match="needs 2 returns"):
        volatility(KLINES, start_ms, start_ms + MINUTE_MS, VENUE, Volatility.STD)
    assert volatility(KLINES, start_ms, start_ms + MINUTE_MS, VENUE, Volatility.RMS).value > 0
    with pytest.raises(MalformedKlines, match="multiple"):
        volatility(HOURS, START_MS + HOUR_MS, START_MS + HOUR_MS + 90 * MINUTE_MS, VENUE, Volatility.STD)


@pytest.mark.parametrize("value", [math.nan, math.inf, 3.0])
def test_a_truth_cannot_be_wrong(value: float) -> None:
    with pytest.raises(MalformedKlines, match=VENUE):
        Truth(value=value, bounds=(1.0, 2.0), sd=0.1, source=VENUE, start_ms=0, end_ms=MINUTE_MS)


# How sure, on real candles of five minutes, against the minutes inside them.


@pytest.fixture(scope="module", params=["BTCUSDT", "ETHUSDT"])
def minutes(request: pytest.FixtureRequest, shared_data: Path) -> Klines:
    """Four weeks."""
    symbol = str(request.param)
    return load_recording(shared_data / "spot", [symbol])[symbol, MINUTE_MS].tail(28 * 1440)


@pytest.mark.parametrize("minute", [1, 2, 3, 4])
def test_prices_within_real_candles_err_as_they_say(minutes: Klines, minute: int) -> None:
    coarse = minutes.resample(COARSE_MS)
    errors, sds, out = [], [], 0
    for row in range(len(coarse)):
        at_ms = int(coarse.open_time_ms[row]) + minute * MINUTE_MS
        truth, fine = price_at(coarse, at_ms, VENUE), price_at(minutes, at_ms, VENUE)
        errors.append((fine.value - truth.value) / truth.value)
        sds.append(truth.sd / truth.value)
        assert truth.bounds
        out += not truth.bounds[0] <= fine.value <= truth.bounds[1]
    assert out == 0, "bounds that the klines prove"
    error, sd = np.array(errors), np.array(sds)
    assert 0.9 < np.sqrt((error**2).mean() / (sd**2).mean()) < 1.2
    within = np.mean(np.abs(error) <= sd)
    assert 0.5 < within < 0.75  # of a normal one 0.68; the tails are longer


@pytest.mark.parametrize("returns", [5, 15])
def test_volatilities_from_within_real_candles_err_as_they_say_and_less_than_whole_ones(
    minutes: Klines, returns: int
) -> None:
    coarse, shift_ms = minutes.resample(COARSE_MS), 2 * MINUTE_MS
    fine = np.log(minutes.close)
    first = int(minutes.open_time_ms[0])
    came, truths, floors = [], [], []
    for row in range(1, len(coarse) - returns - 1, returns):
        edge_ms = int(coarse.open_time_ms[row])
        start_ms, span_ms = edge_ms + shift_ms, returns * COARSE_MS
        at = (start_ms - first) // MINUTE_MS - 1 + 5 * np.arange(returns + 1)
        came.append(math.sqrt((np.diff(fine[at]) ** 2).mean() / 5))
        truths.append(volatility(coarse, start_ms, start_ms + span_ms, VENUE, Volatility.RMS))
        floors.append(volatility(coarse, edge_ms, edge_ms + span_ms, VENUE, Volatility.RMS).value)
    value, sd, floor, true = (np.array(x) for x in ([t.value for t in truths], [t.sd for t in truths], floors, came))
    assert 0.8 < np.sqrt((((true - value) / sd) ** 2).mean()) < 1.3
    assert np.log(value / true).std() < 0.85 * np.log(floor / true).std()
    assert abs((value**2).mean() / (true**2).mean() - 1) < 0.15
