"""``birnn data verify``, ``gaps`` and ``trim``."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.data.shared import (
    VENUE_WAIT_S,
    IntervalsOption,
    Series,
    SymbolsOption,
    answers_in_time,
    minute_text,
    name_of,
    open_store,
    say_where,
    show,
    stored,
)
from cli.screen import JsonOption, print_json, say
from cli.verbs import DataOption, one_line_errors, settings_from
from core.clock import DAY_MS, SystemClock, iso
from core.errors import ConfigError
from klines.spans import interval_name

if TYPE_CHECKING:  # polars and the rest load only where a verb needs them
    from klines.spans import Span
    from market.store.files.comparison import Compared
    from market.store.home_store import HomeStore
    from market.venue import Venue


@one_line_errors
def verify(
    data_dir: DataOption = None,
    symbol: SymbolsOption = None,
    interval: IntervalsOption = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Set damaged files aside and take out days of something else, for sync to fetch anew; write tails "
            "anew.",
        ),
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not compare the days with a venue's.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read every stored file and compare each day with a venue's, if a venue answers.

    Status 1 if a file is damaged, a tail differs from its months, or a day holds another series.
    """
    from market.store.inspection import gaps, inspect, tail_fault  # noqa: PLC0415

    homes = open_store(data_dir)
    table: list[dict[str, str | int]] = []
    notes, faults = [], 0
    with ExitStack() as stack:
        for one in stored(homes, symbol, interval):
            store = homes.home_store(one[0])
            if repair:
                stack.enter_context(store.writing())
            files, tail = inspect(store, *one), tail_fault(store, *one)
            damaged = [file for file in files if file.fault]
            notes += [f"{file.path}: {file.fault}" for file in damaged]
            faults += len(damaged) + bool(tail)
            if tail:
                notes.append(f"tail of {name_of(one)}: {tail}")
            notes += [f"{name_of(one)}: {rejected}" for rejected in [store.rejected(*one)] if rejected]
            if repair and damaged:
                notes += [f"set aside: {path}" for path in store.repair(*one)]
            if repair and (damaged or tail):
                store.repair_tail(*one)
                notes.append(f"tail of {name_of(one)}: written anew")
            latest, first, rows = store.latest(*one), store.first(*one), 0
            ends = ("", "")
            if latest is not None and first is not None:
                lost = sum(gap.end_ms - gap.start_ms for gap in gaps(store, *one))
                rows = (latest + one[1] - first - lost) // one[1]
                ends = iso(first), iso(latest)
            counts: dict[str, str | int] = {"series": name_of(one), "files": len(files), "rows": rows}
            state = {"damaged": len(damaged), "tail": "differs" if tail else "agrees"}
            table.append(counts | dict(zip(("first", "newest"), ends, strict=True)) | state)
        if not offline:
            odd, said_of_days = _compare_days(data_dir, homes, stored(homes, symbol, interval))
            notes += said_of_days
            faults += len(odd)
            for one, spans in odd if repair else ():
                taken = sum(homes.home_store(one[0]).remove(*one, span) for span in spans)
                notes.append(f"taken out: {taken:,} klines of {name_of(one)} in {len(spans)} days")
    if as_json:
        print_json({"series": table, "notes": notes})
        raise typer.Exit(1 if faults and not repair else 0)
    show(table)
    for note in notes:
        say(note)
    say_where(homes)
    if faults and repair:
        say("birnn data sync fetches what is missing now")
    elif faults:
        say("birnn data verify --repair sets damaged files aside, takes out those days and writes tails anew")
        raise typer.Exit(1)


