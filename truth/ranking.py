"""Which of our candidates the reputers score against, with the evidence, and whether that is beyond doubt."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from core.topic import Target, Topic
from truth.candidates import Candidate
from truth.recovered import Recovered

WITHIN_BP = 0.2  # a candidate this close to the truth fits
MOST_ERROR_BP = 0.1  # of a truth: a coarser one tells no candidate from another
LEAST_EPOCHS = 5  # that the best candidate fits
LEAST_SHARE = 0.5  # of the epochs with a truth
AHEAD = 2.0  # the best fits this many times the epochs of the next best, or more
# What a setting is adopted by, once and for ever.
SURE_EPOCHS, SURE_SHARE, SURE_AHEAD = 30, 0.8, 4.0


class Rank(NamedTuple):
    """How well a candidate fits."""

    candidate: Candidate
    within: int  # epochs that it fits
    of: int  # epochs with a truth that it has a value for
    median_bp: float | None  # of its differences; None without any


class Finding(NamedTuple):
    """The value of one setting that fits best."""

    setting: str  # TRUTH_VENUE, Volatility or BASE_RULE
    value: str
    within: int
    of: int
    next_within: int  # of the best candidate with another value; 0 if there is none
    is_told: bool  # False: another value fits nearly as well, or none fits

    @property
    def evidence(self) -> str:
        """A clause.

        >>> Finding("TRUTH_VENUE", "binance", 38, 40, 3, True).evidence
        'fits 38 of 40 epochs within 0.2 bp; the next best 3'
        """
        return f"fits {self.within} of {self.of} epochs within {WITHIN_BP} bp; the next best {self.next_within}"


class Ranking(NamedTuple):
    """The candidates, the best first, and what follows for the settings."""

    ranks: tuple[Rank, ...] = ()
    findings: tuple[Finding, ...] = ()
    epochs: int = 0  # with a truth exact enough to tell candidates apart

    def finding(self, setting: str) -> Finding | None:
        """Return what was found for a setting; None if the topic has none of it, or nothing was compared."""
        return next((one for one in self.findings if one.setting == setting), None)

    @property
    def verdict(self) -> str:
        """A sentence for each setting. A value is named only where it is told."""
        if not self.ranks:
            return "cannot tell: no candles are stored for these epochs (birnn data sync --venue fetches a venue's)"
        if not self.epochs:
            return "cannot tell: no epoch's truth was recovered exactly enough"
        said = []
        for one in self.findings:
            if one.is_told:
                said.append(f"{one.setting}={one.value} {one.evidence}")
            elif one.setting == VENUE:
                said.append(f"cannot tell {VENUE}: the best candidate {one.evidence}")
            else:
                said.append(f"{one.setting} is not told apart: the best {one.evidence}")
        return ". ".join(said)


VENUE, VOLATILITY, BASE = "TRUTH_VENUE", "Volatility", "BASE_RULE"
SETTINGS: Mapping[str, Callable[[Candidate], str]] = {
    VENUE: lambda one: one.venue,
    VOLATILITY: lambda one: one.volatility or "",
    BASE: lambda one: one.base.value,
}


def difference_bp(topic: Topic, value: float, truth: float) -> float:
    """Return how far a value is from the truth, in basis points: of the price, or of the volatility.

    A return of 0.0001 is a basis point of the price, so returns are subtracted; prices and volatilities are divided.
    """
    if topic.target is Target.LOG_RETURN:
        return abs(value - truth) * 1e4
    return abs(value / truth - 1) * 1e4 if truth else float("inf")


def rank(
    topic: Topic, truths: Sequence[Recovered | str], values: Mapping[Candidate, Sequence[float | None]]
) -> Ranking:
    """Rank candidates by the epochs that they fit, then by their usual difference.

    Args:
        truths: of each epoch; a sentence where it could not be told.
        values: of each candidate, in the same order.
    """
    usable = [
        (number, float(one.truth))
        for number, one in enumerate(truths)
        if isinstance(one, Recovered)
        and difference_bp(topic, float(one.truth) + float(one.error), float(one.truth)) <= MOST_ERROR_BP
    ]
    ranks = []
    for candidate, its in values.items():
        off = [difference_bp(topic, value, truth) for number, truth in usable if (value := its[number]) is not None]
        within = sum(one <= WITHIN_BP for one in off)
        ranks.append(Rank(candidate, within, len(off), float(np.median(off)) if off else None))
    ranks.sort(key=lambda one: (-one.within, float("inf") if one.median_bp is None else one.median_bp))
    findings = [found for setting in SETTINGS if (found := _finding(setting, ranks, len(usable))) is not None]
    return Ranking(tuple(ranks), tuple(findings), len(usable))


def beyond_doubt(ranking: Ranking, setting: str = VENUE) -> bool:
    """True if a setting may be adopted for ever.

    The best value fits 30 epochs or more and 80 % of those with a truth, and any other value a quarter of that at most.
    A setting with a single candidate value is not adopted: nothing was compared.
    """
    found = ranking.finding(setting)
    return (
        found is not None
        and found.is_told
        and len({SETTINGS[setting](one.candidate) for one in ranking.ranks}) > 1
        and found.within >= max(SURE_EPOCHS, SURE_SHARE * found.of)
        and found.within >= SURE_AHEAD * found.next_within
    )


def _finding(setting: str, ranks: Sequence[Rank], epochs: int) -> Finding | None:
    of = SETTINGS[setting]
    if not ranks or not of(ranks[0].candidate):
        return None
    best = ranks[0]
    value = of(best.candidate)
    others = next((one.within for one in ranks if of(one.candidate) != value), 0)
    is_told = best.within >= max(LEAST_EPOCHS, LEAST_SHARE * epochs) and best.within >= AHEAD * others
    return Finding(setting, value, best.within, epochs, others, is_told)
