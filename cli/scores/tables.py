"""The scores as people read them, and as JSON."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from cli.scores.summary import MOST_REASONS, By, Summary
from cli.screen import ROOMY, Column, plain, table_of
from core.clock import iso
from core.logs import short_version
from core.topic import Topic
from ledger.answers import Answer
from ledger.scores import Score
from model.judging.skill import CONFIDENCE, Skill
from monitor.api import AnswerShape

GOOD, BAD = "green", "red"
WHOLE_IDS = 140  # columns; a screen this wide shows whole ids of versions
NUMBERS = (
    Column(heading="n", right=True),
    Column(heading="loss", right=True),
    Column(heading="naive", right=True),
    Column(heading="skill", right=True),
    Column(heading="interval", right=True),
    Column(heading="right", right=True),
    Column(heading="error", right=True),
    Column(heading="bias", least_width=ROOMY, right=True),
)
LEGEND = (
    f"naive: the loss of the naive forecast that knows what the answer knew; skill: 1 - loss / naive, with its "
    f"{100 * CONFIDENCE:.0f} % interval; right: share of right directions; error: its mean size in basis points"
)
Found = Sequence[tuple[Topic, Sequence[Summary]]]
Answered = Sequence[tuple[Topic, Sequence[tuple[Answer, Score | None]]]]


def scores_json(found: Found, newest: Answered, by: By, since_ms: int, until_ms: int, note: str) -> dict[str, Any]:
    """The document of ``birnn scores --json``."""
    rows = [
        {**topic_fields(topic), **({} if by is By.TOPIC else {by.value: one.name}), **summary_fields(one)}
        for topic, several in found
        for one in several
    ]
    given = [
        {**topic_fields(topic), **AnswerShape.of(*row).model_dump()} for topic, several in newest for row in several
    ]
    return {
        "since": iso(since_ms),
        "until": iso(until_ms),
        "by": by.value,
        "note": note,
        "scores": rows,
        "answers": given,
    }


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


def scores_parts(found: Found, by: By, since_ms: int, until_ms: int, width: int, note: str) -> Iterator[RenderableType]:
    """The same as people read it.

    Args:
        width: of the screen, in columns.
        note: why a skill below 0 is no fault; empty without a reason.
    """
    total = sum(one.skill.n for _, several in found for one in several)
    noun = "answer" if total == 1 else "answers"
    yield Text(f"{total:,} scored {noun} whose interval ended {span_words(since_ms, until_ms)}", style="bold")
    networks = {topic.network: None for topic, _ in found}
    for network in networks:
        here = [(topic, several) for topic, several in found if topic.network == network]
        yield _table(here, by, width, (network or "") if len(networks) > 1 else "")
        for topic, several in here:
            missing = sum((Counter(one.not_scorable) for one in several), Counter[str]())
            for reason, count in missing.most_common(MOST_REASONS):
                yield Text(plain(f"topic {topic.topic_id}: {count:,} not scorable: {reason}"))
    yield Text(LEGEND)
    if note:
        yield Text(note)


def _table(found: Found, by: By, width: int, title: str) -> RenderableType:
    columns = (
        Column(heading="topic"),
        Column(heading="asks" if by is By.TOPIC else by.value, wraps=True),
        *NUMBERS,
        Column(heading="not scorable", least_width=ROOMY, right=True),
    )
    rows = [
        (
            str(topic.topic_id),
            _second(topic, one, by, width),
            *number_cells(one),
            f"{sum(one.not_scorable.values()):,}" if one.not_scorable else "",
        )
        for topic, several in found
        for one in several
    ]
    return table_of(columns, rows, width, title=title)


def number_cells(one: Summary) -> tuple[str | Text, ...]:
    """The cells of NUMBERS."""
    return (
        f"{one.skill.n:,}",
        number(one.loss),
        number(one.naive_loss),
        *skill_cells(one.skill),
        "" if one.right_direction is None else f"{100 * one.right_direction:.0f} %",
        basis_points(one.abs_error_bp),
        basis_points(one.error_bp),
    )


def _second(topic: Topic, one: Summary, by: By, width: int) -> str:
    if by is By.TOPIC:
        return f"{topic.token} {topic.target.replace('_', '-')} {topic.horizon}"
    return plain(one.name if width >= WHOLE_IDS or by is By.DAY else short_version(one.name))


def skill_cells(skill: Skill) -> tuple[Text, Text]:
    """A skill and its interval in per cent; green or red where the interval leaves 0 out.

    >>> [str(cell) for cell in skill_cells(Skill(n=9, skill=0.1234, low=-0.02, high=0.2668))]
    ['12.3 %', '-2.0..26.7']
    """
    if skill.skill is None:
        return Text(""), Text("")
    if skill.low is None or skill.high is None:
        return Text(f"{100 * skill.skill:.1f} %"), Text("too few")
    style = GOOD if skill.low > 0 else BAD if skill.high < 0 else ""
    interval = f"{100 * skill.low:.1f}..{100 * skill.high:.1f}"
    return Text(f"{100 * skill.skill:.1f} %", style=style), Text(interval, style=style)


def number(value: float | None) -> str:
    """A loss, to three digits."""
    return "" if value is None else f"{value:.3g}"


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
