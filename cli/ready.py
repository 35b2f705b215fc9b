"""``birnn ready``: whether the network would admit this worker to mainnet, by topic and by the seven criteria."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from admission.criteria import NOT_DEFINED, Criterion
from admission.live import LiveReadiness
from admission.readiness import FILE, Errors, Readiness, Standing, read_admission
from admission.replay import BLOCK_MS
from admission.words import CRITERIA, standing_words
from cli.ready_live import live_words
from cli.screen import Column, table_of
from core.clock import SECOND_MS, iso
from core.errors import ConfigError, IncompatibleModel, WorkerError
from core.show.words import counted, days_words, number_text, percent_text, ratio_text
from core.topic import Topic

GOOD, BAD = "green", "red"
ERRORS = (
    "/ naive: squared error of the answers, before the stretch, over the naive forecast's, on the days that the "
    "network answered (else on all). The knowing naive forecast knows the same beginning of the interval, the plain "
    "one nothing of it."
)
Found = list[tuple[Topic, Readiness | None]]  # None: the updater has not looked at the topic yet


def chosen(topics: Sequence[Topic], ids: Sequence[int], network: str | None) -> list[Topic]:
    """Return the configured topics with the given ids and network, in order.

    Raises:
        ConfigError: no topic has that network or id; the message lists the existing ones.
    """
    networks = sorted({topic.network for topic in topics if topic.network})
    if network is not None and network not in networks:
        there_are = ", ".join(networks) or "none with a name"
        raise ConfigError(f"--network {network}: the config has no such network; it has {there_are}")
    there = [topic for topic in topics if network in {None, topic.network}]
    for topic_id in ids:
        if topic_id not in {topic.topic_id for topic in there}:
            known = ", ".join(str(topic.topic_id) for topic in sorted(there, key=_place))
            raise ConfigError(f"--topic {topic_id}: the config has no such topic; it has {known}")
    return sorted((topic for topic in there if not ids or topic.topic_id in ids), key=_place)


def _place(topic: Topic) -> tuple[str, int]:
    return topic.network or "", topic.topic_id


def found_in(folder: Path, topics: Sequence[Topic]) -> tuple[int, Found]:
    """Return the time of the newest admission.json, and the readiness of each topic.

    Raises:
        WorkerError: nothing was computed yet, or the file cannot be read; says what to do.
    """
    try:
        made_ms, readiness = read_admission(folder)
    except IncompatibleModel as error:
        raise WorkerError(f"{error}, or delete the file: the updater writes it again") from error
    if not made_ms:
        raise WorkerError(
            f"{folder / FILE}: not there yet; the updater writes it within minutes of its start and after each "
            "training: wait (birnn status says how far it is), or run birnn train"
        )
    return made_ms, [(topic, readiness.get(topic.key)) for topic in topics]


def ready_json(found: Found, live: Mapping[str, LiveReadiness]) -> list[dict[str, Any]]:
    """The standing of each topic, and of its real record as ``live``; null where nothing is known.

    Args:
        live: by ``Topic.key``; empty if the ledger could not be read.
    """
    return [
        _entry(topic, one) | {"live": live[topic.key].to_json() if topic.key in live else None} for topic, one in found
    ]


def _entry(topic: Topic, one: Readiness | None) -> dict[str, Any]:
    nothing = {
        "eligible": False,
        "known_s": None,
        "days": {"median": None, "p90": None, "never": None},
        "holds": None,
        "criteria": {},
    }
    entry = {"network": topic.network, "topic_id": topic.topic_id, **(asdict(one.standing) if one else nothing)}
    entry["criteria"] = entry["criteria"] or dict.fromkeys(CRITERIA, asdict(NOT_DEFINED))
    return entry


def ready_parts(found: Found, made_ms: int, width: int, live: Mapping[str, LiveReadiness]) -> Iterator[RenderableType]:
    """The same as people read it.

    Args:
        made_ms: when it was computed.
        width: of the screen, in columns.
        live: as for ``ready_json``.
    """
    yield Text(headline([one for _, one in found]), style="bold")
    yield f"computed {iso(made_ms)[:16].replace('T', ' ')}Z on a replay of each topic's own epochs"
    for topic, one in found:
        yield _sentence(topic, one)
    for topic, one in found:
        real = live.get(topic.key)
        if one is None and not (real and real.criteria):
            continue
        yield Text(f"\n{_name(topic)}", style="bold")
        if one:
            yield from _replay_parts(topic, one, width)
        if real:
            yield Text.assemble("really answered: ", Text(live_words(real), style=GOOD if real.eligible else BAD))
            if real.criteria:
                yield criteria_table(real.criteria, width, "really answered; ")
    if any(one and one.errors for _, one in found):
        yield Text(f"\n{ERRORS}")


def _replay_parts(topic: Topic, one: Readiness, width: int) -> Iterator[RenderableType]:
    standing = one.standing
    if standing.criteria:
        yield criteria_table(standing.criteria, width, f"replayed with {standing.known_s} s known; ")
    yield _known_table(one, width)
    if one.replayed_days:
        yield Text(_replay_words(topic, one))


def _replay_words(topic: Topic, one: Readiness) -> str:
    """Say which forecaster answered in the replay, and which block time the replay assumed."""
    days, of_network = one.replayed_days, one.network_days
    who = f"the network answered all {days_words(days)} of the replay"
    if of_network < days:
        newest = (
            f"the network answered the newest {days_words(of_network)}, which it had not seen" if of_network else ""
        )
        others = "the knowing naive forecast answered " + ("the others" if of_network else "all")
        who = f"of {days_words(days)} replayed {newest}{', and ' * bool(newest)}{others}"
    if topic.epoch_length_blocks is None:
        blocks = "its epoch is not known: taken to be as long as the horizon"
    elif one.block_ms is None:
        blocks = f"a block takes {BLOCK_MS / SECOND_MS:g} s (assumed: too few block times are recorded)"
    else:
        blocks = f"a block takes {one.block_ms / SECOND_MS:.2f} s (measured)"
    return f"{who}; {blocks}"


def _sentence(topic: Topic, one: Readiness | None) -> Text:
    if one is None:
        said = Text("not looked at yet: the updater does so within minutes of its start and after each training")
    else:
        said = Text(admission_words(one), style=GOOD if one.standing.eligible else BAD)
    return Text.assemble(f"{_name(topic)}: ", said)


def headline(found: Sequence[Readiness | None]) -> str:
    """Say how many topics would be admitted, and when."""
    admitted = [one.standing for one in found if one and one.standing.eligible]
    medians = [one.days.median for one in admitted if one.days.median is not None]
    days = "day" if medians == [1] else "days"
    after = f": after a median of {_listed([f'{median:g}' for median in sorted(medians)])} {days}" if medians else ""
    unknown = sum(one is None for one in found)
    later = f"; {unknown} not looked at yet" if unknown else ""
    return f"{len(admitted) or 'none'} of {counted(len(found), 'topic')} would be admitted{after}{later}"


def admission_words(one: Readiness) -> str:
    """Say in one sentence if and when a topic would be admitted."""
    failed = [name for name, criterion in one.standing.criteria.items() if not criterion.passed]
    return standing_words(one.standing, failed, one.short)


def in_order(readiness: Mapping[str, Readiness]) -> list[tuple[str, Readiness]]:
    """Topics of the file by network and number."""
    return sorted(readiness.items(), key=lambda item: (item[1].network or "", item[1].topic_id))


class News:
    """Reads admission.json each time that the file was written anew.

    Args:
        folder: DATA_DIR, the folder of the file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: object = None

    def lines(self) -> list[str]:
        """Return a short sentence for each topic; empty if the file has not changed, is missing or cannot be read."""
        try:
            written = (self._folder / FILE).stat().st_mtime_ns
            if written == self._seen:
                return []
            self._seen = written
            _, found = read_admission(self._folder)
        except (IncompatibleModel, OSError):  # birnn ready says what is wrong with it
            return []
        return [f"topic {one.topic_id}: {_in_short(one.standing)}" for _, one in in_order(found)]


