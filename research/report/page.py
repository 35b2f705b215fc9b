"""``report.html``: one file that needs no other, for a phone and for a wide screen, by day and by night.

The text and the tables are in ``templates/``; here are the pictures and the small functions that the templates call.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from admission.words import CRITERIA, ONE_NAIVE
from core.show.words import number_text, p_text, ratio_text
from core.topic import split_symbol
from research.report.plots import direction_plot, forecast_and_truth, loss_over_time, reliability_plot
from research.report.scores import NEWEST, SERVED, SURE, Scored
from research.words import AT_THE_BASE, criteria_met, label

NOTHING_GAINED = 0.99995  # a ratio from here on reads 1.0000

Figure = tuple[str, str]  # a picture as SVG, and its caption


class TopicFigures(NamedTuple):
    """The pictures of a topic."""

    shown: Sequence[Figure]
    before_calibration: Sequence[Figure]  # drawn large, the noise that calibration took out would look like skill


def page(report: Mapping[str, Any], scored: Sequence[Scored]) -> str:
    """The whole page.

    Args:
        report: as in report.json.
        scored: the rows behind its topics, in the same order.
    """
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            drawn_topics=[
                (topic, _topic_figures(topic, rows)) for topic, rows in zip(report["topics"], scored, strict=True)
            ],
            drawn_directions=[
                _direction_figure(group["deciles"], " / ".join(group["horizons"]))
                for group in report["pooled_directions"]
            ],
            gate=_gate(report),
            criteria=CRITERIA,
            at_the_base=AT_THE_BASE,
            ONE_NAIVE=ONE_NAIVE,
            SERVED=SERVED,
            NEWEST=NEWEST,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("research.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "base": _base,
        "criteria_met": criteria_met,
        "decision": _decision,
        "difference": lambda number: f"{number:+.3g}" if number else "same",
        "is_best": _is_best,
        "kind": _kind,
        "label": label,
        "mark": _mark,
        "name": _name,
        "number": number_text,
        "p": p_text,
        "ratio": _ratio,
        "thousands": lambda number: f"{number:,.0f}",
        "why": _why,
        "words": _words,
    }
    return environment


def _topic_figures(topic: Mapping[str, Any], rows: Scored) -> TopicFigures:
    is_naive = SERVED in topic["equal_to_naive"]
    if not rows.is_return:
        against_truth = "The last two days"
    elif is_naive:
        against_truth = "What is served, which is no move, and what the network said against what came true, a sample"
    else:
        against_truth = "What the network says against what came true, a sample"
    figures = [
        (
            loss_over_time(topic),
            "Loss against naive over time: falling gains on it, the end is the whole lead; where a line that leaves "
            "the picture ends stands in the legend",
        ),
        (forecast_and_truth(rows, is_naive), against_truth),
        (
            reliability_plot(topic, rows.topic.unit),
            "Mean outcome by tenth of the forecast, and where it lies in 95 of 100 cases; on the dotted line a "
            f"forecast means what it says{' (before calibration)' if rows.is_return else ''}; grey: the mean of all "
            "rows",
        ),
    ]
    if rows.is_return:
        picture, _ = _direction_figure(topic["direction"]["deciles"], topic["topic"])
        figures.append((picture, "Direction by confidence; band: 95 of 100 coins"))
    shown = 2 if rows.is_return and is_naive else len(figures)
    return TopicFigures(figures[:shown], figures[shown:])


def _direction_figure(deciles: Sequence[Mapping[str, Any]], name: str) -> Figure:
    return direction_plot(deciles, name), f"{name}: direction by confidence"


def _gate(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The dates of the gate's decisions, and each topic's decision at each date, or None."""
    times = sorted({decision["time_ms"] for decision in report["decisions"]})
    dates = sorted({step["from"][:10] for step in report["steps"]})
    date_of = dict(zip(times, dates, strict=False))
    by_place = {
        (decision["topic"], decision["time_ms"]): {**decision, "date": date_of[decision["time_ms"]]}
        for decision in report["decisions"]
    }
    decided = {
        topic["topic"]: [by_place.get((topic["topic"], time_ms)) for time_ms in times] for topic in report["topics"]
    }
    return {"dates": [date[5:] for date in dates], "decided": decided}


def _mark(decision: Mapping[str, Any]) -> str:
    mark = _decision(decision)
    return f"demoted, {mark}" if decision["demoted"] and mark != "demoted" else mark


def _decision(decision: Mapping[str, Any]) -> str:
    """Name a decision for the page: a network equal to the naive forecast is not shown as promoted in green."""
    return "naive" if decision["naive"] else str(decision["decision"])


def _why(decision: Mapping[str, Any]) -> str:
    return "; challenger: ".join(part for part in (decision["demoted"], decision["reason"]) if part)


def _words(value: Any) -> str:
    """A value of the fingerprint; digests are shortened."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def _name(topic: Mapping[str, Any]) -> str:
    number = "unseen" if topic["unseen"] else topic["topic"].rpartition("/")[2]
    return f"{number} · {_base(topic['symbol'])} {topic['target'].replace('_', '-')} {topic['horizon']}"


def _base(symbol: str) -> str:
    return split_symbol(symbol, "")[0]


def _ratio(topic: Mapping[str, Any], name: str) -> str:
    return ratio_text(topic["ratio_to_naive"].get(name), is_naive=name in topic["equal_to_naive"])


def _kind(topic: Mapping[str, Any], ours: str, more: str = "") -> str:
    """The class of a ratio: good, bad or neither, with ``more`` added if there was something to test."""
    p = None if ours in topic["equal_to_naive"] else topic["against"][ours]["naive"]["dm_p"]
    if p is None:
        return ""
    colour = "good" if p < SURE else "bad" if p > 1 - SURE else ""
    return f"{colour} {more}".strip()


def _is_best(topic: Mapping[str, Any], name: str) -> bool:
    """True if no other baseline has a lower loss, and the naive forecast has a higher loss."""
    ratios, others = topic["ratio_to_naive"], set(topic["ratio_to_naive"]) - {SERVED, NEWEST}
    best = min((ratios[other] for other in others if ratios[other] is not None), default=1.0)
    return bool(ratios.get(name) == best < NOTHING_GAINED)
