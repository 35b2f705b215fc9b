"""Shared by the verbs: options, the store of the market in use, tables, and questions to venues."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.place import is_tape, place_of
from cli.screen import ROOMY, Column, say, screen, table_of
from cli.session import log_as, market_of
from cli.verbs import settings_from, topics_as_far_as_known
from core.clock import SystemClock, iso
from core.errors import ConfigError, WorkerError
from core.settings import Market
from klines.spans import INTERVALS_MS, interval_name

if TYPE_CHECKING:  # polars loads only where a verb needs it
    from market.store.files.comparison import Compared
    from market.store.home_store import HomeStore
    from market.venue import Venue

VENUE_TIMEOUT_S = 3.0  # of one answer
VENUE_WAIT_S = 8.0  # for all questions of one command

Series = tuple[str, int]  # (symbol, interval_ms)


def _upper(given: Any) -> Any:
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


def interval_of(text: str) -> int:
    if text not in INTERVALS_MS:
        raise ConfigError(f"--interval must be one of {', '.join(INTERVALS_MS)}, was {text!r}")
    return INTERVALS_MS[text]


def minute_text(ms: int) -> str:
    return iso(ms)[:16].replace("T", " ")


def open_store(data_dir: Path | None) -> "HomeStore":
    """The store of the market in use."""
    from market.store.home_store import HomeStore  # noqa: PLC0415
    from market.store.migration import migrate  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    place = place_of(settings)
    log_as(settings, place.market, level="error")  # the verbs report damaged files
    root = place.folder / "klines"
    migrate(root, settings.venues[0])
    return HomeStore(root, settings.venues)


def say_where(store: "HomeStore") -> None:
    """Say which folder the output was about."""
    say(f"klines: {where(store)}")


def where(store: "HomeStore") -> str:
    return f"{store.root}{' (SIMULATED)' if is_tape(store.root.parent) else ''}"


def stored(store: "HomeStore", symbols: Sequence[str] | None, intervals: Sequence[str] | None) -> list[Series]:
    """The stored series among those asked for.

    Raises:
        ConfigError: no stored series fits; the message lists the stored series.
    """
    wanted = {interval_of(text) for text in intervals or ()}
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
        names = ", ".join(name_of(one) for one in there)
        raise ConfigError(f"--interval {', '.join(intervals or ())}: none such in {store.root}; there are {names}")
    return found


def name_of(series: Series) -> str:
    return f"{series[0]}-{interval_name(series[1])}"


def show(found: Sequence[dict[str, str | int]]) -> None:
    """Print the rows of ``--json`` as a table, with times to the minute."""
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


def answers_in_time(
    data_dir: Path | None, symbol: str, ask: "Callable[[Sequence[Venue], str], Iterator[Compared]]"
) -> "list[Compared]":
    """The answers of the folder's market, real or simulated, that come within ``VENUE_WAIT_S``."""
    from market.build import venues_from  # noqa: PLC0415
    from market.quarantine import Quarantine  # noqa: PLC0415
    from market.store.files.comparison import Compared  # noqa: PLC0415
    from market.store.home import home_of  # noqa: PLC0415

    heard: list[Compared] = []
    with ExitStack() as stack:
        try:
            settings = stack.enter_context(market_of(place_of(settings_from(data_dir=data_dir))))
            topics = topics_as_far_as_known(settings)
            quarantine, waits = Quarantine(settings.klines_dir), {"timeout_s": VENUE_TIMEOUT_S, "patience_s": 0.0}
            found = venues_from(settings, SystemClock(), quarantine, topics=topics, **waits)
        except WorkerError as error:
            return [Compared(words=f"not compared with a venue: {error}")]  # one answer stands for all
        own = home_of(settings.klines_dir, symbol, settings.venues) or found[0].info.name
        simulated = settings.market is Market.SIMULATED  # the exchange plays the first venue
        venues = sorted(found, key=lambda venue: venue.info.name != own)

        def listen() -> None:
            for one in ask(venues, own):
                heard.append(one)  # noqa: PERF402  (each as it comes: what has come in time counts)

        # A daemon: neither this function nor the end of the process waits for a late answer.
        asking = threading.Thread(target=listen, daemon=True, name="venues")
        asking.start()
        asking.join(VENUE_WAIT_S)
    if simulated:
        played, name = rf"\b{re.escape(own)}\b", "the simulated exchange"
        return [
            replace(one, fault=re.sub(played, name, one.fault), words=re.sub(played, name, one.words)) for one in heard
        ]
    return list(heard)