def _in_short(standing: Standing) -> str:
    """Say if and when a topic would be admitted, short enough for a line of the log."""
    if standing.eligible:
        median = standing.days.median
        return "admitted" + ("" if median is None else f" after {days_words(median)} (median)")
    short = sum(not criterion.passed for criterion in standing.criteria.values())
    return "not admitted" + (f", {short} of {len(standing.criteria)} criteria fall short" if short else "")


def criteria_table(criteria: Mapping[str, Criterion], width: int, of: str = "") -> RenderableType:
    """The seven, with what decides.

    Args:
        of: the beginning of its title: what it was computed of.
    """
    columns = (
        Column(heading="criterion"),
        Column(heading="", wraps=True),
        Column(heading="value", right=True),
        Column(heading="bound", right=True),
        Column(heading="bound must be", wraps=True),
        Column(heading="holds"),
    )
    rows = [
        (
            name,
            CRITERIA[name][0],
            number_text(one.value),
            number_text(one.bound),
            CRITERIA[name][1],
            Text("yes", style=GOOD) if one.passed else Text("no", style=BAD),
        )
        for name, one in criteria.items()
    ]
    return table_of(columns, rows, width, title=f"{of}the bound decides, not the value")


def _known_table(one: Readiness, width: int) -> RenderableType:
    """Admission by how much of the interval is known when it is answered; the standing's row is marked."""
    columns = (
        Column(heading="known"),
        Column(heading="admitted"),
        Column(heading="median days", right=True, wraps=True),
        Column(heading="9 of 10 starts", right=True, wraps=True),
        Column(heading="never", right=True),
        Column(heading="held later", right=True, wraps=True),
        Column(heading="/ knowing naive", right=True, wraps=True),
        Column(heading="/ plain naive", right=True, wraps=True),
    )
    nothing = Errors(over_knowing=None, over_plain=None)
    rows = [
        (
            f"{known_s} s{' (now)' if known_s == one.standing.known_s else ''}",
            "yes" if standing.eligible else "no",
            *_days_cells(standing),
            _share(standing.holds),
            *_error_cells(one.errors.get(known_s, nothing)),
        )
        for known_s, standing in sorted(one.shown.items())
    ]
    return table_of(columns, rows, width)


def _error_cells(errors: Errors) -> tuple[str, str]:
    over = errors.over_knowing
    return ratio_text(over, is_naive=over == 1), ratio_text(errors.over_plain)


def _days_cells(standing: Standing) -> tuple[str, str, str]:
    days = standing.days
    return _days(days.median), _days(days.p90), _share(days.never)


def _days(days: float | None) -> str:
    return "never" if days is None else f"{days:g}"


def _share(share: float | None) -> str:
    return "" if share is None else percent_text(share)


def _name(topic: Topic) -> str:
    network = f" on {topic.network}" if topic.network else ""
    return f"topic {topic.topic_id}{network}, {topic.token} {topic.target.replace('_', '-')} {topic.horizon}"


def _listed(parts: Sequence[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last