def _compare_days(
    data_dir: Path | None, store: "HomeStore", wanted: Sequence[Series]
) -> tuple[list[tuple[Series, "Sequence[Span]"]], list[str]]:
    """The days of each series that differ from a venue's, and a line for each series."""
    from market.store.files.comparison import days_say  # noqa: PLC0415

    def ask(venues: "Sequence[Venue]", _: str) -> "Iterator[Compared]":
        return (days_say(venues, one[0], store.read(*one, 0, 2**62)) for one in wanted)

    heard = answers_in_time(data_dir, wanted[0][0], ask)
    said = [f"days of {name_of(one)}: {found.fault}" for one, found in zip(wanted, heard, strict=False) if found.fault]
    others: dict[str, list[str]] = {}
    for one, found in zip(wanted, heard, strict=False):
        if not found.fault:
            others.setdefault(found.words, []).append(name_of(one))
    said += [f"days of {', '.join(names)}: {words}" for words, names in others.items()]
    if len(heard) < len(wanted):
        names = ", ".join(map(name_of, wanted[len(heard) :]))
        said.append(f"days of {names}: not compared with a venue: no answer within {VENUE_WAIT_S:.0f} s")
    return [(one, found.spans) for one, found in zip(wanted, heard, strict=False) if found.fault], said


@one_line_errors
def gaps(
    data_dir: DataOption = None,
    symbol: SymbolsOption = None,
    interval: IntervalsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Gaps between the first and the newest stored kline, and whether the venue has no klines or rejected ones."""
    from market.store.inspection import gaps as gaps_of  # noqa: PLC0415

    store = open_store(data_dir)
    table: list[dict[str, str | int]] = []
    empty = []
    for one in stored(store, symbol, interval):
        if store.latest(*one) is None:
            empty.append(name_of(one))
        for gap in gaps_of(store.home_store(one[0]), *one):
            row: dict[str, str | int] = {"series": name_of(one), "from": iso(gap.start_ms), "to": iso(gap.end_ms)}
            row["rows"] = (gap.end_ms - gap.start_ms) // one[1]
            asked = "" if gap.absent_ms is None else minute_text(gap.absent_ms)
            found = f"rows rejected: {gap.why}" if gap.why else "no klines"
            row["venue's answer"] = f"{found} (asked {asked})" if asked else "not asked yet"
            table.append(row)
    if as_json:
        print_json({"gaps": table, "empty": empty})
        return
    if table:
        show(table)
    if empty:
        say(f"no klines at all: {', '.join(empty)}; run birnn data sync")
    elif not table:
        say("no gaps")
    say_where(store)


@one_line_errors
def trim(
    data_dir: DataOption = None,
    symbol: SymbolsOption = None,
    interval: IntervalsOption = None,
    keep_days: Annotated[
        int | None,
        typer.Option(help="Keep so many days; what trainings and a backtest read when not given.", min=1, max=36500),
    ] = None,
) -> None:
    """Delete whole months that nothing reads any more, and damaged files set aside more than a month ago."""
    store, settings, now_ms = open_store(data_dir), settings_from(data_dir=data_dir), SystemClock().now_ms()
    deleted = 0
    series = set(stored(store, symbol, interval))
    for folder in store.folders():  # also of venues that were the home before
        for one in sorted(series & {*folder.series()}):
            oldest_ms = _oldest_ms(one[1], settings.training_days, keep_days, now_ms)
            gone = [] if oldest_ms is None else folder.trim(*one, oldest_ms)
            deleted += len(gone)
            if gone:
                say(f"{name_of(one)}: deleted {', '.join(path.name for path in gone)}")
    if not deleted:
        say("nothing is old enough to be deleted")
    say_where(store)


def _oldest_ms(interval_ms: int, training_days: int, keep_days: int | None, now_ms: int) -> int | None:
    """The oldest open time to keep; None to keep everything, for an interval that no training reads.

    Raises:
        ConfigError: a training reads more than ``keep_days``.
    """
    from market.store.retention import kept_from_ms  # noqa: PLC0415
    from model.panels import PANELS, training_start_ms  # noqa: PLC0415

    panels = [panel for panel in PANELS.values() if panel.interval_ms == interval_ms]
    starts = [training_start_ms(panel, training_days, now_ms) for panel in panels]
    if keep_days is None:
        return kept_from_ms(starts[0]) if starts else None
    oldest_ms = now_ms - keep_days * DAY_MS
    if starts and oldest_ms > starts[0]:
        needed = -(-(now_ms - starts[0]) // DAY_MS)
        raise ConfigError(
            f"--keep-days {keep_days}: a training with TRAINING_DAYS={training_days} reads {needed} days of "
            f"{interval_name(interval_ms)}; keep as many, set fewer TRAINING_DAYS, or trim another --interval alone"
        )
    return oldest_ms
