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
LEAST_APART, AHEAD = 5, 4  # epochs that it fits and a rival does not, and how many for each the other way round
# The same for a setting that is adopted once and for ever.
SURE_EPOCHS, SURE_SHARE, SURE_APART, SURE_AHEAD = 30, 0.8, 20, 10


class Rank(NamedTuple):
    """How well a candidate fits."""

    candidate: Candidate
    within: int  # epochs that it fits
    of: int  # epochs with a truth that it has a value for
    median_bp: float | None  # of its differences; None without any
    fits: frozenset[int] = frozenset()  # places of the epochs that it fits


class Finding(NamedTuple):
    """The value of one setting that fits best."""

    setting: str  # TRUTH_VENUE, Volatility or BASE_RULE
    value: str
    within: int
    of: int
    next_within: int  # of the best candidate with another value; 0 if there is none
    apart: int  # epochs that it fits and its nearest rival, a candidate with another value, does not
    against: int  # epochs that this rival fits and it does not
    is_only: bool  # True if no candidate has another value: nothing was compared

    @property
    def is_told(self) -> bool:
        """False if another value fits nearly as well, or none fits half of the epochs."""
        return self._holds(LEAST_EPOCHS, LEAST_SHARE, LEAST_APART, AHEAD)

    @property
    def is_sure(self) -> bool:
        """True if the value is beyond doubt."""
        return not self.is_only and self._holds(SURE_EPOCHS, SURE_SHARE, SURE_APART, SURE_AHEAD)

    def _holds(self, epochs: int, share: float, apart: int, ahead: int) -> bool:
        is_apart = self.is_only or self.apart >= max(apart, ahead * self.against)
        return is_apart and self.within >= max(epochs, share * self.of)

    @property
    def evidence(self) -> str:
        """A clause.

        >>> Finding("TRUTH_VENUE", "binance", 38, 40, 3, 35, 0, False).evidence
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
        off = {
            number: difference_bp(topic, value, truth) for number, truth in usable if (value := its[number]) is not None
        }
        fits = frozenset(number for number, one in off.items() if one <= WITHIN_BP)
        median = float(np.median([*off.values()])) if off else None
        ranks.append(Rank(candidate, len(fits), len(off), median, fits))
    ranks.sort(key=lambda one: (-one.within, float("inf") if one.median_bp is None else one.median_bp))
    findings = [found for setting in SETTINGS if (found := _finding(setting, ranks, len(usable))) is not None]
    return Ranking(tuple(ranks), tuple(findings), len(usable))


def beyond_doubt(ranking: Ranking, setting: str = VENUE) -> bool:
    """True if the best value of a setting may be adopted for ever.

    It fits 30 epochs or more and 80 % of those with a truth; and beside every candidate with another value it fits 20
    epochs that the other does not, and ten for each that the other fits alone. Without another value nothing was
    compared, and nothing is adopted.
    """
    found = ranking.finding(setting)
    return found is not None and found.is_sure


def _finding(setting: str, ranks: Sequence[Rank], epochs: int) -> Finding | None:
    of = SETTINGS[setting]
    if not ranks or not of(ranks[0].candidate):
        return None
    best, value = ranks[0], of(ranks[0].candidate)
    rivals = [one for one in ranks if of(one.candidate) != value]
    pairs = [(len(best.fits - one.fits), len(one.fits - best.fits)) for one in rivals]
    apart, against = min(pairs, key=lambda pair: pair[0] - AHEAD * pair[1], default=(0, 0))
    return Finding(
        setting=setting,
        value=value,
        within=best.within,
        of=epochs,
        next_within=max((one.within for one in rivals), default=0),
        apart=apart,
        against=against,
        is_only=not rivals,
    )
