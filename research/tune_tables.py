"""What ``birnn tune`` shows at the end: the trials beside the default, the confirmation, and what became of it."""

import math
from collections.abc import Iterator

from optuna.trial import FrozenTrial
from rich.box import SIMPLE
from rich.table import Table

from model.training_config import CONFIGS
from research.data import span_text
from research.search import LAST_TRIALS
from research.trials import searched
from research.tune import LEVEL, Found
from research.words import counted, p_text, ratio_text

SHOWN = 5


def tables(found: Found) -> Iterator[Table | str]:
    """One panel's outcome as people read it."""
    default, shown = found.references[0], (*found.references, *found.best[:SHOWN])
    names = [str(trial.user_attrs.get("what") or f"trial {trial.number}") for trial in shown]
    trials = _table("", *names)
    yield f"\n{found.panel} panel: mean loss / naive of {counted(found.topics, 'topic')} on the rows searched on"
    trials.add_row("loss / naive", *map(_ratio, shown))
    trials.add_row("to the default", *(_percent((trial.value or 0.0) - (default.value or 0.0)) for trial in shown))
    trials.add_row("CPU seconds", *(f"{trial.user_attrs['cpu_s']:.0f}" for trial in shown))
    for knob in searched(CONFIGS[found.panel]):
        trials.add_row(knob, *(f"{trial.params[knob]:.3g}" for trial in shown))
    yield trials
    if found.tried:
        yield f"{counted(found.tried, 'trial')}, {len(found.best)} to the end; the others were given up on the way"
    if found.importances:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in found.importances.items())
        yield f"what the scores depended on: {shares}"
    for what, pairs in found.pairs.items():
        confirmation = _table("judged in the newest part of", "seed", "trial", what, "difference")
        for pair in pairs:
            ours, theirs = (ratio_text(math.exp(score)) for score in (pair.ours, pair.theirs))
            span = span_text(pair.fold.start_ms, pair.fold.end_ms)
            confirmation.add_row(span, str(pair.seed), ours, theirs, _percent(pair.ours - pair.theirs))
        yield f"trial {found.best[0].number} and the {what} settings on rows that no trial saw"
        yield confirmation
    yield _conclusion(found)


def _conclusion(found: Found) -> str:
    if not found.best:
        needed = math.ceil((1 + LAST_TRIALS) * found.references[0].user_attrs["wall_s"] / 60)
        return (
            "nothing is adopted: no trial ran to its end. One like the default and its confirmation take about "
            f"{counted(needed, 'minute')} here: give this panel several times that with --minutes"
        )
    best = found.best[0]
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


def _ratio(trial: FrozenTrial) -> str:
    return ratio_text(math.exp(trial.value or 0.0))


def _percent(logarithm: float) -> str:
    return f"{100 * math.expm1(logarithm):+.2f} %"


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
