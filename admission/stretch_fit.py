"""Fit a topic's stretch to the replayed answers of the last 30 days."""

from dataclasses import dataclass

import numpy as np

from admission.criteria import ASPECT, FLOOR, effective_rows, log_aspect
from admission.replay import Past
from core.clock import DAY_MS
from core.settings import Objective
from klines.klines import Floats
from model.features import FLAT, Bools
from model.judging.evaluation import TopicForecasts
from model.stretch import NONE, Stretch, before_data, stretched_volatility

LOOKED_AT_DAYS, RECORD_DAYS = 30, 7  # of epochs; records of RECORD_DAYS shall have the aspect
SURE = 0.95  # share of the records that shall have it
# The aspect of all the days together: the error allowed to a short record shrinks as the record grows, and a record of
# weeks would lose its aspect (docs/decisions/0010).
LASTING = 0.48
LEAST_ROWS = 20  # of a record, with truth and answer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretched:
    """A topic's answers; the stretch of a day is fitted to the truths known at the day's first midnight."""

    answers: Floats  # (E,) in the criteria's terms
    newest: Stretch  # by all known truths


def stretched(past: Past, unstretched: Floats, known_min: int, objective: Objective) -> Stretched:
    """Walk through the days with a new stretch at each midnight.

    Args:
        unstretched: ``(E,)`` answers of ``admission.replay`` with ``known_min`` minutes known.
        objective: of ``objective_of``: LOSS stretches nothing; AUTO stretches only if the answers still lose less than
            the plain naive forecast.
    """
    base_ms, result = past.epochs.base_ms, np.array(unstretched)
    if objective is Objective.LOSS or not len(base_ms):
        return Stretched(answers=result, newest=NONE)
    days = np.arange(base_ms[0] // DAY_MS, base_ms[-1] // DAY_MS + 2) * DAY_MS
    needed = np.array([_needed(past, unstretched, int(day)) for day in days])
    newest = NONE
    for number, day in enumerate(days):
        looked_at = needed[max(0, number - LOOKED_AT_DAYS + RECORD_DAYS) : number + 1]
        newest = _stretch(past, unstretched, int(day), looked_at[np.isfinite(looked_at)], known_min, objective)
        today = slice(*np.searchsorted(base_ms, [day, day + DAY_MS]))
        result[today] = _applied(past, unstretched, today, newest)
    return Stretched(answers=result, newest=newest)


def _applied(past: Past, unstretched: Floats, span: slice, stretch: Stretch) -> Floats:
    if not past.head.kind.is_volatility:
        return stretch.factor * unstretched[span]
    answer: Floats = np.log(stretched_volatility(unstretched[span], 1.0, -past.back[span], stretch))
    return answer


def _span(past: Past, unstretched: Floats, moment_ms: int, days: int) -> tuple[slice, Bools]:
    """Return the epochs of the last ``days`` that ended by a moment, and a mask of epochs with truth and answer."""
    first = int(np.searchsorted(past.epochs.base_ms, moment_ms - days * DAY_MS))
    span = slice(first, max(first, past.ended_before(moment_ms)))
    there = np.isfinite(past.truth[span] + past.fitted[span] + unstretched[span])
    return span, there


def _needed(past: Past, unstretched: Floats, moment_ms: int) -> float:
    """log10 of the least factor that gives the record before a moment the aspect; NaN: no record."""
    span, there = _span(past, unstretched, moment_ms, RECORD_DAYS)
    if past.epochs.base_ms[0] > moment_ms - RECORD_DAYS * DAY_MS + past.epochs.length_ms or there.sum() < LEAST_ROWS:
        return np.nan
    came_true, answered = _beyond_fit(past, unstretched, span, there)
    if not np.std(answered) > FLOOR:
        return np.nan
    moved = past.truth[span][there] != 0
    n_eff = effective_rows(came_true[moved], past.epochs.number[span][there][moved], past.epochs.ratio)
    value, error = log_aspect(came_true, answered, n_eff)
    return -ASPECT - value - error


def _beyond_fit(past: Past, unstretched: Floats, span: slice, there: Bools) -> tuple[Floats, Floats]:
    """Truths and answers less the trailing fit."""
    return (past.truth[span] - past.fitted[span])[there], (unstretched[span] - past.fitted[span])[there]


def _stretch(
    past: Past, unstretched: Floats, moment_ms: int, needed: Floats, known_min: int, objective: Objective
) -> Stretch:
    """The stretch by the truths known at a moment."""
    volatility = past.head.kind.is_volatility
    span, there = _span(past, unstretched, moment_ms, LOOKED_AT_DAYS)
    factor = 1.0
    if len(needed):
        came_true, answered = _beyond_fit(past, unstretched, span, there)
        lasting = -LASTING - float(np.log10(np.std(answered) / np.std(came_true)))
        factor = max(1.0, 10 ** max(lasting, float(np.quantile(needed, SURE))))
    elif objective is Objective.ADMISSION and not volatility:
        return before_data(past.topic.horizon_min, known_min)
    if not volatility:
        stretch = Stretch(factor=factor)
    elif there.any():
        came_true, answered = past.truth[span][there], unstretched[span][there]
        shift = float(np.mean(came_true - answered)) if objective is Objective.ADMISSION else 0.0
        newest = past.ended_before(moment_ms) - 1
        stretch = Stretch(
            factor=factor,
            shift=shift,
            middle=float(np.mean(answered + shift - past.fitted[span][there])),
            intercept=float(past.intercept[newest]),
            slope=float(past.slope[newest]),
        )
    else:
        return NONE
    if objective is Objective.AUTO and not (stretch.factor > 1 and _saves(past, unstretched, span, there, stretch)):
        return NONE
    return stretch


def _saves(past: Past, unstretched: Floats, span: slice, there: Bools, stretch: Stretch) -> bool:
    """True if the stretched answers still lost less than the plain naive forecast, in the topic's loss."""
    answer = _applied(past, unstretched, span, stretch)[there]
    came_true, base = past.truth[span][there], past.base[span][there]
    of_change = past.head.kind.is_volatility
    lost = TopicForecasts(
        topic=past.topic,
        open_time_ms=past.epochs.base_ms[span][there],
        came_true=base * np.exp(came_true) if of_change else came_true,
        forecast=base * np.exp(answer) if of_change else answer,
        naive=base if of_change else np.zeros(len(answer)),
        close=base,
        std=max(float(np.std(came_true)), FLAT),
    )
    return float(np.mean(lost.losses)) < float(np.mean(lost.naive_losses))
