"""Rows that a baseline is fitted on and asked for, at one date of a walk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from core.topic import Target, Topic
from klines.klines import Floats, Klines
from model.heads import Head, Kind, head_of
from model.windows import Rows, Split, Windows

Forecasts = Mapping[str, Floats]
"""By ``Topic.key``: ``(N,)`` in the head's unit, one for each of ``Stage.rows_of(topic)``."""

Tell = Callable[[str], None]  # called with the present work


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """One date: rows to fit on (the network's training and validation parts) and rows to forecast."""

    windows: Windows  # from the start of the training to the last label of the rows; its symbols: the trained first
    klines: Mapping[str, Klines]  # that the windows are made of
    trained: tuple[str, ...]  # symbols that may be fitted on
    split: Split  # the network's
    rows: Rows  # (N,) to forecast: all after the date
    now_ms: int  # the date
    seed: int
    quick: bool  # fit less

    def fitting(self, *parts: str, stride: int = 1) -> Rows:
        """Rows of the trained symbols in parts of the split ("train", "validate"), every ``stride``-th candle.

        Labels end before the part that follows, and so before the date.
        """
        bounds = {
            "train": (self.split.train_start_ms, self.split.train_end_ms),
            "validate": (self.split.validate_start_ms, self.split.validate_end_ms),
        }
        rows = np.concatenate([self.windows.rows(*bounds[part], stride=stride) for part in parts])
        chosen: Rows = rows[self.windows.symbol[rows] < len(self.trained)]
        return chosen

    def known_by_now(self, horizon_ms: int) -> Rows:
        """Rows of the trained symbols whose horizon had ended at the date."""
        last_ms = self.now_ms - horizon_ms - self.windows.plan.panel.interval_ms
        rows = self.windows.rows(self.split.train_start_ms, last_ms + 1)
        chosen: Rows = rows[self.windows.symbol[rows] < len(self.trained)]
        return chosen

    def column(self, topic: Topic) -> int:
        """The topic's head among the windows' columns."""
        return self.windows.plan.heads.index(head_of(topic))

    def of_symbol(self, rows: Rows, symbol: str) -> Rows:
        """The rows of a symbol."""
        chosen: Rows = rows[self.windows.symbol[rows] == self.windows.plan.symbols.index(symbol)]
        return chosen

    def known(self, rows: Rows, column: int) -> Rows:
        """The rows with a known truth for a head."""
        chosen: Rows = rows[np.isfinite(self.windows.truth[rows, column])]
        return chosen

    def rows_of(self, topic: Topic) -> Rows:
        """The scored rows of a topic: those of its symbol with a known truth."""
        return self.known(self.of_symbol(self.rows, topic.symbol), self.column(topic))

    def topics(self, *kinds: Kind) -> list[Topic]:
        """The topics whose heads have one of these kinds."""
        return [topic for topic in self.windows.plan.topics if head_of(topic).kind in kinds]

    def heads(self, *kinds: Kind) -> list[Head]:
        """The heads of one of these kinds."""
        return [head for head in self.windows.plan.heads if head.kind in kinds]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A way to forecast, fitted at each date on the network's rows."""

    name: str
    about: str  # one line for people
    kinds: tuple[Kind, ...]  # kinds of head that it forecasts
    forecast: Callable[[Stage, Tell], Forecasts]
    unseen: bool  # True if it can forecast a symbol outside its fit

    def applies(self, topic: Topic, unseen: bool) -> bool:
        """True if the baseline forecasts the topic."""
        return head_of(topic).kind in self.kinds and (self.unseen or not unseen)


def price_like(topic: Topic) -> bool:
    """True if a forecast of a price answers the topic."""
    return topic.target in (Target.PRICE, Target.LOG_RETURN)
