"""A published network's forecasts at past moments, from the stored candles, as serving makes them."""

from collections.abc import Iterator, Sequence

import numpy as np

from core.clock import DAY_MS, HOUR_MS
from core.topic import Topic
from klines.klines import Ints, Klines
from market.store.home_store import HomeStore
from model.features import stands_still
from model.forecaster import BiRNNForecaster, HeadForecast
from model.heads import head_of
from model.judging.evaluation import outputs
from model.panels import PanelPlan, panels_for
from model.targets import decode
from model.windows import build

PART_MS = 15 * DAY_MS  # of minute candles that are in memory at a time; of hours as many candles


def plan_of(topic: Topic) -> PanelPlan:
    """The panel, symbols and head of a single topic."""
    return next(iter(panels_for((topic,)).values()))


def parts(moments_ms: Sequence[int], interval_ms: int) -> Iterator[tuple[int, int]]:
    """Yield places ``[first, last)`` of rising moments, so that the candles of each part fit into memory.

    >>> from core.clock import MINUTE_MS
    >>> list(parts([0, PART_MS - 1, PART_MS, 5 * PART_MS], MINUTE_MS))
    [(0, 2), (2, 3), (3, 4)]
    """
    longest_ms = PART_MS * interval_ms * 60 // HOUR_MS
    first = 0
    while first < len(moments_ms):
        last = int(np.searchsorted(np.array(moments_ms), moments_ms[first] + longest_ms))
        yield first, last
        first = last


def forecasts_at(
    forecaster: BiRNNForecaster, topic: Topic, store: HomeStore, closes_ms: Ints
) -> dict[int, HeadForecast]:
    """Return a network's forecasts for a topic, each from the candles that had closed by a moment.

    Args:
        closes_ms: closes of candles of the panel, within a part.
    Returns:
        by close; a close is left out if candles of its window are missing.
    """
    plan, head = plan_of(topic).reading(forecaster.manifest.lookback), head_of(topic)
    panel = plan.panel
    start_ms = int(closes_ms.min()) - 2 * panel.rows_needed * panel.interval_ms
    end_ms = int(closes_ms.max())
    klines = {symbol: store.read(symbol, panel.interval_ms, start_ms, end_ms) for symbol in plan.symbols}
    if not all(map(len, klines.values())):
        return {}
    windows = build(plan, klines)
    mine = windows.symbol == plan.symbols.index(topic.symbol)
    rows = np.flatnonzero(mine & windows.usable & np.isin(windows.open_time_ms + panel.interval_ms, closes_ms))
    if not len(rows):
        return {}
    output = outputs(forecaster.network, windows, rows)[:, forecaster.heads.index(head)].astype(np.float64)
    number = forecaster.calibration.apply(decode(output, windows.scale[rows], panel, head), topic.symbol, head)
    found = {}
    for row, value in zip(rows, number.tolist(), strict=True):
        close_ms = int(windows.open_time_ms[row]) + panel.interval_ms
        is_volatility = head.kind.is_volatility
        found[close_ms] = HeadForecast(
            symbol=topic.symbol,
            head=head,
            version=forecaster.version,
            asof_ms=close_ms,
            may_be_zero=is_volatility and _stood_still(klines[topic.symbol], close_ms, panel.steps(head)),
            log_return=None if is_volatility else value + 0.0,
            volatility=value + 0.0 if is_volatility else None,
            scale=float(windows.scale[row]),
        )
    return found


def _stood_still(klines: Klines, close_ms: int, steps: int) -> bool:
    return stands_still(klines.between(close_ms - (steps + 1) * klines.interval_ms, close_ms), steps)
