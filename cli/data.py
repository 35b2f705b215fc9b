"""``birnn data VERB``: fetch klines, look whether the stored ones are whole, hand them out and take them in."""

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cli.market import market_for_once, market_of
from cli.place import is_tape, place_of
from cli.screen import ROOMY, Column, JsonOption, print_json, say, screen, table_of
from cli.verbs import ConfigOption, DataOption, one_line_errors, settings_from, topics_as_far_as_known
from core.clock import DAY_MS, HOUR_MS, SystemClock, iso
from core.data_folder import only_updater
from core.errors import SYMBOL_SETTING, ConfigError, MalformedKlines, WorkerError
from core.logs import configure_logging
from core.settings import Market, Settings
from klines.spans import INTERVALS, interval_name
from node.config_file import topics_from_config

if TYPE_CHECKING:  # polars and the rest load only where a verb needs them
    from types import FrameType

    from klines.checks import RejectedRow
    from klines.klines import Klines
    from klines.spans import Span
    from market.store.comparison import Heard, Tally
    from market.store.home_store import HomeStore
    from market.store.sync import SyncReport
    from market.store.table_files import KlineFile
    from market.venue import Venue
    from model.heads import PanelPlan

data_app = typer.Typer(no_args_is_help=True, help="The stored klines: sync, verify, gaps, export, import, trim.")

VENUE_TIMEOUT_S = 3.0  # of one answer
VENUE_WAIT_S = 8.0  # for all that a venue says of an import, or of what is stored
INTERVALS_MS = {name: interval_ms for interval_ms, name in INTERVALS.items()}

Series = tuple[str, int]  # (symbol, interval_ms)


def _upper(given: Any) -> Any:
    """Symbols as Binance writes them, however a person does."""
    if isinstance(given, str):
        return given.upper() if given.isascii() else given
    return [_upper(one) for one in given] if given else given


SymbolsOption = Annotated[
    list[str] | None, typer.Option("--symbol", help="Only this symbol; repeat it.", callback=_upper)
]
IntervalsOption = Annotated[
    list[str] | None, typer.Option("--interval", help="Only this interval, such as 1m or 1h; repeat it.")
]
SymbolOption = Annotated[str, typer.Option("--symbol", help="Such as ETHUSDT.", callback=_upper)]
IntervalOption = Annotated[str, typer.Option("--interval", help="Such as 1m or 1h.")]


def _interval_ms(text: str) -> int:
    if text not in INTERVALS_MS:
        raise ConfigError(f"--interval must be one of {', '.join(INTERVALS_MS)}, was {text!r}")
    return INTERVALS_MS[text]


