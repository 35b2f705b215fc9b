"""A topic's readiness: its epochs replayed, stretched and judged, and the advice that follows."""

from collections.abc import Mapping

import numpy as np

from admission.criteria import PATIENT_DAYS, days_needed
from admission.readiness import Errors, Readiness, Standing
from admission.replay import BLOCK_MS, Past, answers, epochs_between, past_of
from admission.standing import standing_of
from admission.stretch_fit import stretched
from core.clock import DAY_MS, MINUTE_MS
from core.settings import Objective
from core.topic import Topic
from klines.klines import Floats, Klines

SHOWN_MIN = (0, 1, 2)  # whole known minutes: klines hold no more, and no answer waits longer


def readiness(
    topic: Topic,
    klines: Klines,
    rest: Floats | None,
    *,
    known_s: float,
    objective: Objective,
    block_ms: float | None = None,
    nonce_ms: int = 0,
) -> Readiness:
    """Replay a topic over its klines.

    Args:
        klines: of one minute, of the topic's symbol.
        rest: as for ``admission.replay.answers``.
        known_s: seconds of the interval that ANSWER_WAIT guarantees to be known.
        objective: of ``objective_of``.
        block_ms: measured time between two blocks; None if it was not measured.
        nonce_ms: as for ``epochs_between``.
    """
    start_ms = int(klines.open_time_ms[0]) if len(klines) else 0
    epochs = epochs_between(topic, start_ms, klines.end_ms, block_ms or BLOCK_MS, nonce_ms)
    past = past_of(topic, klines, epochs)
    answered = np.flatnonzero(np.isfinite(rest)) if rest is not None else np.empty(0, np.int64)
    judged_ms = int(klines.open_time_ms[answered[0]]) if len(answered) else start_ms
    shown, stretches, errors = {}, {}, {}
    for known_min in SHOWN_MIN:
        unstretched = answers(past, klines, rest, known_min)
        errors[60 * known_min] = _errors(past, unstretched, answers(past, klines, None, known_min), judged_ms)
        walked = stretched(past, unstretched, known_min, objective)
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
        block_ms=block_ms,
        replayed_days=len(klines) * MINUTE_MS / DAY_MS,
        network_days=len(answered) * MINUTE_MS / DAY_MS,
        errors=errors,
    )


def _errors(past: Past, unstretched: Floats, knowing: Floats, start_ms: int) -> Errors:
    judged = (past.epochs.base_ms >= start_ms) & np.isfinite(past.truth + unstretched + knowing)
    ours, with_known, without = (
        float(np.sum((past.truth - forecast)[judged] ** 2))
        for forecast in (unstretched, knowing, np.zeros(len(unstretched)))
    )
    return Errors(
        over_knowing=ours / with_known if with_known else None, over_plain=ours / without if without else None
    )


def _short(past: Past, shown: Mapping[int, Standing], known_s: int) -> str:
    if not shown[known_s].criteria:
        return "nothing to judge yet: there are too few days of klines; more days help"
    return "nothing is short" if shown[known_s].eligible else _help(past, shown, known_s)


def _help(past: Past, shown: Mapping[int, Standing], known_s: int) -> str:
    """The first advice that helps: more wait, more spread, more answers, more days; or that nothing would."""
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
    needed = max((days_needed(of, span_days) for name, of in failed.items() if name != "log_aspect"), default=span_days)
    if needed <= PATIENT_DAYS:
        return f"more days would help: about {needed:.0f} in all" if failed else "more days would help"
    return "neither a longer wait nor more days would help"
