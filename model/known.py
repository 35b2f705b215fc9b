"""What is known of a question's interval when the question is answered, and how a forecast of the rest completes it.

The interval begins at the base: the nonce block's time cut down to the minute. An answer that is given later knows how
the interval began, and only the rest of it has to be forecast. The minutes of an interval are counted from its base;
the minute that is running is known up to the newest price.

Every number may be one of a single question, or an array with a row for each of many.
"""

from dataclasses import dataclass
from typing import Any

from core.clock import MINUTE_MS
from klines.klines import Floats, Ints

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
        share: Number = _not_below_0(1.0 - self.elapsed_ms / (horizon_min * MINUTE_MS))
        return share


NOTHING = Known()


def _not_below_0(value: Any) -> Any:
    """``max(value, 0)`` of one number or many; numpy's own takes a microsecond for one, and a question waits for it."""
    return (abs(value) + value) / 2


def whole_return(known: Known, forecast: Number, horizon_min: int) -> Number:
    """The interval's log-return: the known move, and of the forecast of a whole horizon what falls to the rest."""
    return known.moved + forecast * known.share_left(horizon_min)


def whole_volatility(known: Known, forecast: Number, horizon_min: int, *, about_mean: bool) -> Number:
    """The interval's volatility per minute: the known minutes as they were, the rest as forecast.

    The known squares and the expected ones are put together as the definition does: the mean is taken off once, over
    all of the interval. Where nothing is known the result is the forecast itself.

    Args:
        forecast: volatility per minute, taken as that of each minute that is not known.
        about_mean: the standard deviation, with ``n - 1``; False for the root mean square.
    """
    # A price of before the last close tells nothing of the minute that is running.
    running_min = _not_below_0(known.elapsed_ms / MINUTE_MS - known.minutes)
    rest = _not_below_0(horizon_min - known.minutes - running_min) * forecast**2
    squares = known.squares + known.running**2 + rest
    if not about_mean:
        volatility: Number = (squares / horizon_min) ** 0.5
        return volatility
    squares = squares - (known.moved**2 + rest) / horizon_min
    volatility = (_not_below_0(squares) / (horizon_min - 1)) ** 0.5
    return volatility
