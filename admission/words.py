"""Sentences about the criteria of admission and about a topic's standing."""

from collections.abc import Sequence

from admission.readiness import Standing
from core.show.words import days_words, share_words

CRITERIA = {  # by name in admission.criteria: the words, and the condition on the bound
    "n_eff": ("independent rows", "at least 20"),
    "direction": ("right directions", "above 0.5"),
    "pearson": ("correlation", "above 0"),
    "wrmse": ("gain in weighted RMSE", "above 0"),
    "wczar": ("gain in weighted CZAR", "above 0"),
    "log_aspect": ("log10 of the spreads' ratio", "-0.5 to 0.5"),
    "participation": ("epochs answered", "above 0.9"),
}
ONE_NAIVE = "judged at the base, nothing known: knowing naive and plain naive are the same"
SHORT_CRITERIA = {"wrmse": "weighted RMSE", "wczar": "weighted CZAR", "log_aspect": "spread", "n_eff": "rows"}


def criteria_words(names: Sequence[str]) -> str:
    """Join the short names of criteria into a phrase.

    >>> criteria_words(["n_eff", "direction", "log_aspect"]), criteria_words(["wczar"])
    ('rows, right directions and spread', 'weighted CZAR')
    """
    *others, last = [SHORT_CRITERIA.get(name, CRITERIA[name][0]) for name in names] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def standing_words(standing: Standing, failed: Sequence[str], advice: str = "") -> str:
    """Say in one sentence if and when a topic would be admitted.

    Args:
        failed: names of the criteria that do not hold over all days.
        advice: what the operator can do, or why the topic cannot be judged.
    """
    days = standing.days
    if standing.eligible:
        after = "" if days.median is None else f" after a median of {days_words(days.median)}"
        holds = standing.holds
        later = "" if holds is None else f"; the criteria hold on {share_words(holds)} of the later days"
        return f"would be admitted{after}{later}"
    if not standing.criteria:
        return advice
    short = f"short of {criteria_words(failed)}" if failed else "one of the two baselines is not beaten"
    begun = f"records begun on {share_words(1 - days.never)} of the days"
    some = f"over all days {short}, though {begun} met all seven at some time"
    return "; ".join(part for part in (f"would not be admitted: {some if days.never < 1 else short}", advice) if part)
