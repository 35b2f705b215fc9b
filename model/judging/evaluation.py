"""Scores of forecasters and of the naive forecast on the same rows, in each topic's own loss and unit."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from core.errors import UnusableForecast
from core.losses import loss_named
from core.topic import Target, Topic
from klines.klines import Floats, Ints
from model.calibration import Calibration
from model.features import FLAT, Bools, Floats32
from model.heads import Head, head_of
from model.network import Network
from model.targets import decode
from model.windows import Rows, Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A forecaster's mean losses on one topic over ``rows`` rows, in the topic's unit."""

    topic: str  # Topic.key
    loss: str
    rows: int
    model_loss: float
    naive_loss: float

    @property
    def ratio(self) -> float:
        """Model loss over naive loss: below 1 is skill. 1 if both are 0, as in a market that stood still."""
        if self.naive_loss > 0:
            return self.model_loss / self.naive_loss
        return 1.0 if self.model_loss <= 0 else float("inf")

    @property
    def difference(self) -> float:
        """Model loss less naive loss; czar's term of the truth alone does not blur it, unlike the ratio."""
        return self.model_loss - self.naive_loss

    def to_json(self) -> dict[str, int | float | str]:
        """For manifests and logs."""
        return {**asdict(self), "ratio": self.ratio, "difference": self.difference}


def outputs(network: Network, windows: Windows, rows: Rows, *, batch: int = 1024) -> Floats32:
    """A network's outputs at some rows, batch by batch.

    Returns:
        ``(N, O)``.
    Raises:
        UnusableForecast: an output is not finite.
    """
    if not len(rows):
        return np.empty((0, 0), np.float32)
    parts = [network(windows.gather(rows[first : first + batch])) for first in range(0, len(rows), batch)]
    result: Floats32 = np.concatenate(parts)
    if not np.isfinite(result).all():
        raise UnusableForecast(
            f"{int((~np.isfinite(result)).sum())} of {result.size} outputs of the network are not finite; train again"
        )
    return result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TopicForecasts:
    """One topic's forecasts, truths and naive forecasts. N rows, in time order."""

    topic: Topic
    open_time_ms: Ints  # (N,) of the candle that each forecast was made after
    came_true: Floats  # (N,) in the head's unit: a log-return, or a volatility per minute
    forecast: Floats  # (N,) likewise
    naive: Floats  # (N,) likewise
    close: Floats  # (N,) the anchor, quote currency
    std: float  # of past returns over the horizon, for the losses of returns

    @property
    def losses(self) -> Floats:
        """``(N,)`` in the topic's own loss and unit."""
        return self.losses_of(self.forecast)

    @property
    def naive_losses(self) -> Floats:
        """``(N,)`` the naive forecast's."""
        return self.losses_of(self.naive)

    def losses_of(self, forecast: Floats) -> Floats:
        """``(N,)`` losses of any forecast of these rows, in the topic's own loss and unit.

        A price is the close at the window's end moved by the log-return: history has no fresher anchor. A loss of
        returns is computed of the log-return, for a price topic too.

        Args:
            forecast: ``(N,)`` in the head's unit.
        """
        came_true, loss = self.came_true, loss_named(self.topic.loss)
        if self.topic.target is Target.PRICE and not loss.of_returns:
            came_true, forecast = self.close * np.exp(came_true), self.close * np.exp(forecast)
        losses: Floats = loss(np, came_true * self.topic.unit, forecast * self.topic.unit, self.std)
        return losses


def forecasts(
    windows: Windows, rows: Rows, output: Floats32, heads: Sequence[Head], calibration: Calibration
) -> tuple[TopicForecasts, ...]:
    """A network's calibrated forecasts at some rows.

    Args:
        windows: of the plan with the topics; candles before the rows give the losses of returns their std.
        rows: ``(N,)`` rows that no compared network was trained, stopped or calibrated on.
        output: ``(N, O)`` the network's outputs at the rows.
        heads: of the columns, in order; they need not be the plan's.
        calibration: the network's own.
    Returns:
        an entry for each topic that has rows and a head among ``heads``.
    """
    found = []
    for topic in windows.plan.topics:
        if head_of(topic) not in heads:
            continue
        mine, came_true, naive = _of_topic(windows, rows, topic)
        if not mine.any():
            continue
        number = decode(
            output[mine, heads.index(head_of(topic))].astype(np.float64),
            windows.scale[rows[mine]],
            windows.plan.panel,
            head_of(topic),
        )
        found.append(
            TopicForecasts(
                topic=topic,
                open_time_ms=windows.open_time_ms[rows[mine]],
                came_true=came_true,
                forecast=calibration.apply(number, topic.symbol, head_of(topic)),
                naive=naive,
                close=windows.close[rows[mine]],
                std=_past_std(windows, rows, topic),
            )
        )
    return tuple(found)


def score(
    windows: Windows, rows: Rows, output: Floats32, heads: Sequence[Head], calibration: Calibration
) -> tuple[Score, ...]:
    """Mean losses of ``forecasts``; networks compare on the same windows and rows."""
    return tuple(
        Score(
            topic=of_topic.topic.key,
            loss=of_topic.topic.loss,
            rows=len(of_topic.came_true),
            model_loss=float(np.mean(of_topic.losses)),
            naive_loss=float(np.mean(of_topic.naive_losses)),
        )
        for of_topic in forecasts(windows, rows, output, heads, calibration)
    )


def _of_topic(windows: Windows, rows: Rows, topic: Topic) -> tuple[Bools, Floats, Floats]:
    """Mask of the topic's rows with a truth; truths and naive forecasts there, in the head's unit."""
    column = windows.plan.heads.index(head_of(topic))
    symbol = windows.plan.symbols.index(topic.symbol)
    mine = (windows.symbol[rows] == symbol) & np.isfinite(windows.truth[rows, column])
    return mine, windows.truth[rows[mine], column], windows.naive[rows[mine], column]


def _past_std(windows: Windows, rows: Rows, topic: Topic) -> float:
    """Standard deviation of the topic's truths that were known before the first of the rows."""
    column = windows.plan.heads.index(head_of(topic))
    known_ms = int(windows.open_time_ms[rows].min()) - topic.horizon_ms
    past = windows.truth[
        (windows.symbol == windows.plan.symbols.index(topic.symbol)) & (windows.open_time_ms < known_ms), column
    ]
    past = past[np.isfinite(past)]
    least: float = FLAT * windows.plan.panel.steps(head_of(topic)) ** 0.5
    return max(float(past.std()), least) if len(past) else least
