"""The known beginning of a question's interval, and how a forecast of the rest completes it.

The interval begins at the base: the nonce block's time cut down to the minute. A later answer knows how the interval
began, so only the rest has to be forecast. Minutes are counted from the base; the running minute is known up to the
newest price.

Every number may belong to a single question, or be an array with a row for each question.
"""

from dataclasses import dataclass
from typing import Any

from core.clock import MINUTE_MS
from klines.klines import Floats, Ints

Number = float | Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """The known beginning of an interval; ``NOTHING`` is an interval that has not begun.

    All moves are log-returns between raw prices of a single venue: an offset between two venues would look like a move.
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
        """The unknown part of the interval, from 1 at the base to 0 at the end."""
        share: Number = _not_below_0(1.0 - self.elapsed_ms / (horizon_min * MINUTE_MS))
        return share


NOTHING = Known()


def _not_below_0(value: Any) -> Any:
    """``max(value, 0)`` of a number or an array; numpy's own takes a microsecond while a question waits."""
    return (abs(value) + value) / 2


def whole_return(known: Known, forecast: Number, horizon_min: int) -> Number:
    """The interval's log-return: the known move, and the rest's share of the forecast of a whole horizon."""
    return known.moved + forecast * known.share_left(horizon_min)


def whole_volatility(known: Known, forecast: Number, horizon_min: int, *, about_mean: bool) -> Number:
    """The interval's volatility per minute: the known minutes as they were, the rest as forecast.

    Known and expected squares are added up and the mean is taken off once, over the whole interval, as the definition
    has it. If nothing is known the result is the forecast itself.

    Args:
        forecast: volatility per minute, taken as that of each unknown minute.
        about_mean: the standard deviation, with ``n - 1``; False for the root mean square.
    """
    # A price older than the last close tells nothing about the running minute.
    running_min = _not_below_0(known.elapsed_ms / MINUTE_MS - known.minutes)
    rest = _not_below_0(horizon_min - known.minutes - running_min) * forecast**2
    squares = known.squares + known.running**2 + rest
    if not about_mean:
        volatility: Number = (squares / horizon_min) ** 0.5
        return volatility
    squares = squares - (known.moved**2 + rest) / horizon_min
    volatility = (_not_below_0(squares) / (horizon_min - 1)) ** 0.5
    return volatility
