"""Truths: the labels on the edges of candles, bounded and as sure as they say within them, and never made up."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import ConfigError, MalformedKlines, StaleKlines
from core.topic import Target, Topic, Volatility
from klines.klines import COLUMNS, PRICE_COLUMNS, Floats, Klines
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
HALT_MS = 1_679_616_000_000  # 2023-03-24


def without(klines: Klines, *rows: int) -> Klines:
    return only(klines, np.delete(np.arange(len(klines)), rows))


def topic(target: Target, horizon_min: int, measure: Volatility = Volatility.STD) -> Topic:
    return Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=target, horizon_min=horizon_min, volatility=measure)


# On the edges.


@pytest.mark.parametrize("horizon_min", [5, 60])
def test_a_price_on_an_edge_is_the_close_of_the_candle_that_ends_there(horizon_min: int) -> None:
    for row in range(0, len(KLINES) - horizon_min, 7):
        asked_ms = int(KLINES.open_time_ms[row]) + MINUTE_MS
        end_ms = asked_ms + horizon_min * MINUTE_MS
        truth = truth_of(topic(Target.PRICE, horizon_min), KLINES, asked_ms, VENUE)
        assert truth.value == KLINES.close[row + horizon_min]
        assert (truth.start_ms, truth.end_ms, truth.source) == (end_ms - MINUTE_MS, end_ms, VENUE)


@pytest.mark.parametrize("measure", [None, *Volatility])
@pytest.mark.parametrize(
    ("klines", "panel", "horizon_min"),
    [
        pytest.param(KLINES, MINUTE, 1, id="1m"),
        pytest.param(KLINES, MINUTE, 15, id="15m"),
        pytest.param(KLINES, MINUTE, 60, id="60m"),
        pytest.param(HOURS, HOUR, 480, id="8h"),
    ],
)
def test_between_edges_the_truth_is_the_label_in_the_topics_unit(
    klines: Klines, panel: Panel, horizon_min: int, measure: Volatility | None
) -> None:
    """Of a return, or of a volatility by any measure."""
    horizon_min = max(2, horizon_min) if measure else horizon_min  # one return has no volatility
    asked = topic(Target.VOLATILITY, horizon_min, measure) if measure else topic(Target.LOG_RETURN, horizon_min)
    label = labels(klines, panel, head_of(asked)) * asked.unit
    known = np.flatnonzero(np.isfinite(label))
    assert len(known) == len(klines) - panel.steps(head_of(asked))
    for row in known[::5].tolist():
        asked_ms = int(klines.open_time_ms[row]) + panel.interval_ms
        truth = truth_of(asked, klines, asked_ms, VENUE)
        assert truth.value == pytest.approx(label[row], abs=1e-12 * asked.unit, rel=0)
        assert (truth.start_ms, truth.end_ms) == (asked_ms - panel.interval_ms, asked_ms + horizon_min * MINUTE_MS)


def test_on_real_minutes_truths_are_the_labels(shared_data: Path) -> None:
    """BTC of three stretches with a hole in one of them: a volatility that has no label is no truth either."""
    klines = load_recording(shared_data / "spot", ["BTCUSDT"])["BTCUSDT", MINUTE_MS].between(0, START_MS)
    for asked in (
        topic(Target.LOG_RETURN, 20),
        topic(Target.VOLATILITY, 15),
        topic(Target.VOLATILITY, 30, Volatility.RMS),
    ):
        label = labels(klines, MINUTE, head_of(asked))
        holes = np.flatnonzero(np.diff(klines.open_time_ms) != MINUTE_MS)
        assert len(holes)
        rows = np.concatenate([np.arange(500, len(klines) - 60, 997), *(hole + np.arange(-40, 40) for hole in holes)])
        for row in rows.tolist():
            asked_ms = int(klines.open_time_ms[row]) + MINUTE_MS
            if np.isfinite(label[row]):
                assert truth_of(asked, klines, asked_ms, VENUE).value == pytest.approx(label[row], abs=1e-12, rel=0)
            elif asked.target is Target.VOLATILITY:
                with pytest.raises(StaleKlines):
                    truth_of(asked, klines, asked_ms, VENUE)


def test_an_edge_is_as_wide_as_from_the_close_to_the_next_open() -> None:
    columns = {name: getattr(KLINES, name).copy() for name in ("open_time_ms", *COLUMNS)}
    columns["open"][11] = KLINES.close[10] * 1.0003
    columns["high"][11], columns["low"][11] = KLINES.high[11] * 1.01, KLINES.low[11] * 0.99
    klines = Klines(interval_ms=MINUTE_MS, **columns)
    truth = price_at(klines, int(klines.open_time_ms[11]), VENUE)
    assert (truth.value, truth.bounds) == (klines.close[10], (klines.close[10], klines.open[11]))
    assert truth.sd == pytest.approx(truth.value * math.log(1.0003) / 3**0.5)
    newest = price_at(klines.between(0, int(klines.open_time_ms[12])), int(klines.open_time_ms[12]), VENUE)
    assert newest.bounds is None, "nothing follows yet"
    assert newest.sd == pytest.approx(newest.value * math.log(1.0003) / (3 * 11) ** 0.5), "as the 11 edges before"
    assert price_at(klines.between(0, START_MS + MINUTE_MS), START_MS + MINUTE_MS, VENUE).sd == 0


# Within candles.

moments = st.integers(START_MS + 1, KLINES.end_ms - 1)


@given(at_ms=moments)
def test_a_price_lies_between_low_and_high_of_its_minute(at_ms: int) -> None:
    truth = price_at(KLINES, at_ms, VENUE)
    row = (at_ms - 1 - START_MS) // MINUTE_MS
    assert truth.bounds
    assert KLINES.low[row] <= truth.bounds[0] <= truth.value <= truth.bounds[1] <= KLINES.high[row]
    assert 0 <= truth.sd <= 0.31 * (KLINES.high[row] - KLINES.low[row]) * 1.01
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


def test_a_price_within_a_minute_is_on_the_line_from_open_to_close() -> None:
    for share in (0.25, 0.5, 0.9):
        truth = price_at(KLINES, START_MS + 7 * MINUTE_MS + round(share * MINUTE_MS), VENUE)
        assert truth.value == pytest.approx(KLINES.open[7] + share * (KLINES.close[7] - KLINES.open[7]))
        sigma = math.log(KLINES.high[7] / KLINES.low[7]) / (2 * math.log(2) ** 0.5)
        assert truth.sd == pytest.approx(truth.value * (share * (1 - share)) ** 0.5 * sigma)


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
        sigma = math.log(KLINES.high[row] / KLINES.low[row]) / (2 * math.log(2) ** 0.5)
        assert truth.sd == pytest.approx((between * (1 - between)) ** 0.5 * sigma, rel=1e-6, abs=1e-10)


def test_two_moments_of_one_candle_err_together() -> None:
    """A millisecond apart the price is nearly the same one, however little is known of it."""
    middle_ms = START_MS + MINUTE_MS // 2
    near = log_return(KLINES, middle_ms, middle_ms + 1, VENUE)
    assert near.sd < 0.02 * price_at(KLINES, middle_ms, VENUE).sd / KLINES.close[0]


@given(
    rows=st.integers(0, 300),
    share=st.integers(1, MINUTE_MS - 1),
    count=st.integers(2, 60),
    measure=st.sampled_from(Volatility),
)
def test_a_volatility_within_minutes_is_finite_and_near_both_neighbours(
    rows: int, share: int, count: int, measure: Volatility
) -> None:
    start_ms = START_MS + rows * MINUTE_MS + share
    truth = volatility(KLINES, start_ms, start_ms + count * MINUTE_MS, VENUE, measure)
    assert truth.value > 0
    assert 0 < truth.sd < 2 * truth.value
    unit = measure.factor(count)
    assert 0.1 * 6e-4 < truth.value / unit < 4 * 6e-4


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


def test_a_venue_that_tells_no_volume_says_nothing_by_it() -> None:
    """Some venues' candles have none."""
    silent = replace(KLINES, volume=np.zeros(len(KLINES)))
    for at_ms in (int(KLINES.open_time_ms[200]) + MINUTE_MS // 3, int(KLINES.open_time_ms[200])):
        assert price_at(silent, at_ms, VENUE) == price_at(KLINES, at_ms, VENUE)


def test_the_genuine_halt_leaves_its_prices_open(shared_data: Path) -> None:
    """Binance, 2023-03-24: minutes without a trade before none was told at all."""
    klines = load_recording(shared_data / "spot", ["BTCUSDT"])["BTCUSDT", MINUTE_MS].between(HALT_MS, HALT_MS + DAY_MS)
    still = np.flatnonzero(klines.volume == 0)
    assert len(still)
    for row in still.tolist():
        truth = price_at(klines, int(klines.open_time_ms[row]) + MINUTE_MS // 2, VENUE)
        assert truth.sd > 1e-4 * truth.value


def test_where_nothing_was_ever_traded_nothing_is_made_up() -> None:
    still = quiet(KLINES, 1, len(KLINES)).between(int(KLINES.open_time_ms[1]), 2**62)
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
    still = volatility(flat, START_MS + MINUTE_MS, START_MS + 6 * MINUTE_MS, VENUE, Volatility.STD)
    assert (still.value, still.sd) == (0.0, 0.0)
    assert volatility(KLINES, START_MS + MINUTE_MS, START_MS + 6 * MINUTE_MS, VENUE, Volatility.STD).sd == 0
    jumpy = replace(KLINES, open=np.sqrt(KLINES.open * KLINES.high), high=KLINES.high * 1.001)
    assert volatility(jumpy, START_MS + MINUTE_MS, START_MS + 6 * MINUTE_MS, VENUE, Volatility.STD).sd > 0


# What cannot be told.

ASKS: dict[str, Callable[[Klines, int], Truth]] = {
    "price": lambda klines, at_ms: price_at(klines, at_ms, VENUE),
    "return": lambda klines, at_ms: log_return(klines, at_ms - 5 * MINUTE_MS, at_ms, VENUE),
    "volatility": lambda klines, at_ms: volatility(klines, at_ms - 5 * MINUTE_MS, at_ms, VENUE, Volatility.STD),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
@pytest.mark.parametrize("within_ms", [1, 30_000, MINUTE_MS])
def test_a_missing_minute_raises_with_the_moment_and_the_venue(
    ask: Callable[[Klines, int], Truth], within_ms: int
) -> None:
    at_ms = START_MS + 50 * MINUTE_MS + within_ms
    ask(KLINES, at_ms)
    with pytest.raises(StaleKlines, match="is missing") as caught:
        ask(without(KLINES, 50), at_ms)
    assert VENUE in str(caught.value)
    assert iso(at_ms) in str(caught.value)
    assert iso(START_MS + 50 * MINUTE_MS) in str(caught.value)


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_a_minute_that_has_not_closed_raises(ask: Callable[[Klines, int], Truth]) -> None:
    at_ms = START_MS + 50 * MINUTE_MS + 20_000
    with pytest.raises(StaleKlines, match="has not closed yet") as caught:
        ask(KLINES.closed(at_ms), at_ms)
    assert VENUE in str(caught.value)
    assert iso(at_ms) in str(caught.value)
    assert ask(KLINES.closed(START_MS + 51 * MINUTE_MS), at_ms).end_ms == START_MS + 51 * MINUTE_MS


@given(hole=st.integers(0, 15), share=st.integers(0, MINUTE_MS - 1))
def test_any_missing_minute_of_a_span_leaves_no_volatility(hole: int, share: int) -> None:
    start_ms = START_MS + 100 * MINUTE_MS + share
    end_ms = start_ms + 15 * MINUTE_MS
    first = (start_ms - 1 - START_MS) // MINUTE_MS
    with pytest.raises(StaleKlines, match="is missing"):
        volatility(without(KLINES, first + hole), start_ms, end_ms, VENUE, Volatility.RMS)
    assert volatility(without(KLINES, first - 1, first + 16), start_ms, end_ms, VENUE, Volatility.RMS).value > 0


def test_a_return_needs_the_candles_at_its_ends_alone() -> None:
    start_ms, end_ms = START_MS + 10 * MINUTE_MS, START_MS + 20 * MINUTE_MS
    whole = log_return(KLINES, start_ms, end_ms, VENUE)
    assert log_return(without(KLINES, 14, 15), start_ms, end_ms, VENUE) == whole


def test_what_was_before_the_klines_or_where_there_are_none_raises() -> None:
    with pytest.raises(StaleKlines, match="is missing"):
        price_at(KLINES, START_MS, VENUE)
    with pytest.raises(StaleKlines, match="there are no candles"):
        price_at(Klines.empty(MINUTE_MS), START_MS, VENUE)


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
