"""What is known of a question's interval when the question is answered, and how a forecast of the rest completes it.

The interval begins at the base: the nonce block's time cut down to the minute. An answer that is given later knows how
the interval began, and only the rest of it has to be forecast. The minutes of an interval are counted from its base;
the minute that is running is known up to the newest price.

Every number may be one of a single question, or an array with a row for each of many.
"""

import math
from dataclasses import dataclass

import numpy as np

from core.clock import MINUTE_MS
from market.klines import Floats, Ints
from model.heads import Kind

Number = float | Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """The beginning of an interval; of ``NOTHING`` not even a second is known.

    All moves are log-returns between raw prices of one venue: an offset between two venues' prices would be taken for
    a move.
    """

    elapsed_ms: int | Ints = 0  # from the base to the moment of the newest price that is used
    minutes: int | Ints = 0  # whole minutes whose candles have closed
    total: Number = 0.0  # sum of their returns
    squares: Number = 0.0  # sum of the squares of their returns
    running: Number = 0.0  # the move since the last of them closed

    @property
    def moved(self) -> Number:
        """ln(newest price / base price)."""
        return self.total + self.running

    def share_left(self, horizon_min: int) -> Number:
        """The part of the interval that is not known, from 1 at its base to 0 at its end."""
        share: Number = np.maximum(0.0, 1.0 - self.elapsed_ms / (horizon_min * MINUTE_MS))
        return share


NOTHING = Known()


def known_of(closes: Floats, newest: float, elapsed_ms: int) -> Known:
    """What prices tell of one interval.

    Args:
        closes: ``(minutes + 1,)`` the base price, and the close of each whole minute since; one venue's raw prices.
        newest: the newest price of the same venue, in the same currency; the last close where there is none.
        elapsed_ms: from the base to the moment of ``newest``.

    >>> known = known_of(np.array([100.0, 110.0]), 121.0, 90_000)
    >>> known.minutes, round(known.total, 4), round(known.moved, 4), float(known.share_left(15))
    (1, 0.0953, 0.1906, 0.9)
    """
    returns = np.diff(np.log(closes))
    return Known(
        elapsed_ms=elapsed_ms,
        minutes=len(returns),
        total=float(returns.sum()),
        squares=float(returns @ returns),
        running=math.log(newest / float(closes[-1])),
    )


def whole_return(known: Known, forecast: Number, horizon_min: int) -> Number:
    """The interval's log-return: the known move, and of the forecast of a whole horizon what falls to the rest."""
    return known.moved + forecast * known.share_left(horizon_min)


def whole_volatility(known: Known, forecast: Number, horizon_min: int, kind: Kind) -> Number:
    """The interval's volatility per minute: the known minutes as they were, the rest as forecast.

    The known squares and the expected ones are put together as the definition does: the mean is taken off once, over
    all of the interval. Where nothing is known the result is the forecast itself.

    Args:
        forecast: volatility per minute, taken as that of each minute that is not known.
        kind: VOLATILITY about the mean with ``n - 1``, or RMS about zero.
    """
    # A price of before the last close tells nothing of the minute that is running.
    running_min = np.maximum(0.0, np.divide(known.elapsed_ms, MINUTE_MS) - known.minutes)
    rest = np.maximum(0.0, horizon_min - known.minutes - running_min) * np.square(forecast)
    squares = known.squares + np.square(known.running) + rest
    if kind is Kind.RMS:
        volatility: Number = np.sqrt(squares / horizon_min)
        return volatility
    about_mean = squares - (np.square(known.moved) + rest) / horizon_min
    volatility = np.sqrt(np.maximum(0.0, about_mean) / (horizon_min - 1))
    return volatility
