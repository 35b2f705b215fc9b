"""What came true of a past question, read from one venue's klines, and how sure that is.

A question may ask about a moment within a candle, of which the candle keeps four prices, and a scorer may read another
venue. So every truth names its venue, and its ``sd`` is the error from not knowing the price at the moment. The
difference between venues is not in it (``market.price_ratio`` measures that). On the edges of candles a truth is the
label that the networks are trained on.

Within a candle the price is that of a Brownian bridge from open to close. On 90 days of BTC and ETH in five-minute
candles, against the minutes inside them, the errors are 0.97 to 1.12 times ``sd`` (root mean square; tests hold it).

A candle without a trade (a halt, or a thin market) repeats the last price and says nothing of the market. The price has
then gone on as a random walk since the last trade, with the variance of the candles that had a trade.
"""

import math
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The true value of a past question, in the unit of the question."""

    value: float
    low: float | None  # bounds that the klines prove for their venue, or None
    high: float | None
    sd: float  # standard error from not knowing the price at the moment; same unit
    source: str  # venue of the klines
    start_ms: int  # span of the klines that were read, end excluded
    end_ms: int

    def __post_init__(self) -> None:
        lowest, highest = (self.value if bound is None else bound for bound in (self.low, self.high))
        if not (math.isfinite(self.value) and math.isfinite(self.sd) and self.sd >= 0):
            raise MalformedKlines(f"{self.source}: a truth must be finite, was {self.value} with sd {self.sd}")
        if not lowest <= self.value <= highest:
            raise MalformedKlines(f"{self.source}: a truth must be in {self.low} to {self.high}, was {self.value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """The random walk of a price since the last trade."""

    since_ms: int  # end of the last candle with a trade
    candles: float  # from there to the beginning of this candle
    a_candle: float  # variance of ln(price) in one candle


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    """A price at a moment."""

    row: int  # of the candle that holds the moment
    share: float  # of the candle's time that has passed: above 0, and 1 at the edge where it ends
    price: float
    low: float | None
    high: float | None
    variance: float  # of ln(price)
    walk: _Walk | None = None  # of a candle without a trade


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
    bounds, sd = (moment.low, moment.high), moment.price * math.sqrt(moment.variance)
    return _truth(klines, (moment.row, moment.row), source, moment.price, sd, bounds)


def log_return(klines: Klines, start_ms: int, end_ms: int, source: str) -> Truth:
    """Return ``ln(price at the end / price at the start)``, unitless; only the candles at both ends must be there.

    Raises:
        StaleKlines: as ``price_at``.
        ConfigError: the end is not after the start.
    """
    _require_order(start_ms, end_ms)
    start, end = (_moment(klines, at_ms, source) for at_ms in (start_ms, end_ms))
    variance = start.variance + end.variance
    if start.walk and end.walk and start.walk.since_ms == end.walk.since_ms:  # the same walk up to the start
        variance = end.variance - start.variance
    elif start.row == end.row:  # two moments of one bridge err together
        between = end.share - start.share
        variance += _bridge_variance(klines, start.row, between) - sum(
            _bridge_variance(klines, start.row, moment.share) for moment in (start, end)
        )
    value = math.log(end.price / start.price)
    bounds: tuple[float | None, float | None] = (None, None)
    if start.low is not None and start.high is not None and end.low is not None and end.high is not None:
        low, high = math.log(end.low / start.high), math.log(end.high / start.low)
        bounds = min(value, low), max(value, high)  # a logarithm's last bit must not exclude the value
    return _truth(klines, (start.row, end.row), source, value, math.sqrt(max(0.0, variance)), bounds)


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
    rows = slice(*_whole_run(klines, start_ms, end_ms, source))
    opened, close = klines.open[rows], klines.close[rows]
    share = (start_ms - int(klines.open_time_ms[rows.start])) / interval_ms
    on_edge = share >= 1
    returns = np.diff(np.log(close if on_edge else opened + share * (close - opened)))
    if on_edge:
        gaps = np.log(opened[1:] / close[:-1]) ** 2 / EDGE
        variance = np.append(gaps, _edge_variance(klines, rows.stop - 1))
    else:
        variance = share * (1 - share) * np.log(klines.high[rows] / klines.low[rows]) ** 2 / PARKINSON
    centred = returns - returns.mean() if about_mean else returns
    squares, added, error = _sum_of_squares(centred, variance, corner=1 / count if about_mean else 0.0)
    expected = squares + added

    def in_unit(total: float) -> float:
        per_minute = per_minute_volatility(total, count, interval_ms, about_mean=about_mean)
        return measure.factor(count * interval_ms // MINUTE_MS) * float(per_minute)

    value = in_unit(squares if on_edge else expected)
    sd = in_unit(expected) * error / (2 * expected) if expected > 0 else 0.0
    return _truth(klines, (rows.start, rows.stop - 1), source, value, sd)


def truth_of(topic: Topic, klines: Klines, asked_ms: int, source: str) -> Truth:
    """Return the truth of a topic that was asked at ``asked_ms``; raises as the function of the topic's target."""
    end_ms = asked_ms + topic.horizon_ms
    if topic.target is Target.PRICE:
        return price_at(klines, end_ms, source)
    if topic.target is Target.LOG_RETURN:
        return log_return(klines, asked_ms, end_ms, source)
    return volatility(klines, asked_ms, end_ms, source, topic.volatility)


