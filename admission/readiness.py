"""Whether a topic's answers would be admitted, when, and for how long: its epochs replayed, judged by the criteria.

The updater makes it and writes DATA_DIR/admission.json; inference and the command line read it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from admission.criteria import NAMES, Criterion
from admission.records import Looks, looks
from admission.replay import BLOCK_MS, Past, answers, epochs_between, past_of
from admission.stretch_fit import stretched
from core.clock import DAY_MS
from core.errors import IncompatibleModel
from core.files import replace_json
from core.settings import Objective
from core.topic import Topic
from klines.klines import Floats, Ints, Klines
from model.features import Bools
from model.stretch import Stretch

FILE = "admission.json"
SHOWN_MIN = (0, 1, 2)  # whole known minutes: klines hold no more, and no answer waits longer
FOLLOWED_DAYS = 30  # that a start must be followed to count; or half of a shorter replay
PATIENT_DAYS = 730  # what takes longer is not worth waiting for


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """From a start until all criteria hold for the first time, over the starts. None: never."""

    median: float | None
    p90: float | None
    never: float  # share of the starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a topic stands when so much of the interval is known."""

    eligible: bool  # all criteria hold on the whole replay
    known_s: int
    days: Days
    holds: float | None  # share of the later days on which they all still hold; None: they never held
    criteria: Mapping[str, Criterion]  # of the whole replay; empty where there is nothing to judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """One topic's line of admission.json."""

    network: str | None
    topic_id: int
    standing: Standing  # of the time that ANSWER_WAIT guarantees, rounded down to whole minutes
    shown: Mapping[int, Standing]  # by seconds known
    stretch: Stretch  # of the answers from now on
    objective: str  # admission or loss
    short: str  # what would help, or why nothing can be judged

    def to_json(self) -> dict[str, Any]:
        """For admission.json and ``birnn ready --json``."""
        return {
            "network": self.network,
            "topic_id": self.topic_id,
            **asdict(self.standing),
            "shown": {str(seconds): asdict(standing) for seconds, standing in self.shown.items()},
            "stretch": self.stretch.to_json(),
            "objective": self.objective,
            "short": self.short,
        }

    @classmethod
    def from_json(cls, value: Any) -> "Readiness":
        """The inverse of ``to_json``.

        Raises:
            IncompatibleModel: it is something else.
        """
        try:
            return cls(
                network=value["network"],
                topic_id=int(value["topic_id"]),
                standing=_standing(value),
                shown={
                    seconds: _standing(value["shown"][str(seconds)]) for seconds in sorted(map(int, value["shown"]))
                },
                stretch=Stretch.from_json(value["stretch"]),
                objective=str(value["objective"]),
                short=str(value["short"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise IncompatibleModel(f"an entry of {FILE} cannot be read: {error!r}; train again") from error


def _standing(value: Any) -> Standing:
    return Standing(
        eligible=bool(value["eligible"]),
        known_s=int(value["known_s"]),
        days=Days(**value["days"]),
        holds=value["holds"],
        criteria={name: Criterion(**value["criteria"][name]) for name in NAMES if name in value["criteria"]},
    )


def write_admission(data_dir: Path, made_ms: int, topics: Mapping[str, Readiness]) -> None:
    """Replace admission.json.

    Args:
        topics: by ``Topic.key``.
    """
    entries = {key: readiness.to_json() for key, readiness in topics.items()}
    replace_json(data_dir / FILE, {"made_ms": made_ms, "topics": entries})


def read_admission(data_dir: Path) -> tuple[int, dict[str, Readiness]]:
    """When admission.json was made, and what it says by ``Topic.key``; 0 and nothing where there is no file.

    Raises:
        IncompatibleModel: the file is damaged or of another release.
    """
    try:
        content = json.loads((data_dir / FILE).read_bytes())
        return int(content["made_ms"]), {
            str(key): Readiness.from_json(entry) for key, entry in content["topics"].items()
        }
    except FileNotFoundError:
        return 0, {}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IncompatibleModel(f"{data_dir / FILE} cannot be read: {error!r}; train again") from error


def readiness(
    topic: Topic,
    klines: Klines,
    rest: Floats | None,
    *,
    known_s: float,
    objective: Objective,
    block_ms: float = BLOCK_MS,
) -> Readiness:
    """Replay a topic over its klines.

    Args:
        klines: of one minute, of the topic's symbol.
        rest: as for ``admission.replay.answers``.
        known_s: what ANSWER_WAIT guarantees of the interval.
        objective: of ``objective_of``.
        block_ms: measured time between two blocks.
    """
    epochs = epochs_between(topic, int(klines.open_time_ms[0]) if len(klines) else 0, klines.end_ms, block_ms)
    past = past_of(topic, klines, epochs)
    shown, stretches = {}, {}
    for known_min in SHOWN_MIN:
        walked = stretched(past, answers(past, klines, rest, known_min), known_min, objective)
        shown[60 * known_min] = standing_of(past, walked.answers, 60 * known_min)
        stretches[60 * known_min] = walked.newest
    guaranteed_s = 60 * max(minutes for minutes in SHOWN_MIN if minutes == 0 or 60 * minutes <= known_s)
    return Readiness(
        network=topic.network,
        topic_id=topic.topic_id,
        standing=shown[guaranteed_s],
        shown=shown,
        stretch=stretches[guaranteed_s],
        objective="admission" if objective is Objective.ADMISSION else "loss",
        short=_short(past, shown, guaranteed_s),
    )


def baselines(past: Past) -> Sequence[Floats]:
    """What the criteria take off truth and answer alike, the stricter last: of volatility both of the named ones."""
    return (past.back, past.fitted) if past.head.kind.is_volatility else (past.fitted,)


def standing_of(past: Past, said: Floats, known_s: int) -> Standing:
    """Judge answers by records from each midnight on, looked at each midnight.

    Args:
        said: ``(E,)`` as answered, in the criteria's terms.
    """
    judged = np.isfinite(sum(baselines(past), np.zeros(len(said))))
    begin = int(np.argmax(judged)) if judged.any() else len(said)
    start, look, first, last = _records(past, begin)
    if not len(first):
        nothing = Days(median=None, p90=None, never=1.0)
        return Standing(eligible=False, known_s=known_s, days=nothing, holds=None, criteria={})
    found = [
        looks(
            past.truth - baseline,
            said - baseline,
            first,
            last,
            horizon_min=past.topic.horizon_min,
            ratio=past.epochs.ratio,
        )
        for baseline in baselines(past)
    ]
    passed = np.logical_and.reduce([_all(one) for one in found])
    days, holds = _days(start, look, passed)
    return Standing(
        eligible=bool(passed[0]),
        known_s=known_s,
        days=days,
        holds=holds,
        criteria={name: of.at(0) for name, of in found[-1].items()},
    )


def admitted_after(past: Past, said: Floats, baseline: Floats, start_ms: int, end_ms: int) -> float:
    """Days from a start until all criteria hold for the first time, looked at daily; infinite: not until ``end_ms``."""
    look_ms = np.arange(start_ms + DAY_MS, end_ms + 1, DAY_MS)
    first = np.full(len(look_ms), np.searchsorted(past.epochs.base_ms, start_ms))
    last = np.searchsorted(past.epochs.base_ms + past.topic.horizon_ms, look_ms, side="right")
    found = looks(
        past.truth - baseline,
        said - baseline,
        first,
        np.maximum(last, first + 1),
        horizon_min=past.topic.horizon_min,
        ratio=past.epochs.ratio,
    )
    passed = _all(found)
    return float(np.argmax(passed)) + 1 if passed.any() else math.inf


def _records(past: Past, begin: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Start and look of each record in days, its first epoch and the one after its last; the longest comes first."""
    base_ms = past.epochs.base_ms[begin:]
    nothing = np.empty(0, np.int64)
    if not len(base_ms):
        return nothing, nothing, nothing, nothing
    ended_ms = past.epochs.base_ms + past.topic.horizon_ms
    end_ms = _newest_truth_ms(past)
    starts = np.arange(-(-int(base_ms[0]) // DAY_MS), -(-end_ms // DAY_MS))
    start, look = (grid.ravel() for grid in np.meshgrid(starts, starts + 1, indexing="ij"))
    later = (look > start) & (look * DAY_MS <= end_ms)
    start, look = np.append(base_ms[0] // DAY_MS, start[later]), np.append(end_ms // DAY_MS, look[later])
    first, last = (
        np.searchsorted(past.epochs.base_ms, start * DAY_MS),
        np.searchsorted(ended_ms, look * DAY_MS, "right"),
    )
    first[0], last[0] = begin, np.searchsorted(ended_ms, end_ms, "right")
    some = last > first
    some[0] = True
    return start[some], look[some], first[some], np.maximum(last, first)[some]


def _newest_truth_ms(past: Past) -> int:
    """When the newest interval ended whose truth is there."""
    known = np.flatnonzero(np.isfinite(past.truth))
    return int(past.epochs.base_ms[known[-1]]) + past.topic.horizon_ms if len(known) else 0


def _all(found: Mapping[str, Looks]) -> Bools:
    passed: Bools = np.logical_and.reduce([of.passed for of in found.values()])
    return passed


def _days(start: Ints, look: Ints, passed: Bools) -> tuple[Days, float | None]:
    """Over the starts that were followed for long enough."""
    start, look, passed = start[1:], look[1:], passed[1:]  # the first record is the whole replay
    if not len(start):
        return Days(median=None, p90=None, never=1.0), None
    followed = min(FOLLOWED_DAYS, (int(look.max()) - int(start.min()) + 1) // 2)
    first_days, later, held_later = [], 0, 0
    for day in np.unique(start):
        mine = start == day
        if look.max() - day < followed:
            continue
        of_mine = passed[mine][np.argsort(look[mine])]
        if not of_mine.any():
            first_days.append(math.inf)
            continue
        at = int(np.argmax(of_mine))
        first_days.append(float(np.sort(look[mine])[at] - day))
        later, held_later = later + len(of_mine) - at - 1, held_later + int(of_mine[at + 1 :].sum())
    median, p90 = (float(np.quantile(first_days, share, method="higher")) for share in (0.5, 0.9))
    days = Days(
        median=median if math.isfinite(median) else None,
        p90=p90 if math.isfinite(p90) else None,
        never=float(np.mean(np.isinf(first_days))),
    )
    return days, held_later / later if later else None


# -- in words ---------------------------------------------------------------------------------------------------------


def _short(past: Past, shown: Mapping[int, Standing], known_s: int) -> str:
    if not shown[known_s].criteria:
        return "nothing to judge yet: there are too few days of klines; more days help"
    return "nothing is short" if shown[known_s].eligible else _help(past, shown, known_s)


def _help(past: Past, shown: Mapping[int, Standing], known_s: int) -> str:
    """The first of: more wait, more days, more spread; or that nothing known to us does."""
    ours = shown[known_s]
    better = [
        seconds
        for seconds, standing in shown.items()
        if seconds > known_s and (standing.days.never, -standing.eligible) < (ours.days.never, -ours.eligible)
    ]
    if better:
        return f"more wait would help: ANSWER_WAIT={min(better)}"
    failed = {name: of for name, of in ours.criteria.items() if not of.passed}
    if list(failed) == ["log_aspect"]:
        return "more spread would help: OBJECTIVE=admission"
    if "participation" in failed:
        return "answering more than nine of ten epochs would help: candles are missing"
    span_days = float(np.isfinite(past.truth).sum()) * past.epochs.length_ms / DAY_MS
    needed = max(
        (_days_needed(of, span_days) for name, of in failed.items() if name != "log_aspect"), default=span_days
    )
    if needed <= PATIENT_DAYS:
        return f"more days would help: about {needed:.0f} in all" if failed else "more days would help"
    return "neither a longer wait nor more days would help"


def _days_needed(criterion: Criterion, span_days: float) -> float:
    """Days until the bound would hold, were the value to stay: its distance falls with the root of the days."""
    value, bound = criterion.value, criterion.bound
    if value is None or bound is None:
        return math.inf
    if value == bound:  # n_eff
        return span_days * 20 / value if value > 0 else math.inf
    above = value - 0.5 if value - 0.5 > 0 and bound > 0 and value > 0.5 and bound <= 0.5 else value
    return span_days * ((value - bound) / above) ** 2 if above > 0 else math.inf
