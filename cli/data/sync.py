"""``birnn data sync``."""

import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.data.shared import IntervalsOption, SymbolsOption, interval_of
from cli.screen import JsonOption, print_json, say
from cli.session import market_for_once, stoppable
from cli.verbs import ConfigOption, DataOption, MarketOption, one_line_errors, settings_from, topics_as_far_as_known
from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SystemClock, iso
from core.data_folder import only_updater
from core.errors import SYMBOL_SETTING
from core.settings import Settings
from klines.spans import INTERVALS

if TYPE_CHECKING:  # polars and the rest load only where a verb needs them
    from market.store.sync import SyncReport
    from model.panels import PanelPlan

COMPARED_DAYS = 7  # of another venue's minutes: as many epochs as a ranking needs


@one_line_errors
def sync(
    config: ConfigOption = None,
    data_dir: DataOption = None,
    market: MarketOption = None,
    symbol: SymbolsOption = None,
    interval: IntervalsOption = None,
    days: Annotated[
        int | None,
        typer.Option(help="So many days back; what a training reads when not given, 7 with --venue.", min=1, max=3650),
    ] = None,
    venue: Annotated[
        str | None,
        typer.Option(help="Fetch this venue's minutes beside the home venue's, for birnn truth; nothing else changes."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the stored klines of the configured topics up to now, as the updater does."""
    from model.panels import panels_for  # noqa: PLC0415

    intervals = [interval_of(text) for text in interval or ()]
    if venue is not None:
        intervals, days = intervals or [MINUTE_MS], days or COMPARED_DAYS
    settings = settings_from(config=config, data_dir=data_dir, market=market)
    with market_for_once(settings, quiet=sys.stderr.isatty()) as (local, topics):
        plans, now_ms = list(panels_for(topics).values()), SystemClock().now_ms()
        wanted = _wanted(plans, symbol, intervals, days, local.training_days, now_ms)
        stop = threading.Event()  # ends the waits of pending requests on Ctrl-C
        with stoppable("klines that have arrived are stored; the same command fetches the rest", stop):
            reports = _synced(local, wanted, now_ms, stop, venue)
    for report in reports:
        line = line_of(report)
        say(line.replace(SYMBOL_SETTING, "--symbol") if symbol else line)
    if as_json:
        print_json(
            [
                {
                    "symbol": report.symbol,
                    "venue": report.venue,
                    "interval": INTERVALS.get(report.interval_ms, str(report.interval_ms)),
                    "fetched": report.fetched,
                    "gaps": [{"from": iso(start_ms), "to": iso(end_ms)} for start_ms, end_ms in report.gaps],
                    "rejected": report.rejected,
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
    """Return ``(symbol, interval_ms, start_ms)`` of each series to sync.

    Without ``--symbol``, the symbols are those of the topics; without ``--interval``, the intervals are the panels'.
    """
    from model.panels import PANELS, training_start_ms  # noqa: PLC0415

    needed = [(symbol, plan.panel.interval_ms) for plan in plans for symbol in plan.symbols]
    chosen_intervals = list(dict.fromkeys(intervals)) or [plan.panel.interval_ms for plan in plans]
    chosen_symbols = list(dict.fromkeys(symbols or (symbol for symbol, _ in needed)))
    panel_intervals = {interval_ms for _, interval_ms in needed}
    # Without --symbol: a panel's interval takes only series that the topics need, another interval every symbol.
    series = [
        (symbol, interval_ms)
        for interval_ms in chosen_intervals
        for symbol in chosen_symbols
        if symbols or interval_ms not in panel_intervals or (symbol, interval_ms) in needed
    ]
    panels = sorted(PANELS.values(), key=lambda panel: panel.interval_ms)

    def start_ms(interval_ms: int) -> int:
        if days is not None:
            return (now_ms - days * DAY_MS) // DAY_MS * DAY_MS
        panel = panels[-1 if interval_ms >= HOUR_MS else 0]  # the hour panel is last, the minute panel first
        return training_start_ms(panel, training_days, now_ms)

    return [(symbol, interval_ms, start_ms(interval_ms)) for symbol, interval_ms in series]


def _synced(
    settings: Settings, wanted: Sequence[tuple[str, int, int]], now_ms: int, stop: threading.Event, venue: str | None
) -> "list[SyncReport]":
    from core.show.progress import progress_of  # noqa: PLC0415
    from market.build import venue_here, venues_from  # noqa: PLC0415
    from market.quarantine import Quarantine  # noqa: PLC0415
    from market.store.home_store import HomeStore  # noqa: PLC0415
    from market.store.home_sync import HomeSync  # noqa: PLC0415
    from market.store.migration import migrate  # noqa: PLC0415
    from updater.keeper import SYNC_PATIENCE_S, StoppableClock  # noqa: PLC0415

    store = HomeStore(settings.klines_dir, settings.venues)
    for symbol, interval_ms, _ in wanted:
        store.latest(symbol, interval_ms)  # called for its check: raises an error if the text is not a symbol
    with only_updater(settings.data_dir), progress_of("sync") as show:
        migrate(settings.klines_dir, settings.venues[0])
        # Topics and venues are read under the lock: an updater may change the home venue until that updater ends.
        clock, topics = StoppableClock(SystemClock(), stop), topics_as_far_as_known(settings)
        quarantine = Quarantine(settings.klines_dir)
        waits = {"patience_s": SYNC_PATIENCE_S}

        def progress(done: int, rows: int) -> None:
            show(done, rows, "klines")

        if venue is not None:
            other = venue_here(venue, settings, clock, quarantine, topics=topics, **waits)
            return HomeSync(store, [other], quarantine, clock).sync_from(other, wanted, now_ms, progress)
        venues = venues_from(settings, clock, quarantine, topics=topics, **waits)
        return HomeSync(store, venues, quarantine, clock).sync(wanted, now_ms, progress)


def line_of(report: "SyncReport") -> str:
    rows = sum(end - start for start, end in report.gaps) // report.interval_ms if report.gaps else 0
    parts = [
        f"{report.symbol}-{INTERVALS.get(report.interval_ms, report.interval_ms)}: {report.fetched} rows fetched",
        *(
            [f"{rows:,} missing in {len(report.gaps)} gap{'s' if len(report.gaps) > 1 else ''}"]
            if report.gaps
            else []
            if report.failure
            else ["no gaps except rejected rows" if report.rejected else "no gaps"]
        ),
    ]
    parts += [report.rejected] if report.rejected else []
    parts += [f"{path.name} was damaged and set aside" for path in report.set_aside]
    if report.failure:
        parts.append(f"FAILED: {report.failure}")
    if report.remark:
        parts.append(report.remark)
    return "; ".join(parts)
