"""What came true of a past question, read from one venue's klines, and how sure that is.

A question may ask about a moment within a candle, and a candle keeps only four prices. So every truth has an ``sd``:
the error from not knowing the price at that moment. It also names its venue, because ``sd`` leaves out the difference
between venues (``market.price_ratio`` measures that). On the edges of candles a truth is the label that the networks
are trained on.

Within a candle the price is that of a Brownian bridge from open to close. On 90 days of BTC and ETH in five-minute
candles, against the minutes inside them, the errors are 0.97 to 1.12 times ``sd`` (root mean square; tests hold it).

A candle without a trade (a halt, or a thin market) repeats the last price and says nothing of the market. The price has
then gone on as a random walk since the last trade, with the variance of the candles that had a trade.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from core.clock import MINUTE_MS, iso
from core.errors import ConfigError, MalformedKlines, StaleKlines
from core.topic import Target, Topic, Volatility
from klines.klines import Floats, Klines
from klines.returns import volatility as per_minute_volatility

PARKINSON = 4 * math.log(2)  # mean square of ln(high / low) over the variance of a random walk; J. Business 53(1), 1980
EDGE = 3.0  # the mean square distance from one end of a gap to a price in it is a third of the gap's square
EDGE_ROWS = 60  # candles whose edges estimate the newest candle's, which nothing follows yet
TRADED_ROWS = 240  # candles whose ranges estimate how far the price goes in a candle without a trade

Bounds = tuple[float, float]  # the lowest and the highest value that the klines prove for their venue


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The true value of a past question, in the unit of the question."""

    value: float
    bounds: Bounds | None
    sd: float  # standard error from not knowing the price at the moment; same unit
    source: str  # venue of the klines
    start_ms: int  # span of the klines that were read, end excluded
    end_ms: int

    def __post_init__(self) -> None:
        low, high = self.bounds or (self.value, self.value)
        if not (math.isfinite(self.value) and 0 <= self.sd < math.inf and low <= self.value <= high):
            raise MalformedKlines(
                f"{self.source}: a truth must be finite and within {self.bounds}, was {self.value} with sd {self.sd}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    """A price at a moment."""

    row: int  # of the candle that holds the moment
    share: float  # of the candle's time that has passed: above 0, and 1 at the edge where it ends
    price: float
    bounds: Bounds | None
    variance: float  # of ln(price)
    quiet_since_ms: int | None = None  # in a candle without a trade: end of the last candle with a trade


def price_at(klines: Klines, at_ms: int, source: str) -> Truth:
    """Return the price at a moment, in quote currency.

    On an edge the value is the close of the candle that ends there. The bounds are this close and the next open, and
    ``sd`` is the gap between them over the square root of 3; without a next candle there are no bounds, and ``sd`` is
    that of the edges before. Within a candle the value is on the straight line from open to close, the bounds are low
    and high, and ``sd`` is the bridge's: ``sqrt(f (1 - f))`` times the deviation that follows from the candle's range
    (Parkinson), 0.3 of the range at most. A candle without a trade has no bounds, and the ``sd`` of a random walk.

    Args:
        klines: closed klines; a missing kline is never made up.
        at_ms: any moment of the past.
        source: name of their venue.
    Raises:
        StaleKlines: the candle that holds the moment is missing or has not closed; says which, and the venue.
    """
    moment = _moment(klines, at_ms, source)
    sd = moment.price * math.sqrt(moment.variance)
    return _truth(klines, moment.row, moment.row, source, moment.price, sd, moment.bounds)


def log_return(klines: Klines, start_ms: int, end_ms: int, source: str) -> Truth:
    """Return ``ln(price at the end / price at the start)``, unitless; only the candles at both ends must be there.

    Raises:
        StaleKlines: as ``price_at``.
        ConfigError: the end is not after the start.
    """
    _require_order(start_ms, end_ms)
    start, end = (_moment(klines, at_ms, source) for at_ms in (start_ms, end_ms))
    shared = 0.0  # of the two moments' errors
    if start.quiet_since_ms is not None and start.quiet_since_ms == end.quiet_since_ms:
        shared = start.variance  # the same walk up to the start
    elif start.row == end.row:
        shared = _bridge_covariance(klines, start.row, start.share, end.share)
    sd = math.sqrt(max(0.0, start.variance + end.variance - 2 * shared))
    value, bounds = math.log(end.price / start.price), None
    if start.bounds and end.bounds:
        low, high = math.log(end.bounds[0] / start.bounds[1]), math.log(end.bounds[1] / start.bounds[0])
        bounds = min(value, low), max(value, high)  # a logarithm's last bit must not exclude the value
    return _truth(klines, start.row, end.row, source, value, sd, bounds)


def volatility(klines: Klines, start_ms: int, end_ms: int, source: str, measure: Volatility) -> Truth:
    """Return the volatility of one-candle log-returns, counted from the start, in the measure's unit; no bounds.

    On edges the value is the label. A start within a candle needs prices within candles. Prices on the straight lines
    from open to close would have too small returns (half the variance at half a minute), so the mean square that the
    bridges add is added: given the candles, that is the expectation. On five-minute candles of BTC against the minutes
    inside, 90 days, five returns, 40 % into a candle, this errs by 0.32 (standard deviation of the logarithm), whole
    candles with shares of the first and the last by 0.38, candles from the edge before by 0.40; 60 returns: 0.11, 0.13
    and 0.13. ``sd`` follows from the same bridges, to first order; the errors were 1.1 times as large.

    Args:
        start_ms, end_ms: whole candles apart; at least two for a measure about the mean.
    Raises:
        StaleKlines: as ``price_at``, for any candle between the two.
        ConfigError: the end is not after the start, or the horizon has too few returns.
        MalformedKlines: the horizon is not a multiple of the candles' interval.
    """
    _require_order(start_ms, end_ms)
    interval_ms = klines.interval_ms
    count, rest = divmod(end_ms - start_ms, interval_ms)
    if rest:
        raise MalformedKlines(
            f"{source}: candles of {interval_ms} ms cannot tell the volatility of {end_ms - start_ms} ms: "
            "it must be a multiple"
        )
    about_mean = not measure.about_zero
    if count == about_mean:
        raise ConfigError(f"a {measure.value} needs 2 returns or more, {iso(start_ms)} to {iso(end_ms)} has 1")
    first, share, prices, variance = _traded_prices(klines, start_ms, count + 1, source)
    returns, apart = np.diff(np.log(prices)), 0.0
    if about_mean:
        returns, apart = returns - returns.mean(), 1 / count
    # The sum of squares is x' A x, x being logarithms of prices. A is -1 beside its diagonal, and has ``apart`` in two
    # corners: Seber and Lee, Linear Regression Analysis, 2nd ed., 1.5 and 1.6.
    diagonal = np.full(count + 1, 2.0)
    diagonal[[0, -1]] = 1 - apart
    slopes = np.zeros(count + 1)
    slopes[:-1] -= 2 * returns
    slopes[1:] += 2 * returns
    squares, added = float(returns @ returns), float(variance @ diagonal)
    beside = variance[:-1] @ variance[1:] + apart**2 * variance[0] * variance[-1]
    error = math.sqrt(variance @ slopes**2 + 2 * (((diagonal * variance) ** 2).sum() + 2 * beside))

    def in_unit(total: float) -> float:
        per_minute = per_minute_volatility(total, count, interval_ms, about_mean=about_mean)
        return measure.factor(count * interval_ms // MINUTE_MS) * float(per_minute)

    expected = squares + added
    value = in_unit(squares if share == 1 else expected)
    sd = in_unit(expected) * error / (2 * expected) if expected > 0 else 0.0
    return _truth(klines, first, first + count, source, value, sd)


def truth_of(topic: Topic, klines: Klines, asked_ms: int, source: str) -> Truth:
    """Return the truth of a topic that was asked at ``asked_ms``; raises as the function of the topic's target."""
    end_ms = asked_ms + topic.horizon_ms
    if topic.target is Target.PRICE:
        return price_at(klines, end_ms, source)
    if topic.target is Target.LOG_RETURN:
        return log_return(klines, asked_ms, end_ms, source)
    return volatility(klines, asked_ms, end_ms, source, topic.volatility)


def _truth(
    klines: Klines, first: int, last: int, source: str, value: float, sd: float, bounds: Bounds | None = None
) -> Truth:
    start_ms, last_ms = (int(klines.open_time_ms[row]) for row in (first, last))
    end_ms = last_ms + klines.interval_ms
    return Truth(value=value, bounds=bounds, sd=sd, source=source, start_ms=start_ms, end_ms=end_ms)


def _require_order(start_ms: int, end_ms: int) -> None:
    if end_ms <= start_ms:
        raise ConfigError(f"the end must be after the start, was {iso(end_ms)} after {iso(start_ms)}")


def _moment(klines: Klines, at_ms: int, source: str) -> _Moment:
    """Return the price at a moment; in a candle without a trade, that of a random walk since the last trade.

    Without an earlier trade, the walk begins at the first candle, and later candles estimate its variance. A venue
    without any volume does not publish it, so that a candle of 0 proves nothing.
    """
    moment = _traded_moment(klines, at_ms, source)
    row = moment.row
    is_still = klines.volume[row] == 0 and klines.low[row] == klines.high[row]
    traded = np.flatnonzero(klines.volume > 0) if is_still else np.empty(0, np.intp)
    if not len(traded):
        return moment
    before = traded[traded < row][-TRADED_ROWS:]
    known = before if len(before) else traded[:TRADED_ROWS]
    since_ms = int(klines.open_time_ms[before[-1]]) + klines.interval_ms if len(before) else int(klines.open_time_ms[0])
    a_candle = float(np.mean(np.log(klines.high[known] / klines.low[known]) ** 2)) / PARKINSON
    variance = a_candle * (at_ms - since_ms) / klines.interval_ms
    return replace(moment, bounds=None, variance=variance, quiet_since_ms=since_ms)


def _traded_moment(klines: Klines, at_ms: int, source: str) -> _Moment:
    """Return the price at a moment as if its candle had trades."""
    row = _row_of(klines, at_ms, source)
    opened, close = float(klines.open[row]), float(klines.close[row])
    share = (at_ms - int(klines.open_time_ms[row])) / klines.interval_ms
    if share < 1:
        _, price, _ = sorted((opened, opened + share * (close - opened), close))  # rounding must not leave the span
        bounds = float(klines.low[row]), float(klines.high[row])
        variance = _bridge_covariance(klines, row, share, share)
        return _Moment(row=row, share=share, price=price, bounds=bounds, variance=variance)
    after = _next_open(klines, row)
    edge = None if after is None else (min(close, after), max(close, after))
    return _Moment(row=row, share=share, price=close, bounds=edge, variance=_edge_variance(klines, row))


def _traded_prices(klines: Klines, start_ms: int, many: int, source: str) -> tuple[int, float, Floats, Floats]:
    """Return what ``_traded_moment`` would for moments a candle apart, all at once: a day of minutes has 1441.

    Returns:
        row and share of the first moment; ``(many,)`` prices; ``(many,)`` variances of their logarithms.
    """
    interval_ms, first = klines.interval_ms, _row_of(klines, start_ms, source)
    if _row_of(klines, start_ms + (many - 1) * interval_ms, source) != first + many - 1:
        for moment_ms in range(start_ms, start_ms + many * interval_ms, interval_ms):
            _row_of(klines, moment_ms, source)  # raises for the first that is missing
    rows = slice(first, first + many)
    opened, close = klines.open[rows], klines.close[rows]
    share = (start_ms - int(klines.open_time_ms[first])) / interval_ms
    if share < 1:  # rounding must not leave the span
        prices = np.clip(opened + share * (close - opened), np.minimum(opened, close), np.maximum(opened, close))
        return first, share, prices, share * (1 - share) * np.log(klines.high[rows] / klines.low[rows]) ** 2 / PARKINSON
    variance = np.empty(many)
    variance[:-1] = np.log(opened[1:] / close[:-1]) ** 2 / EDGE
    variance[-1] = _edge_variance(klines, first + many - 1)
    return first, share, close, variance


def _row_of(klines: Klines, at_ms: int, source: str) -> int:
    """Return the row of the candle that a moment is in; an edge belongs to the candle that ends there."""
    opened_ms = (at_ms - 1) // klines.interval_ms * klines.interval_ms
    row = int(np.searchsorted(klines.open_time_ms, opened_ms))
    if row < len(klines) and int(klines.open_time_ms[row]) == opened_ms:
        return row
    candle = f"the candle of {iso(opened_ms)} to {iso(opened_ms + klines.interval_ms)}"
    what = f"{source}: {candle}, which says the price at {iso(at_ms)},"
    if row == len(klines):
        newest = f"the newest ends at {iso(klines.end_ms)}" if len(klines) else "there are no candles"
        raise StaleKlines(f"{what} has not closed yet or was not fetched: {newest}; ask again when it is there")
    raise StaleKlines(f"{what} is missing; fetch it again, or ask another venue")


def _next_open(klines: Klines, row: int) -> float | None:
    """Return the open of the candle after a row; None if that candle is missing or has not closed."""
    follows = row + 1 < len(klines) and klines.open_time_ms[row + 1] - klines.open_time_ms[row] == klines.interval_ms
    return float(klines.open[row + 1]) if follows else None


def _bridge_covariance(klines: Klines, row: int, first: float, last: float) -> float:
    """Return the covariance of ln(price) at two shares of a candle's time, given its open and close."""
    return first * (1 - last) * math.log(klines.high[row] / klines.low[row]) ** 2 / PARKINSON


def _edge_variance(klines: Klines, row: int) -> float:
    """Return the variance of ln(price) at the end of a candle: the price is between its close and the next open."""
    if (after := _next_open(klines, row)) is not None:
        return math.log(after / klines.close[row]) ** 2 / EDGE
    first = max(0, row - EDGE_ROWS)
    gaps = np.log(klines.open[first + 1 : row + 1] / klines.close[first:row])
    gaps = gaps[np.diff(klines.open_time_ms[first : row + 1]) == klines.interval_ms]
    return float(np.mean(gaps**2)) / EDGE if len(gaps) else 0.0
