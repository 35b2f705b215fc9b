"""How the pages write skills, ages, versions and numbers."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from admission.words import criteria_words
from core.clock import DAY_MS, HOUR_MS, SECOND_MS, iso
from core.show.words import counted, duration
from core.sources import PERSISTENCE
from model.judging.skill import Skill
from monitor.api import AdmissionShape, CriterionShape, State
from monitor.snapshot import Snapshot, TopicView
from updater.state import PanelState

SPANS = {"1d": "today", "7d": "7 days", "30d": "30 days"}


def percent(share: float) -> str:
    """A share in per cent; one digit more where it is small.

    >>> percent(0.1234), percent(-0.0042), percent(0.0), percent(-0.00001)
    ('12', '-0.4', '0', '0')
    """
    text = f"{100 * share:.0f}" if abs(share) >= 0.0995 else f"{100 * share:.1f}"
    return text.removesuffix(".0").replace("-0", "0") if float(text) == 0 else text.removesuffix(".0")


def skill_value(skill: Skill) -> str:
    """
    >>> skill_value(Skill(n=9, skill=0.123, low=0.04, high=0.2))
    '+12 %'
    """
    if skill.skill is None:
        return "-"
    text = percent(skill.skill)
    return f"{'' if text == '0' or text.startswith('-') else '+'}{text} %"


def skill_interval(skill: Skill) -> str:
    """
    >>> skill_interval(Skill(n=9, skill=0.123, low=0.04, high=0.2))
    '4 to 20 %'
    """
    if skill.low is None or skill.high is None:
        return ""
    if skill.low == skill.high == 0:
        return "as naive"
    return f"{percent(skill.low)} to {percent(skill.high)} %"


def skill_words(skill: Skill) -> str:
    """
    >>> skill_words(Skill(n=9, skill=0.123, low=0.04, high=0.2))
    '+12 % (4 to 20 %)'
    >>> skill_words(Skill(n=9, skill=-0.1, low=None, high=None))
    '-10 %'
    """
    interval = skill_interval(skill)
    return f"{skill_value(skill)} ({interval})" if interval else skill_value(skill)


def skill_verdict(skill: Skill) -> str:
    """What a skill says.

    >>> skill_verdict(Skill(n=9, skill=-0.2, low=-0.3, high=-0.1))
    'worse than naive'
    """
    if skill.skill is None:
        return "not scored yet"
    if skill.low is None or skill.high is None:
        return "too short a record to judge"
    if skill.low == skill.high == 0:
        return "equal to naive"
    return (
        "worse than naive"
        if skill.high < 0
        else "better than naive"
        if skill.low > 0
        else "not told apart from naive yet"
    )


def skill_class(skill: Skill, note: str = "") -> str:
    """Class of the style sheet.

    Args:
        note: why a skill below 0 is no fault; empty without a reason.
    """
    return {"worse than naive": "" if note else "bad", "better than naive": "good"}.get(skill_verdict(skill), "")


def headline(snapshot: Snapshot) -> str:
    """What is wrong, in one line. Nothing is called well before it was seen."""
    wrong = len(snapshot.alarms) + len(snapshot.faults)
    if wrong:
        return f"{counted(wrong, 'thing')} {'is' if wrong == 1 else 'are'} wrong"
    if not snapshot.watched.inference.answers:
        return "Inference does not answer"
    broken = sum(view.state is State.BROKEN for view in snapshot.topics)
    return f"{counted(broken, 'topic')} not answered" if broken else "Nothing is wrong"


def why_worst(view: TopicView) -> str:
    """Why a topic is the worst, in a sentence.

    Only the version that answers now can be blamed or replaced, so its own record stands beside the topic's.
    """
    if view.state in {State.BROKEN, State.UNKNOWN}:
        return view.why
    span, skill = view.judged
    if skill.skill is None:
        return f"no answer has been scored yet; {view.why}"
    parts = [f"{skill_verdict(skill)} over {SPANS[span] if span != '1d' else 'the last day'}: {skill_words(skill)}"]
    if view.model:
        own = view.by_version.get(view.model)
        parts.append(
            f"{version_words(view.model)} answers, {skill_words(own)} in {own.n:,} answers"
            if own and own.n
            else f"{version_words(view.model)} answers, not scored yet"
        )
    else:
        parts.append(view.why)
    if view.note and skill.skill < 0:
        parts.append("part of it is the stretch for admission")
    return "; ".join(parts)


def version_words(version: str) -> str:
    """A version as its panel and the end of its id.

    >>> version_words("minute-20261122T084500Z-1a2b3c"), version_words("persistence")
    ('minute network 1a2b3c', 'naive')
    """
    if version == PERSISTENCE:
        return "naive"
    panel, _, rest = version.partition("-")
    return f"{panel} network {rest.rpartition('-')[2]}" if rest else version


def age(ms: float) -> str:
    """
    >>> age(4_200), age(7_200_000), age(3 * 86_400_000), age(-5)
    ('4 s', '2 h 0 min', '3.0 days', '0 s')
    """
    return f"{ms / DAY_MS:.1f} days" if ms >= 2 * DAY_MS else duration(max(0.0, ms / SECOND_MS))


def when(ms: int, now_ms: int) -> str:
    """A moment: the time, and the day if it is not within half a day of now.

    >>> when(1_700_000_000_000, 1_700_000_000_000), when(1_700_000_000_000, 1_800_000_000_000)
    ('22:13 UTC', '2023-11-14 22:13 UTC')
    """
    text = iso(ms)
    return f"{text[11:16]} UTC" if abs(now_ms - ms) < 12 * HOUR_MS else f"{text[:10]} {text[11:16]} UTC"


def shown_number(value: str | float | None, digits: int = 7) -> str:
    """A number without an exponent; a text that is not a finite number stays as it is.

    >>> shown_number("2755.055001470885"), shown_number(-0.00000752244749386763), shown_number(98790.0)
    ('2,755.055', '-0.000007522447', '98,790')
    >>> shown_number('[["up","0.5"],["down","0.25"]]'), shown_number("NaN")
    ('[["up","0.5"],["down","0.25"]]', 'NaN')
    """
    if value is None or value == "":
        return "-"
    try:
        number = float(value)
    except ValueError:
        return str(value)
    if not math.isfinite(number):
        return str(value)
    return f"{Decimal(f'{number:.{digits}g}'):,f}"


def criteria_count(criteria: Mapping[str, CriterionShape]) -> str:
    passed = sum(one.passed for one in criteria.values())
    return f"{passed} of {len(criteria)}" if criteria else "-"


def admission_cell(admission: AdmissionShape | None) -> tuple[str, str]:
    """The standing in two or three words, and what is short; of the real record if there is one."""
    if admission is None:
        return "-", ""
    live = admission.live
    criteria = live.criteria if live and live.criteria else admission.criteria
    if not criteria:
        return "-", admission.words
    failed = [name for name, one in criteria.items() if not one.passed]
    source = "live" if live and live.criteria else "replay"
    if not failed:
        return f"all {len(criteria)}, {source}", ""
    return f"{criteria_count(criteria)}, {source}", f"short of {criteria_words(failed)}"


class Change(NamedTuple):
    """A line of a champion's history."""

    at_ms: int
    what: str
    reason: str


