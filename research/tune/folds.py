"""The folds of a tuning: spans of the past that end before the rows of the next gates.

A gate judges on the newest rows of a training's history. Settings chosen on those rows would look too good there, so
the newest judge part is kept out of a tuning. Of the rest, older folds are for the search; the newest are for the
confirmation and no trial of the search sees them.
"""

import math
from dataclasses import dataclass

from core.clock import DAY_MS, HOUR_MS, iso
from core.errors import ConfigError
from model.panels import LONGEST_LOOKBACK, Panel, PanelPlan
from model.windows import TRAIN_SHARE, VALIDATE_SHARE
from research.data import Recording

SEARCHED, CONFIRMED = 2, 2  # number of folds
JUDGE_SHARE = 1 - TRAIN_SHARE - VALIDATE_SHARE  # of a fold: the newest rows
LEAST_DAYS = 2.0  # windows of a fold; fewer cannot tell settings apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One fold: windows from ``start_ms`` on are trained, validated and judged as in a round that ends at
    ``end_ms``. The first of them opens at the same moment whatever the lookback, so all settings are judged on the
    same rows."""

    start_ms: int
    end_ms: int

    def klines_from_ms(self, panel: Panel) -> int:
        """The oldest open time that the first window reads."""
        return self.start_ms - (panel.rows_needed - 1) * panel.interval_ms


def folds_of(recording: Recording, plan: PanelPlan, training_days: int, end_ms: int | None = None) -> tuple[Fold, ...]:
    """The folds of a recording, oldest first: SEARCHED to search on, then CONFIRMED to confirm on.

    Each is as long as the history of a training, or shorter for want of klines. Judge parts are disjoint and spread
    over the history, at most the length of a fold apart.

    Args:
        training_days: as TRAINING_DAYS.
        end_ms: end of the last fold; by default a judge part before the newest kline.
    Raises:
        ConfigError: too few klines; the text gives the days stored and needed.
    """
    panel, count = plan.panel, SEARCHED + CONFIRMED
    longest_ms = training_days * panel.days_per_training_day * DAY_MS
    oldest_ms, last_ms = recording.span(plan.symbols[:1], panel.interval_ms)
    first_ms = oldest_ms + (panel.reading(LONGEST_LOOKBACK).rows_needed - 1) * panel.interval_ms
    if end_ms is None:
        held_back_ms = math.ceil(JUDGE_SHARE * min(longest_ms + DAY_MS, last_ms - oldest_ms) / DAY_MS) * DAY_MS
        end_ms = (last_ms - held_back_ms) // DAY_MS * DAY_MS
    there_ms = max(0, end_ms - first_ms)
    spread_ms = there_ms - (count - 1) * HOUR_MS  # spans are whole hours, and a judge part may not reach into two
    length_ms = int(min(longest_ms, spread_ms / (1 + JUDGE_SHARE * (count - 1)))) // HOUR_MS * HOUR_MS
    recording.check_end(end_ms, last_ms)
    if length_ms < max(LEAST_DAYS * DAY_MS, 4 * plan.gap_ms):
        raise ConfigError(
            f"{recording.source}: {there_ms / DAY_MS:.1f} days of windows before {iso(end_ms)[:10]} are too few to "
            f"tune the {panel.name} panel on; {count} overlapping folds must fit in, and what is newer is kept for "
            "the gate: raise TRAINING_DAYS and sync, name a longer recording with --data, or give a later --end"
        )
    apart_ms = min((there_ms - length_ms) // (count - 1), length_ms) // HOUR_MS * HOUR_MS
    ends = [end_ms - apart_ms * back for back in reversed(range(count))]
    return tuple(Fold(start_ms=end - length_ms, end_ms=end) for end in ends)
