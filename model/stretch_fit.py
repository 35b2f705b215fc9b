"""How far a topic's answers have to be stretched, by what its last 30 days would have been answered."""

from dataclasses import dataclass

import numpy as np

from core.clock import DAY_MS
from market.klines import Floats
from model.admission import ASPECT, FLOOR, effective_rows, log_aspect
from model.features import Bools
from model.replay import Past
from model.stretch import NONE, Stretch, before_data, stretched_volatility

LOOKED_AT_DAYS, RECORD_DAYS = 30, 7  # of epochs; a record of the second is to have the aspect
SURE = 0.95  # of the records
LEAST_RECORDS = 1
LEAST_ROWS = 20  # of a record, with a truth and an answer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretched:
    """A topic's answers, stretched day by day with what had come true by that day's midnight."""

    answers: Floats  # (E,) in the criteria's terms
    newest: Stretch  # by all that has come true


def stretched(past: Past, unstretched: Floats, known_min: int) -> Stretched:
    """Walk through the days with a new stretch at each midnight.

    Args:
        unstretched: ``(E,)`` answers of ``model.replay`` with so many minutes known.
    """
    base_ms, result = past.epochs.base_ms, np.array(unstretched)
    if not len(base_ms):
        return Stretched(answers=result, newest=_before(past, known_min))
    days = np.arange(base_ms[0] // DAY_MS, base_ms[-1] // DAY_MS + 2) * DAY_MS
    needed = np.array([_needed(past, unstretched, int(day)) for day in days])
    newest = NONE
    for number, day in enumerate(days):
        looked_at = needed[max(0, number - LOOKED_AT_DAYS + RECORD_DAYS) : number + 1]
        newest = _stretch(past, unstretched, int(day), looked_at[np.isfinite(looked_at)], known_min)
        today = slice(*np.searchsorted(base_ms, [day, day + DAY_MS]))
        if past.head.kind.is_volatility:
            result[today] = np.log(stretched_volatility(unstretched[today], 1.0, -past.back[today], newest))
        else:
            result[today] = newest.factor * unstretched[today]
    return Stretched(answers=result, newest=newest)


def _before(past: Past, known_min: int) -> Stretch:
    return NONE if past.head.kind.is_volatility else before_data(past.topic.horizon_min, known_min)


def _rows(past: Past, unstretched: Floats, moment_ms: int, days: int) -> tuple[slice, Bools]:
    """The epochs of so many days whose interval had ended by a moment; which of them have truth and answer."""
    end = past.ended_before(moment_ms)
    span = slice(int(np.searchsorted(past.epochs.base_ms, moment_ms - days * DAY_MS)), end)
    there = np.isfinite(past.truth[span] + past.fitted[span] + unstretched[span]) & (past.truth[span] != 0)
    return span, there


def _needed(past: Past, unstretched: Floats, moment_ms: int) -> float:
    """log10 of the least factor with which the record of the days before a moment has the aspect."""
    span, there = _rows(past, unstretched, moment_ms, RECORD_DAYS)
    early = past.epochs.base_ms[:1] > moment_ms - RECORD_DAYS * DAY_MS
    if early.any() or there.sum() < LEAST_ROWS:
        return np.nan
    truth, answer = ((values[span] - past.fitted[span])[there] for values in (past.truth, unstretched))
    if np.std(answer) <= FLOOR:
        return np.nan
    n_eff = effective_rows(truth, past.epochs.number[span][there], past.epochs.ratio)
    value, error = log_aspect(truth, answer, n_eff)
    return -ASPECT - value - error


def _stretch(past: Past, unstretched: Floats, moment_ms: int, needed: Floats, known_min: int) -> Stretch:
    factor = max(1.0, 10 ** float(np.quantile(needed, SURE))) if len(needed) >= LEAST_RECORDS else None
    if not past.head.kind.is_volatility:
        return Stretch(factor=factor) if factor else _before(past, known_min)
    span, there = _rows(past, unstretched, moment_ms, LOOKED_AT_DAYS)
    if not there.any():
        return NONE
    came_true, answered = past.truth[span][there], unstretched[span][there]
    newest = past.ended_before(moment_ms) - 1
    return Stretch(
        factor=factor or 1.0,
        shift=float(np.mean(came_true - answered)),
        middle=float(np.mean(came_true - past.fitted[span][there])),
        intercept=float(past.intercept[newest]),
        slope=float(past.slope[newest]),
    )
