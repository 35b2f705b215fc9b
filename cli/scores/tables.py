"""The scores as people read them, and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from cli.scores.summary import By, Summary
from cli.screen import Column, table_of
from core.clock import iso
from core.logs import short_version
from core.show.words import counted
from core.topic import Topic
from model.judging.skill import CONFIDENCE, Skill

GOOD, BAD = "green", "red"
WHOLE_IDS = 140  # columns; a screen this wide shows whole ids of versions
LEGEND = (
    f"skill: 1 - loss / naive loss, with its {100 * CONFIDENCE:.0f} % interval; the naive forecast knows what the "
    "answer knew. right: share of right directions. error: mean size in basis points."
)
Found = Sequence[tuple[Topic, Sequence[Summary]]]


def scores_json(found: Found, by: By, since_ms: int, until_ms: int) -> dict[str, Any]:
    """The document of ``birnn scores --json``, but for its answers."""
    rows = [
        {**topic_fields(topic), **({} if by is By.TOPIC else {by.value: one.name}), **summary_fields(one)}
        for topic, several in found
        for one in several
    ]
    return {"since": iso(since_ms), "until": iso(until_ms), "by": by.value, "scores": rows}


def topic_fields(topic: Topic) -> dict[str, Any]:
    """What a row of any document says of its topic."""
    return {
        "network": topic.network,
        "topic_id": topic.topic_id,
        "token": topic.token,
        "target": topic.target.value,
        "horizon": topic.horizon,
    }


def summary_fields(one: Summary) -> dict[str, Any]:
    """A summary but for its name."""
    fields = asdict(one)
    del fields["name"]
    return fields


def scores_parts(found: Found, by: By, since_ms: int, until_ms: int, width: int) -> Iterator[RenderableType]:
    """The same as people read it.

    Args:
        width: of the screen, in columns.
    """
    total = sum(one.skill.n for _, several in found for one in several)
    yield Text(f"{counted(total, 'scored answer')} whose interval ended {span_words(since_ms, until_ms)}", style="bold")
    yield _table(found, by, width)
    for topic, several in found:
        for one in several:
            for reason, count in one.not_scorable.items():
                of = f" {one.name}" if one.name else ""
                yield Text(f"topic {_name(topic, found)}{of}: {count:,} not scorable: {reason}")
    yield Text(LEGEND)


def _table(found: Found, by: By, width: int) -> RenderableType:
    columns = (
        Column(heading="topic"),
        Column(heading="asks" if by is By.TOPIC else by.value, wraps=by is not By.DAY),
        Column(heading="n", right=True),
        Column(heading="loss", right=True),
        Column(heading="naive loss", right=True, wraps=True),
        Column(heading="skill", wraps=True),
        Column(heading="right", right=True),
        Column(heading="error", right=True),
        Column(heading="bias bp", least_width=100, right=True),
        Column(heading="not scorable", right=True, wraps=True),
    )
    rows = [
        (
            _name(topic, found),
            _second(topic, one, by, width),
            f"{one.skill.n:,}",
            number(one.loss),
            number(one.naive_loss),
            skill_text(one.skill),
            "" if one.right_direction is None else f"{100 * one.right_direction:.0f} %",
            basis_points(one.abs_error_bp),
            basis_points(one.error_bp),
            f"{sum(one.not_scorable.values()) or '':,}" if one.not_scorable else "",
        )
        for topic, several in found
        for one in several
    ]
    return table_of(columns, rows, width)


def _second(topic: Topic, one: Summary, by: By, width: int) -> str:
    if by is By.TOPIC:
        return f"{topic.token} {topic.target.replace('_', '-')} {topic.horizon}"
    return one.name if width >= WHOLE_IDS or by is By.DAY else short_version(one.name)


def _name(topic: Topic, found: Found) -> str:
    several = len({of.network for of, _ in found}) > 1
    return topic.key if several else str(topic.topic_id)


def skill_text(skill: Skill) -> Text:
    """A skill and its interval in per cent; green or red where the interval leaves 0 out.

    >>> str(skill_text(Skill(n=9, skill=0.1234, low=-0.02, high=0.2668)))
    '12.3 % (-2.0 to 26.7)'
    """
    if skill.skill is None:
        return Text("")
    if skill.low is None or skill.high is None:
        return Text(f"{100 * skill.skill:.1f} % (too few)")
    style = GOOD if skill.low > 0 else BAD if skill.high < 0 else ""
    return Text(f"{100 * skill.skill:.1f} % ({100 * skill.low:.1f} to {100 * skill.high:.1f})", style=style)


def number(value: float | None) -> str:
    """A loss, to four digits."""
    return "" if value is None else f"{value:.4g}"


def basis_points(value: float | None) -> str:
    """An error, to three digits."""
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def span_words(since_ms: int, until_ms: int) -> str:
    """A span for people.

    >>> span_words(0, 86_460_000)
    'from 1970-01-01 00:00 to 1970-01-02 00:01 UTC'
    """
    first, last = (iso(ms)[:16].replace("T", " ") for ms in (since_ms, until_ms))
    return f"from {first} to {last} UTC"
