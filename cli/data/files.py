"""``birnn data export`` and ``import``."""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.data.shared import (
    VENUE_WAIT_S,
    IntervalOption,
    SymbolOption,
    answers_in_time,
    interval_of,
    minute_text,
    name_of,
    open_store,
    say_where,
    where,
)
from cli.screen import say
from cli.verbs import DataOption, one_line_errors
from core.clock import DAY_MS, SystemClock, iso, moment_ms
from core.errors import ConfigError, MalformedKlines
from klines.spans import interval_name

if TYPE_CHECKING:  # polars and the rest load only where a verb needs them
    from klines.checks import RejectedRow
    from klines.klines import Klines
    from market.store.files.comparison import Tally
    from market.store.files.table_files import KlineFile
    from market.store.home_store import HomeStore
    from market.venue import Venue


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
    from market.store.files.table_files import ending_of, write_klines  # noqa: PLC0415

    ending_of(out)
    start_ms, end_ms = moment_ms(start, "--start"), moment_ms(end, "--end")
    store, interval_ms = open_store(data_dir), interval_of(interval)
    first_ms, latest_ms = store.first(symbol, interval_ms), store.latest(symbol, interval_ms)
    if first_ms is None or latest_ms is None:
        known = ", ".join(name_of(one) for one in store.series()) or "none"
        raise ConfigError(f"{store.root}: no klines of {symbol} in {interval}; there are {known}")
    klines = store.read(
        symbol, interval_ms, first_ms if start_ms is None else start_ms, latest_ms + 1 if end_ms is None else end_ms
    )
    if not len(klines):
        raise ConfigError(
            f"no klines of {symbol} in {interval} from --start {start} to --end {end}; "
            f"there are from {minute_text(first_ms)} to {minute_text(latest_ms)} UTC"
        )
    write_klines(out, symbol, klines)
    holes = sum(1 for _ in klines.gaps())
    span = f"{minute_text(int(klines.open_time_ms[0]))} to {minute_text(klines.end_ms)} UTC"
    say(f"{out}: {len(klines):,} rows of {symbol} in {interval}, {span}, {holes} gaps")
    say_where(store)


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
    """Take klines from files into the store, over stored rows of the same times; rows that break a rule are rejected.

    A file is refused if its name says another symbol or interval, or if its rows mostly differ from stored rows or from
    a venue's. If one file is refused, no file is taken.
    """
    from klines.klines import Klines  # noqa: PLC0415
    from market.quarantine import Quarantine  # noqa: PLC0415
    from market.store.files.comparison import Tally, completed, overlap_fault, tally  # noqa: PLC0415
    from market.store.files.table_files import ending_of, read_klines  # noqa: PLC0415
    from market.store.scale_break import leaps_in  # noqa: PLC0415

    homes, interval_ms, now_ms = open_store(data_dir), interval_of(interval), SystemClock().now_ms()
    store = homes.home_store(symbol)
    for path in files:
        ending_of(path)
    store.latest(symbol, interval_ms)  # raises if it is not a symbol
    # Before rows are read: with the wrong interval their times would be refused first.
    _check_names([] if force else [(str(path), path.name) for path in files], symbol, interval_ms)
    quarantine = Quarantine(homes.root)
    read = [(path, read_klines(path, interval_ms, now_ms)) for path in files]
    with store.writing():
        together = reduce(Klines.merge, (found.klines for _, found in read), Klines.empty(interval_ms))
        for path, found in read:
            if not force:
                _check_content(path, found, symbol, interval_ms)
        taken: list[tuple[Path, Klines, Tally]] = []
        leapt: dict[Path, Sequence[RejectedRow]] = {}
        known = Klines.empty(interval_ms)  # stored rows and those of earlier files
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
            if found.rejected:
                quarantine.put("import", symbol, interval_ms, found.rejected, now_ms)
                parts.append(f"{len(found.rejected)} rejected, the first: {found.fault}")
            odd = leapt.get(path, ())
            quarantine.mark("import", symbol, interval_ms, odd)
            parts += [f"{len(odd):,} odd, the first of {iso(odd[0].open_time_ms)}: {odd[0].reason}"] if odd else []
            say("; ".join([*parts, *found.notes]))
    if len(taken) > 1:
        sums = (sum(getattr(counts, name) for _, _, counts in taken) for name in ("new", "replaced", "same"))
        say(f"together: {Tally(**dict(zip(('new', 'replaced', 'same'), sums, strict=True)))}")
    for words in dict.fromkeys(heard):
        say(words)
    say_where(homes)


FORCE = "--force takes the file all the same"


def _force(store: "HomeStore") -> str:
    return f"the store is {where(store)}; {FORCE}"


def _check_names(named: Iterable[tuple[str, str]], symbol: str, interval_ms: int) -> None:
    from market.store.files.comparison import name_fault  # noqa: PLC0415

    for what, name in named:
        if fault := name_fault(name, symbol, interval_ms):
            asked = f"{symbol} in {interval_name(interval_ms)}"
            raise ConfigError(f"{what}: the name {fault}, asked for was {asked}; name that, or {FORCE}")


def _check_content(path: Path, found: "KlineFile", symbol: str, interval_ms: int) -> None:
    from market.store.files.comparison import column_fault  # noqa: PLC0415

    _check_names([(f"{path}: {found.member} in it", found.member)], symbol, interval_ms)
    asked = f"{symbol} in {interval_name(interval_ms)}"
    if fault := column_fault(found.symbols, symbol):
        raise ConfigError(f"{path}: {fault}, asked for was {asked}; name that, or {FORCE}")


def _ask_about(
    data_dir: Path | None, store: "HomeStore", symbol: str, taken: "Sequence[tuple[Path, Klines, Tally]]"
) -> list[str]:
    """Compare the rows that would change the store with a venue's; a line for each file.

    Raises:
        MalformedKlines: the venue has other rows.
    """
    from market.store.files.comparison import ASKED_ROWS, LEAST_ASKED_ROWS, Compared, venues_say  # noqa: PLC0415

    rows = max(LEAST_ASKED_ROWS, ASKED_ROWS // len(taken))
    asked = []
    for path, klines, _ in taken:
        first_ms = int(klines.open_time_ms[0]) if len(klines) else 0
        changing = klines.not_in(store.read(symbol, klines.interval_ms, first_ms, klines.end_ms))
        if len(changing):
            asked.append((path, changing))

    def ask(venues: "Sequence[Venue]", own: str) -> Iterator[Compared]:
        return (venues_say(venues, symbol, klines, own, rows) for _, klines in asked)

    heard = answers_in_time(data_dir, symbol, ask) if asked else []
    for (path, _), one in zip(asked, heard, strict=False):
        if one.fault:
            raise MalformedKlines(f"{path}: {one.fault}; {_force(store)}")
    lines = [
        one.words if len(taken) == 1 else f"{path}: {one.words}" for (path, _), one in zip(asked, heard, strict=False)
    ]
    if len(heard) < len(asked):
        lines.append(
            f"{len(asked) - len(heard)} files not compared with a venue: no answer within {VENUE_WAIT_S:.0f} s"
        )
    return lines