def history(view: TopicView) -> Sequence[Change]:
    """What is known of a topic's champions, newest first: who serves, who was demoted, the last challenger."""
    changes = [
        Change(
            one.demoted_ms,
            f"{version_words(one.champion.version)} demoted; "
            f"{version_words(one.successor) if one.successor else 'the naive forecast'} serves",
            one.reason,
        )
        for one in view.demotions
    ]
    champion, last = view.champion, view.judgement
    if champion is not None:
        own = last is not None and last.version == champion.version
        before = f" in place of {version_words(champion.previous)}" if champion.previous else ""
        changes.append(
            Change(
                champion.since_ms,
                f"{version_words(champion.version)} became champion{before}",
                last.verdict.reason if last and own else "its training is not the last one: see the updater's log",
            )
        )
    if last is not None and not last.verdict.promoted:
        changes.append(
            Change(last.finished_ms, f"{version_words(last.version)} did not become champion", last.verdict.reason)
        )
    return sorted(changes, reverse=True)


def training_now(panel: PanelState) -> str:
    """What a panel does now."""
    if panel.running_since_ms:
        left = f", about {duration(panel.left_s)} left" if panel.left_s is not None else ""
        share = f", {panel.per_cent:.0f} %{left}" if panel.per_cent is not None else ""
        return f"training{share}" + (f" ({panel.progress})" if panel.progress else "")
    return f"waits: {panel.due}" if panel.due else "idle"


def training_last(panel: PanelState, now_ms: int) -> str:
    """How a panel's last training ended."""
    last = panel.outcome
    if last is None:
        return "none has ended yet"
    promoted = sum(verdict.promoted and not verdict.adds_nothing for verdict in last.verdicts)
    at = f"{when(last.finished_ms, now_ms)}, took {duration(last.took_s)}"
    ended = (
        f"a network with skill in {promoted} of {len(last.verdicts)} topics" if last.ok else f"failed: {last.reason}"
    )
    missing = "; ".join(f"{symbol} left out ({why})" for symbol, why in last.missing.items())
    return "; ".join(part for part in (at, ended, missing) if part)


def training_next(panel: PanelState, now_ms: int) -> str:
    """When a panel is trained next."""
    if panel.due:
        return "at once"
    if panel.next_try_ms:
        failures = f"{panel.failures} failures in a row" if panel.failures > 1 else "the last training failed"
        return f"{when(panel.next_try_ms, now_ms)}, a new try after {failures}"
    return when(panel.next_run_ms, now_ms) if panel.next_run_ms else "not planned yet"
