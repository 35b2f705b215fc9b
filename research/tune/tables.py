"""The result of ``birnn tune``: trials beside the default, the confirmation, and the adoption."""

import math
from collections.abc import Iterator

from optuna.trial import FrozenTrial
from pydantic import JsonValue
from rich.box import SIMPLE
from rich.table import Table

from admission.words import ONE_NAIVE
from core.show.words import counted, p_text, ratio_text
from model.training.config import CONFIGS
from research.data import span_text
from research.tune.search import needed_min
from research.tune.trials import searched
from research.tune.tune import LEVEL, Found
from research.words import NAIVE_WORDS

SHOWN = 5  # trials beside the references
NAMES_WIDTH, TRIAL_WIDTH = 22, 11  # columns of the settings' names and of a trial, with the gap beside them
EXACT = 1e-12  # of a score (logarithm of a ratio); smaller is rounding


def tables(found: Found, width: int = 132) -> Iterator[Table | str]:
    """One panel's outcome as tables.

    Args:
        width: of the screen, in columns; a narrow one shows fewer trials.
    """
    room = (width - NAMES_WIDTH) // TRIAL_WIDTH - len(found.references)
    default, shown = found.references[0], (*found.references, *found.best[: max(1, min(SHOWN, room))])
    names = [str(trial.user_attrs.get("what") or f"trial {trial.number}") for trial in shown]
    trials = _table("", *names)
    yield f"\n{found.panel} panel: mean loss / naive of {counted(found.topics, 'topic')} on the rows searched on"
    trials.add_row("loss / naive", *(_ratio(trial.value or 0.0) for trial in shown))
    trials.add_row("to the default", *(_percent((trial.value or 0.0) - (default.value or 0.0)) for trial in shown))
    trials.add_row("CPU seconds", *(f"{trial.user_attrs['cpu_s']:.0f}" for trial in shown))
    for knob in searched(CONFIGS[found.panel]):
        trials.add_row(knob, *(f"{trial.params[knob]:.3g}" for trial in shown))
    yield trials
    yield ONE_NAIVE
    if all(_is_naive(trial.value or 0.0) for trial in shown):
        yield f"{NAIVE_WORDS}, {'whatever the settings' if len(shown) > 1 else 'with these settings'}"
    if found.tried:
        yield f"{counted(found.tried, 'trial')}, {len(found.best)} to the end; the others were given up on the way"
    if found.importances:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in found.importances.items())
        yield f"what the scores depended on: {shares}"
    for what, pairs in found.pairs.items():
        confirmation = _table("judged in the newest part of", "seed", "trial", what, "difference")
        for pair in pairs:
            ours, theirs = (_ratio(score) for score in (pair.ours, pair.theirs))
            span = span_text(pair.fold.start_ms, pair.fold.end_ms)
            confirmation.add_row(span, str(pair.seed), ours, theirs, _percent(pair.ours - pair.theirs))
        yield f"trial {found.best[0].number} and the {what} settings on rows that no trial saw"
        yield confirmation
    yield _conclusion(found)


def as_plain(found: Found) -> dict[str, JsonValue]:
    """One panel's outcome as JSON; ratios are loss over naive loss."""

    def plain(trial: FrozenTrial) -> dict[str, JsonValue]:
        ratio = None if trial.value is None else math.exp(trial.value)
        name = trial.user_attrs.get("what")
        return {"trial": trial.number, "name": name, "ratio_to_naive": ratio, "settings": dict(trial.params)}

    return {
        "panel": found.panel,
        "topics": found.topics,
        "tried": found.tried,
        "references": [plain(trial) for trial in found.references],
        "best": [plain(trial) for trial in found.best],
        "importances": dict(found.importances),
        "confirmations": {
            what: [
                {
                    "from_ms": pair.fold.start_ms,
                    "to_ms": pair.fold.end_ms,
                    "seed": pair.seed,
                    "trial": math.exp(pair.ours),
                    "beside": math.exp(pair.theirs),
                }
                for pair in pairs
            ]
            for what, pairs in found.pairs.items()
        },
        "chances": dict(found.chances),
        "adopted": None if found.adopted is None else str(found.adopted),
        "conclusion": _conclusion(found),
    }


def _conclusion(found: Found) -> str:
    if not found.best:
        return (
            "nothing is adopted: no trial ran to its end. Give this panel at least "
            f"{counted(needed_min(found.references[0]), 'minute')} (--minutes is for all panels together)"
        )
    best = found.best[0]
    if _is_naive(best.value or 0.0) and all(_is_naive(trial.value or 0.0) for trial in found.references):
        return "nothing is adopted: no settings make more of these topics than the naive forecast"
    if not found.pairs:
        return "nothing is adopted: no trial was better than what it is compared with; the same command tries more"
    chances = " and ".join(f"{p_text(chance)} against the {what}" for what, chance in found.chances.items())
    if not found.better:
        return (
            f"nothing is adopted: on rows that no trial saw, the chance of trial {best.number}'s lead by luck is "
            f"{chances} (must be below {LEVEL:g})"
        )
    if found.adopted is None:
        return f"trial {best.number} is better (chance by luck {chances}); with --no-adopt nothing is written"
    return (
        f"adopted: trial {best.number} (chance by luck {chances}) is in {found.adopted}; the next training of the "
        f"{found.panel} panel reads it"
    )


def _is_naive(score: float) -> bool:
    return abs(score) < EXACT


def _ratio(score: float) -> str:
    return ratio_text(math.exp(score), is_naive=_is_naive(score))


def _percent(logarithm: float) -> str:
    return "same" if abs(logarithm) < EXACT else f"{100 * math.expm1(logarithm):+.2f} %"


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