def _truth(
    klines: Klines,
    rows: tuple[int, int],
    source: str,
    value: float,
    sd: float,
    bounds: tuple[float | None, float | None] = (None, None),
) -> Truth:
    """Return a truth that was read from the rows ``first`` to ``last``."""
    start_ms, last_ms = (int(klines.open_time_ms[row]) for row in rows)
    end_ms = last_ms + klines.interval_ms
    return Truth(value=value, low=bounds[0], high=bounds[1], sd=sd, source=source, start_ms=start_ms, end_ms=end_ms)


def _require_order(start_ms: int, end_ms: int) -> None:
    if end_ms <= start_ms:
        raise ConfigError(f"the end must be after the start, was {iso(end_ms)} after {iso(start_ms)}")


def _moment(klines: Klines, at_ms: int, source: str) -> _Moment:
    row = _row_of(klines, at_ms, source)
    opened, close = float(klines.open[row]), float(klines.close[row])
    share = (at_ms - int(klines.open_time_ms[row])) / klines.interval_ms
    if (walk := _untraded(klines, row)) is not None:
        variance = walk.a_candle * (walk.candles + share)
        return _Moment(row=row, share=share, price=close, low=None, high=None, variance=variance, walk=walk)
    if share < 1:
        on_line = opened + share * (close - opened)
        return _Moment(
            row=row,
            share=share,
            price=min(max(on_line, min(opened, close)), max(opened, close)),  # rounding must not leave the span
            low=float(klines.low[row]),
            high=float(klines.high[row]),
            variance=_bridge_variance(klines, row, share),
        )
    after = float(klines.open[row + 1]) if _follows(klines, row) else None
    return _Moment(
        row=row,
        share=share,
        price=close,
        low=None if after is None else min(close, after),
        high=None if after is None else max(close, after),
        variance=_edge_variance(klines, row),
    )


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


def _whole_run(klines: Klines, start_ms: int, end_ms: int, source: str) -> tuple[int, int]:
    """Return the first row, and the last plus one, of the candles from the start to the end; none may be missing."""
    first, last = (_row_of(klines, at_ms, source) for at_ms in (start_ms, end_ms))
    if last - first != (end_ms - start_ms) // klines.interval_ms:
        for at_ms in range(start_ms, end_ms, klines.interval_ms):
            _row_of(klines, at_ms, source)  # raises at the first that is missing
    return first, last + 1


def _follows(klines: Klines, row: int) -> bool:
    following = klines.open_time_ms[row + 1 : row + 2] - klines.open_time_ms[row]
    return bool((following == klines.interval_ms).any())


def _bridge_variance(klines: Klines, row: int, share: float) -> float:
    """Return the variance of ln(price) at a share of a candle's time, given its open and close."""
    return share * (1 - share) * math.log(klines.high[row] / klines.low[row]) ** 2 / PARKINSON


def _untraded(klines: Klines, row: int) -> _Walk | None:
    """Return the walk since the last trade if a candle has no trade, else None.

    Without an earlier trade, the walk begins at the first candle, and later candles estimate its variance. A venue
    without any volume does not publish it, so that a candle of 0 proves nothing.
    """
    still = klines.volume[row] == 0 and klines.low[row] == klines.high[row]
    traded = np.flatnonzero(klines.volume > 0)
    if not still or not len(traded):
        return None
    before = traded[traded < row][-TRADED_ROWS:]
    known = before if len(before) else traded[:TRADED_ROWS]
    ended_ms = int(klines.open_time_ms[before[-1]]) + klines.interval_ms if len(before) else klines.open_time_ms[0]
    return _Walk(
        since_ms=int(ended_ms),
        candles=(int(klines.open_time_ms[row]) - int(ended_ms)) / klines.interval_ms,
        a_candle=float(np.mean(np.log(klines.high[known] / klines.low[known]) ** 2)) / PARKINSON,
    )


def _edge_variance(klines: Klines, row: int) -> float:
    """Return the variance of ln(price) at the end of a candle: the price is between its close and the next open."""
    if _follows(klines, row):
        return math.log(klines.open[row + 1] / klines.close[row]) ** 2 / EDGE
    first = max(0, row - EDGE_ROWS)
    gaps = np.log(klines.open[first + 1 : row + 1] / klines.close[first:row])
    gaps = gaps[np.diff(klines.open_time_ms[first : row + 1]) == klines.interval_ms]
    return float(np.mean(gaps**2)) / EDGE if len(gaps) else 0.0


def _sum_of_squares(returns: Floats, variance: Floats, corner: float) -> tuple[float, float, float]:
    """Return the sum of squares of returns between uncertain prices, the mean that uncertainty adds, and the sum's sd.

    With ``x`` the logarithms of the prices the sum is ``x' A x``, where ``A`` has 2 on its diagonal, -1 beside it and,
    in its corners, 1 less ``corner`` and ``corner``. Seber and Lee, Linear Regression Analysis, 2nd ed., 1.5 and 1.6.

    Args:
        returns: ``(N,)`` of the expected prices, about zero or about their mean.
        variance: ``(N + 1,)`` of each ``x``, independent.
        corner: 0 about zero, ``1 / N`` about the mean.
    """
    diagonal = np.full(len(variance), 2.0)
    diagonal[[0, -1]] = 1 - corner
    slope = 2 * np.diff(returns, prepend=0.0, append=0.0)
    quadratic = (diagonal * variance) @ (diagonal * variance) + 2 * float(variance[1:] @ variance[:-1])
    ends = float(variance[0] * variance[-1])
    quadratic += 2 * corner**2 * ends
    spread = float(variance @ slope**2) + 2 * float(quadratic)
    return float(returns @ returns), float(diagonal @ variance), math.sqrt(max(0.0, spread))