def _day_ms(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{option} must be a UTC day or moment such as 2024-01-31, was {text!r}") from error


def _moment(ms: int) -> str:
    return iso(ms)[:16].replace("T", " ")


def _store(data_dir: Path | None) -> "HomeStore":
    """The store of the market in use."""
    from market.store.home_store import HomeStore  # noqa: PLC0415
    from market.store.migration import migrate  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    place = place_of(settings)
    simulated = place.market is Market.SIMULATED
    # What is wrong with a file, the verbs say.
    configure_logging("error", service="birnn", simulated=simulated, form=settings.log_format)
    root = place.folder / "klines"
    migrate(root, settings.venues[0])
    return HomeStore(root, settings.venues)


def _say_where(store: "HomeStore") -> None:
    """The line that ends what a verb says: which folder it was about."""
    say(f"klines: {_where(store)}")


def _where(store: "HomeStore") -> str:
    return f"{store.root}{' (SIMULATED)' if is_tape(store.root.parent) else ''}"


def _stored(store: "HomeStore", symbols: Sequence[str] | None, intervals: Sequence[str] | None) -> list[Series]:
    """The series that are there, of those asked for.

    Raises:
        ConfigError: there is none; says what there is.
    """
    wanted = {_interval_ms(text) for text in intervals or ()}
    there = store.series()
    if not there:
        raise ConfigError(
            f"{store.root}: no klines are stored there; run birnn data sync, or set DATA_DIR "
            "(MARKET=simulated: those of the simulated exchange)"
        )
    for symbol in symbols or ():
        if symbol not in {known for known, _ in there}:
            known = ", ".join(sorted({known for known, _ in there}))
            raise ConfigError(f"--symbol {symbol}: no klines of it in {store.root}; there are {known}")
    found = [one for one in there if (not symbols or one[0] in symbols) and (not wanted or one[1] in wanted)]
    if not found:
        names = ", ".join(_name(one) for one in there)
        raise ConfigError(f"--interval {', '.join(intervals or ())}: none such in {store.root}; there are {names}")
    return found


def _name(series: Series) -> str:
    return f"{series[0]}-{interval_name(series[1])}"


def _show(found: Sequence[dict[str, str | int]]) -> None:
    """A table of what ``--json`` has, moments to the minute."""
    console = screen()
    columns = [
        Column(heading=heading, wraps=number > 0, least_width=ROOMY if heading == "files" else 0)
        for number, heading in enumerate(found[0])
    ]
    console.print(table_of(columns, [[_cell(value) for value in one.values()] for one in found], console.width))


def _cell(value: str | int) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return value[:16].replace("T", " ") if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", value) else value


# -- sync -------------------------------------------------------------------------------------------------------------


@data_app.command()
@one_line_errors
def sync(
    config: ConfigOption = None,
    data_dir: DataOption = None,
    market: Annotated[
        Market | None,
        typer.Option(
            help="auto: Binance if it answers within three seconds, else the simulated exchange.", case_sensitive=False
        ),
    ] = None,
    symbol: SymbolsOption = None,
    interval: IntervalsOption = None,
    days: Annotated[
        int | None, typer.Option(help="So many days back; what a training reads when not given.", min=1, max=3650)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the stored klines up to now: those of the configured topics, as the updater does."""
    from model.heads import panels_for  # noqa: PLC0415
    from updater.progress import show_cursor_again  # noqa: PLC0415

    intervals = [_interval_ms(text) for text in interval or ()]
    with market_for_once(settings_from(config=config, data_dir=data_dir, market=market)) as local:
        plans = list(panels_for(topics_from_config(*local.config_files, node_version=local.node_version)).values())
        quiet = sys.stderr.isatty() and local.log_level == "info"  # a bar is shown in the place of the lines
        simulated = local.market is Market.SIMULATED
        level = "warning" if quiet else local.log_level
        configure_logging(level, service="birnn", simulated=simulated, form=local.log_format)
        now_ms = SystemClock().now_ms()
        wanted = _wanted(plans, symbol, intervals, days, local.training_days, now_ms)
        try:
            reports = _synced(local, wanted, now_ms)
        except KeyboardInterrupt:
            show_cursor_again()
            say("stopped; what has arrived is stored, and the same command goes on", to=sys.stderr)
            raise typer.Exit(130) from None
    for report in reports:
        line = _line_of(report)
        say(line.replace(SYMBOL_SETTING, "--symbol") if symbol else line)
    if as_json:
        print_json(
            [
                {
                    "venue": report.venue,
                    "symbol": report.symbol,
                    "interval": INTERVALS.get(report.interval_ms, str(report.interval_ms)),
                    "fetched": report.fetched,
                    "gaps": [{"from": iso(start_ms), "to": iso(end_ms)} for start_ms, end_ms in report.gaps],
                    "refused": report.refused,
                    "set_aside": [str(path) for path in report.set_aside],
                    "failure": str(report.failure or ""),
                }
                for report in reports
            ]
        )
    if any(report.failure for report in reports):
        raise typer.Exit(1)


def _wanted(
    plans: "Sequence[PanelPlan]",
    symbols: Sequence[str] | None,
    intervals: Sequence[int],
    days: int | None,
    training_days: int,
    now_ms: int,
) -> list[tuple[str, int, int]]:
    """``(symbol, interval_ms, start_ms)`` of each series asked for, or of each that the topics need."""
    from model.heads import PANELS, training_start_ms  # noqa: PLC0415

    needed = [(symbol, plan.panel.interval_ms) for plan in plans for symbol in plan.symbols]
    lengths = list(dict.fromkeys(intervals)) or [plan.panel.interval_ms for plan in plans]
    named = list(dict.fromkeys(symbols or (symbol for symbol, _ in needed)))
    usual = {interval_ms for _, interval_ms in needed}
    series = [
        (symbol, interval_ms)
        for interval_ms in lengths
        for symbol in named
        if symbols or interval_ms not in usual or (symbol, interval_ms) in needed
    ]
    panels = sorted(PANELS.values(), key=lambda panel: panel.interval_ms)

    def start_ms(interval_ms: int) -> int:
        if days is not None:
            return (now_ms - days * DAY_MS) // DAY_MS * DAY_MS
        panel = panels[-1 if interval_ms >= HOUR_MS else 0]
        return training_start_ms(panel, training_days, now_ms)

    return [(symbol, interval_ms, start_ms(interval_ms)) for symbol, interval_ms in series]


def _synced(settings: Settings, wanted: Sequence[tuple[str, int, int]], now_ms: int) -> "list[SyncReport]":
    """Sync, as the only updater of the folder."""
    from market.build import venues_from  # noqa: PLC0415
    from market.quarantine import Quarantine  # noqa: PLC0415
    from market.store.home_store import HomeStore, HomeSync  # noqa: PLC0415
    from market.store.migration import migrate  # noqa: PLC0415
    from updater.progress import progress_of  # noqa: PLC0415
    from updater.service import SYNC_PATIENCE_S, StoppableClock  # noqa: PLC0415

    stop = threading.Event()  # ends the waits of requests that are under way, so that Ctrl-C need not wait for them
    store = HomeStore(settings.klines_dir, settings.venues)
    for symbol, interval_ms, _ in wanted:
        store.latest(symbol, interval_ms)  # refuses what is no symbol before anything is fetched
    with _interrupts(stop), only_updater(settings.data_dir), progress_of("sync") as show:
        migrate(settings.klines_dir, settings.venues[0])
        clock, topics = StoppableClock(SystemClock(), stop), topics_as_far_as_known(settings)
        aside = Quarantine(settings.klines_dir)
        venues = venues_from(settings, clock, aside, topics=topics, patience_s=SYNC_PATIENCE_S)
        keeper = HomeSync(store, venues, aside, clock)
        return keeper.sync(wanted, now_ms, lambda done, rows: show(done, rows, "klines"))


@contextmanager
def _interrupts(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stop`` and raise KeyboardInterrupt."""

    def interrupt(_: int, __: "FrameType | None") -> NoReturn:
        stop.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line_of(report: "SyncReport") -> str:
    rows = sum(end - start for start, end in report.gaps) // report.interval_ms if report.gaps else 0
    parts = [
        f"{report.symbol}-{INTERVALS.get(report.interval_ms, report.interval_ms)}: {report.fetched} rows fetched",
        *(
            [f"{rows:,} missing in {len(report.gaps)} gap{'s' if len(report.gaps) > 1 else ''}"]
            if report.gaps
            else []
            if report.failure
            else ["no other gaps" if report.refused else "no gaps"]
        ),
    ]
    parts += [report.refused] if report.refused else []
    parts += [f"{path.name} was damaged and set aside" for path in report.set_aside]
    if report.failure:
        parts.append(f"FAILED: {report.failure}")
    if report.remark:
        parts.append(report.remark)
    return "; ".join(parts)


# -- looking ----------------------------------------------------------------------------------------------------------


@data_app.command()
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
    """Read every stored file and compare each day with a venue's, where one answers.

    Status 1 when a file is damaged, a tail is not as its months say, or a day is of something else.
    """
    from market.store.inspection import gaps, inspect, tail_fault  # noqa: PLC0415

    homes = _store(data_dir)
    table: list[dict[str, str | int]] = []
    notes, faults = [], 0
    with ExitStack() as stack:
        for one in _stored(homes, symbol, interval):
            store = homes.home_store(one[0])
            if repair:
                stack.enter_context(store.writing())
            files, tail = inspect(store, *one), tail_fault(store, *one)
            damaged = [file for file in files if file.fault]
            notes += [f"{file.path}: {file.fault}" for file in damaged]
            faults += len(damaged) + bool(tail)
            if tail:
                notes.append(f"tail of {_name(one)}: {tail}")
            notes += [f"{_name(one)}: {refused}" for refused in [store.refused(*one)] if refused]
            if repair and damaged:
                notes += [f"set aside: {path}" for path in store.repair(*one)]
            if repair and (damaged or tail):
                store.repair_tail(*one)
                notes.append(f"tail of {_name(one)}: written anew")
            latest, first, rows = store.latest(*one), store.first(*one), 0
            ends = ("", "")
            if latest is not None and first is not None:
                lost = sum(gap.end_ms - gap.start_ms for gap in gaps(store, *one))
                rows = (latest + one[1] - first - lost) // one[1]
                ends = iso(first), iso(latest)
            counts: dict[str, str | int] = {"series": _name(one), "files": len(files), "rows": rows}
            state = {"damaged": len(damaged), "tail": "differs" if tail else "agrees"}
            table.append(counts | dict(zip(("first", "newest"), ends, strict=True)) | state)
        if not offline:
            odd, said_of_days = _compare_days(data_dir, homes, _stored(homes, symbol, interval))
            notes += said_of_days
            faults += len(odd)
            for one, spans in odd if repair else ():
                taken = sum(homes.home_store(one[0]).remove(*one, span) for span in spans)
                notes.append(f"taken out: {taken:,} klines of {_name(one)} in {len(spans)} days")
    if as_json:
        print_json({"series": table, "notes": notes})
        raise typer.Exit(1 if faults and not repair else 0)
    _show(table)
    for note in notes:
        say(note)
    _say_where(homes)
    if faults and repair:
        say("birnn data sync fetches what is missing now")
    elif faults:
        say("birnn data verify --repair sets damaged files aside, takes out those days and writes tails anew")
        raise typer.Exit(1)


def _compare_days(
    data_dir: Path | None, store: "HomeStore", wanted: Sequence[Series]
) -> tuple[list[tuple[Series, "Sequence[Span]"]], list[str]]:
    """The days of each series whose candles are not those of a venue, and a line for each series."""
    from market.store.comparison import days_say  # noqa: PLC0415

    def ask(venues: "Sequence[Venue]", _: str) -> "Iterator[Heard]":
        return (days_say(venues, one[0], store.read(*one, 0, 2**62)) for one in wanted)

    heard = _answers_in_time(data_dir, wanted[0][0], ask)
    said = [f"days of {_name(one)}: {found.fault}" for one, found in zip(wanted, heard, strict=False) if found.fault]
    others: dict[str, list[str]] = {}
    for one, found in zip(wanted, heard, strict=False):
        if not found.fault:
            others.setdefault(found.said, []).append(_name(one))
    said += [f"days of {', '.join(names)}: {words}" for words, names in others.items()]
    if len(heard) < len(wanted):
        names = ", ".join(map(_name, wanted[len(heard) :]))
        said.append(f"days of {names}: not compared with a venue: no answer within {VENUE_WAIT_S:.0f} s")
    return [(one, found.spans) for one, found in zip(wanted, heard, strict=False) if found.fault], said


@data_app.command()
@one_line_errors
def gaps(
    data_dir: DataOption = None,
    symbol: SymbolsOption = None,
    interval: IntervalsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Holes between the first and the newest stored kline, and whether the venue has none or its rows were refused."""
    from market.store.inspection import gaps as gaps_of  # noqa: PLC0415

    store = _store(data_dir)
    table: list[dict[str, str | int]] = []
    empty = []
    for one in _stored(store, symbol, interval):
        if store.latest(*one) is None:
            empty.append(_name(one))
        for gap in gaps_of(store.home_store(one[0]), *one):
            row: dict[str, str | int] = {"series": _name(one), "from": iso(gap.start_ms), "to": iso(gap.end_ms)}
            row["rows"] = (gap.end_ms - gap.start_ms) // one[1]
            asked = "" if gap.absent_ms is None else _moment(gap.absent_ms)
            said = f"no: refused {asked}: {gap.why}" if gap.why else f"said so {asked}"
            row["venue has none"] = said if asked else "not said"
            table.append(row)
    if as_json:
        print_json({"gaps": table, "empty": empty})
        return
    if table:
        _show(table)
    if empty:
        say(f"no klines at all: {', '.join(empty)}; run birnn data sync")
    elif not table:
        say("no gaps")
    _say_where(store)


# -- files ------------------------------------------------------------------------------------------------------------


@data_app.command()
@one_line_errors
def export(
    symbol: SymbolOption,
    interval: IntervalOption,
    out: Annotated[Path, typer.Option(help="FILE.csv, FILE.parquet, or FILE.zip as Binance's archive has them.")],
    start: Annotated[str | None, typer.Option(help="UTC day; the first stored when not given.")] = None,
    end: Annotated[str | None, typer.Option(help="UTC day where it ends, itself not included.")] = None,
    data_dir: DataOption = None,
) -> None:
    """Write stored klines to a file for other programs."""
    from market.store.table_files import ending_of, write_klines  # noqa: PLC0415

    ending_of(out)
    start_ms, end_ms = _day_ms(start, "--start"), _day_ms(end, "--end")
    store, interval_ms = _store(data_dir), _interval_ms(interval)
    first_ms, latest_ms = store.first(symbol, interval_ms), store.latest(symbol, interval_ms)
    if first_ms is None or latest_ms is None:
        known = ", ".join(_name(one) for one in store.series()) or "none"
        raise ConfigError(f"{store.root}: no klines of {symbol} in {interval}; there are {known}")
    klines = store.read(
        symbol, interval_ms, first_ms if start_ms is None else start_ms, latest_ms + 1 if end_ms is None else end_ms
    )
    if not len(klines):
        raise ConfigError(
            f"no klines of {symbol} in {interval} from --start {start} to --end {end}; "
            f"there are from {_moment(first_ms)} to {_moment(latest_ms)} UTC"
        )
    write_klines(out, symbol, klines)
    holes = sum(1 for _ in klines.gaps())
    span = f"{_moment(int(klines.open_time_ms[0]))} to {_moment(klines.end_ms)} UTC"
    say(f"{out}: {len(klines):,} rows of {symbol} in {interval}, {span}, {holes} gaps")
    _say_where(store)


@data_app.command(name="import")
@one_line_errors
def import_files(
    files: Annotated[list[Path], typer.Argument(help="CSV, Parquet, or Binance's zips.", show_default=False)],
    symbol: SymbolOption,
    interval: IntervalOption,
    data_dir: DataOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take them whatever their names, stored klines or a venue say.")
    ] = False,
) -> None:
    """Take klines of files into the store, over what it has of the same minutes; refuses rows that break a rule.

    Refused is a file whose name says another symbol or interval, or whose rows mostly differ from known ones.

    Known is what is stored and what a venue has. Where one of the files cannot be used, none is taken.
    """
    from klines.klines import Klines  # noqa: PLC0415
    from market.quarantine import Quarantine  # noqa: PLC0415
    from market.store.comparison import Tally, completed, overlap_fault, tally  # noqa: PLC0415
    from market.store.scale_break import leaps_in  # noqa: PLC0415
    from market.store.table_files import ending_of, read_klines  # noqa: PLC0415

    homes, interval_ms, now_ms = _store(data_dir), _interval_ms(interval), SystemClock().now_ms()
    store = homes.home_store(symbol)
    for path in files:
        ending_of(path)
    store.latest(symbol, interval_ms)  # refuses what is no symbol
    # Before rows are read: where the name says another interval, their times do not fit either.
    _check_names([] if force else [(str(path), path.name) for path in files], symbol, interval_ms)
    aside = Quarantine(homes.root)
    read = [(path, read_klines(path, interval_ms, now_ms)) for path in files]
    with store.writing():
        together = reduce(Klines.merge, (found.klines for _, found in read), Klines.empty(interval_ms))
        for path, found in read:
            if not force:
                _check_content(path, found, symbol, interval_ms)
        taken: list[tuple[Path, Klines, Tally]] = []
        leapt: dict[Path, Sequence[RejectedRow]] = {}
        known = Klines.empty(interval_ms)  # of the files before
        for path, found in read:
            klines = found.klines.closed(now_ms)
            start_ms = int(found.klines.open_time_ms[0])
            known = store.read(symbol, interval_ms, start_ms - DAY_MS, found.klines.end_ms + DAY_MS).merge(known)
            if not force:
                if fault := overlap_fault(klines, known):
                    raise MalformedKlines(f"{path}: {fault}; {_force(homes)}")
                try:
                    leapt[path] = leaps_in(found.klines, store.beside(symbol, found.klines).merge(together))
                except MalformedKlines as error:
                    raise MalformedKlines(f"{path}: {error}; {FORCE}") from error
            klines = completed(klines, known)
            taken.append((path, klines, tally(klines, known)))
            known = known.merge(klines)
        heard = [] if force else _ask_about(data_dir, homes, symbol, taken)
        for (path, klines, counts), (_, found) in zip(taken, read, strict=True):
            store.append(symbol, klines)
            parts = [f"{path}: {len(klines):,} rows of {symbol} in {interval}, {counts}"]
            if len(klines) < len(found.klines):
                parts.append("the newest has not closed and is left out")
            if found.refused:
                aside.put("import", symbol, interval_ms, found.refused, now_ms)
                parts.append(f"{len(found.refused)} refused, the first: {found.fault}")
            odd = leapt.get(path, ())
            aside.mark("import", symbol, interval_ms, odd)
            parts += [f"{len(odd):,} odd, the first of {iso(odd[0].open_time_ms)}: {odd[0].reason}"] if odd else []
            say("; ".join([*parts, *found.notes]))
    if len(taken) > 1:
        sums = (sum(getattr(counts, name) for _, _, counts in taken) for name in ("new", "replaced", "same"))
        say(f"together: {Tally(**dict(zip(('new', 'replaced', 'same'), sums, strict=True)))}")
    for said in dict.fromkeys(heard):
        say(said)
    _say_where(homes)


FORCE = "--force takes the file all the same"


def _force(store: "HomeStore") -> str:
    return f"the store is {_where(store)}; {FORCE}"


def _check_names(named: Iterable[tuple[str, str]], symbol: str, interval_ms: int) -> None:
    """Raises ConfigError where a name plainly says another series."""
    from market.store.comparison import name_fault  # noqa: PLC0415

    for what, name in named:
        if fault := name_fault(name, symbol, interval_ms):
            asked = f"{symbol} in {interval_name(interval_ms)}"
            raise ConfigError(f"{what}: the name {fault}, asked for was {asked}; name that, or {FORCE}")


def _check_content(path: Path, found: "KlineFile", symbol: str, interval_ms: int) -> None:
    """Raises ConfigError where a file plainly says inside that it holds another series."""
    from market.store.comparison import column_fault  # noqa: PLC0415

    _check_names([(f"{path}: {found.member} in it", found.member)], symbol, interval_ms)
    asked = f"{symbol} in {interval_name(interval_ms)}"
    if fault := column_fault(found.symbols, symbol):
        raise ConfigError(f"{path}: {fault}, asked for was {asked}; name that, or {FORCE}")


def _ask_about(
    data_dir: Path | None, store: "HomeStore", symbol: str, taken: "Sequence[tuple[Path, Klines, Tally]]"
) -> list[str]:
    """What a venue says of the rows that would change the store.

    Raises:
        MalformedKlines: it has others.
    """
    from market.store.comparison import ASKED_ROWS, LEAST_ASKED_ROWS, Heard, venues_say  # noqa: PLC0415
    from market.store.month_file import not_in  # noqa: PLC0415

    rows = max(LEAST_ASKED_ROWS, ASKED_ROWS // len(taken))
    asked = []
    for path, klines, _ in taken:
        first_ms = int(klines.open_time_ms[0]) if len(klines) else 0
        changing = not_in(store.read(symbol, klines.interval_ms, first_ms, klines.end_ms), klines)
        if len(changing):
            asked.append((path, changing))

    def ask(venues: "Sequence[Venue]", own: str) -> Iterator[Heard]:
        return (venues_say(venues, symbol, klines, own, rows) for _, klines in asked)

    heard = _answers_in_time(data_dir, symbol, ask) if asked else []
    for (path, _), one in zip(asked, heard, strict=False):
        if one.fault:
            raise MalformedKlines(f"{path}: {one.fault}; {_force(store)}")
    said = [
        one.said if len(taken) == 1 else f"{path}: {one.said}" for (path, _), one in zip(asked, heard, strict=False)
    ]
    if len(heard) < len(asked):
        said.append(f"{len(asked) - len(heard)} files not compared with a venue: no answer within {VENUE_WAIT_S:.0f} s")
    return said


def _answers_in_time(
    data_dir: Path | None, symbol: str, ask: "Callable[[Sequence[Venue], str], Iterator[Heard]]"
) -> "list[Heard]":
    """As many answers of the folder's market, real or simulated, as come within ``VENUE_WAIT_S``."""
    from market.build import venues_from  # noqa: PLC0415
    from market.quarantine import Quarantine  # noqa: PLC0415
    from market.store.comparison import Heard  # noqa: PLC0415
    from market.store.home import home_of  # noqa: PLC0415

    heard: list[Heard] = []
    with ExitStack() as stack:
        try:
            settings = stack.enter_context(market_of(place_of(settings_from(data_dir=data_dir))))
            topics = topics_as_far_as_known(settings)
            aside, waits = Quarantine(settings.klines_dir), {"timeout_s": VENUE_TIMEOUT_S, "patience_s": 0.0}
            found = venues_from(settings, SystemClock(), aside, topics=topics, **waits)
        except WorkerError as error:
            return [Heard(said=f"not compared with a venue: {error}")]  # of the first, which tells it for all
        own = home_of(settings.klines_dir, symbol, settings.venues) or found[0].offer.name
        simulated = settings.market is Market.SIMULATED  # the exchange plays the first venue, and is not that venue
        venues = sorted(found, key=lambda venue: venue.offer.name != own)

        def listen() -> None:
            for one in ask(venues, own):
                heard.append(one)  # noqa: PERF402  (each as it comes: what has come in time counts)

        # Left behind when it is not done in time: nothing waits for it, nor does the end of the process.
        asking = threading.Thread(target=listen, daemon=True, name="venues")
        asking.start()
        asking.join(VENUE_WAIT_S)
    if simulated:
        played, name = rf"\b{re.escape(own)}\b", "the simulated exchange"
        return [
            replace(one, fault=re.sub(played, name, one.fault), said=re.sub(played, name, one.said)) for one in heard
        ]
    return list(heard)


# -- trimming ---------------------------------------------------------------------------------------------------------


@data_app.command()
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
    """Delete whole months that are older than anything reads, and what was set aside as damaged a month ago."""
    store, settings, now_ms = _store(data_dir), settings_from(data_dir=data_dir), SystemClock().now_ms()
    deleted = 0
    series = set(_stored(store, symbol, interval))
    for folder in store.folders():  # also of venues that were the home before
        for one in sorted(series & {*folder.series()}):
            oldest_ms = _oldest_ms(one[1], settings.training_days, keep_days, now_ms)
            gone = [] if oldest_ms is None else folder.trim(*one, oldest_ms)
            deleted += len(gone)
            if gone:
                say(f"{_name(one)}: deleted {', '.join(path.name for path in gone)}")
    if not deleted:
        say("nothing is old enough to be deleted")
    _say_where(store)


def _oldest_ms(interval_ms: int, training_days: int, keep_days: int | None, now_ms: int) -> int | None:
    """From when on klines are kept; None for all of an interval that no training reads.

    Raises:
        ConfigError: a training reads more than ``keep_days``.
    """
    from model.heads import PANELS, klines_kept_from_ms, training_start_ms  # noqa: PLC0415

    panels = [panel for panel in PANELS.values() if panel.interval_ms == interval_ms]
    starts = [training_start_ms(panel, training_days, now_ms) for panel in panels]
    if keep_days is None:
        return klines_kept_from_ms(panels[0], training_days, now_ms) if panels else None
    oldest_ms = now_ms - keep_days * DAY_MS
    if starts and oldest_ms > starts[0]:
        needed = -(-(now_ms - starts[0]) // DAY_MS)
        raise ConfigError(
            f"--keep-days {keep_days}: a training with TRAINING_DAYS={training_days} reads {needed} days of "
            f"{interval_name(interval_ms)}; keep as many, set fewer TRAINING_DAYS, or trim another --interval alone"
        )
    return oldest_ms
