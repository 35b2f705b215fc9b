"""Klines of a backtest: from a folder of Parquet files, or from the worker's kline store."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.clock import iso
from core.errors import ConfigError
from klines.klines import COLUMNS, Klines
from klines.spans import interval_name
from market.store.home_store import HomeStore
from market.store.migration import migrate
from market.store.recording import load_recording
from model.panels import PanelPlan
from research.words import simulated_words

_END_OF_TIME_MS = 2**62


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """Klines in memory."""

    source: str  # names the folder
    simulated: str  # where simulated klines come from; empty for real klines
    series: Mapping[tuple[str, int], Klines]  # (symbol, interval_ms); not empty

    def span(self, symbols: Iterable[str], interval_ms: int) -> tuple[int, int]:
        """The span in ms in which all of these symbols have klines; gaps are not looked for."""
        runs = [self.series[symbol, interval_ms] for symbol in symbols]
        return max(int(run.open_time_ms[0]) for run in runs), min(run.end_ms for run in runs)

    def check_end(self, end_ms: int, last_ms: int) -> None:
        """Raise ConfigError if the klines end before ``end_ms``."""
        if end_ms > last_ms:
            raise ConfigError(
                f"--end {iso(end_ms)[:16]}: klines of {self.source} end at {iso(last_ms)[:16]}: give an earlier day"
            )

    def until(self, plan: PanelPlan, start_ms: int, end_ms: int) -> dict[str, Klines]:
        """A panel's klines by symbol, from ``start_ms`` on and closed by ``end_ms``."""
        interval_ms = plan.panel.interval_ms
        return {
            symbol: self.series[symbol, interval_ms].between(start_ms, end_ms).closed(end_ms) for symbol in plan.symbols
        }

    def digests(self) -> dict[str, str]:
        """``{"BTCUSDT-1m": sha256}`` over all numbers."""
        return {
            f"{symbol}-{interval_name(interval_ms)}": _digest(klines)
            for (symbol, interval_ms), klines in sorted(self.series.items())
        }


def _digest(klines: Klines) -> str:
    digest = hashlib.sha256(klines.open_time_ms.tobytes())
    for name in COLUMNS:
        digest.update(getattr(klines, name).tobytes())
    return digest.hexdigest()


def recording_of(plans: Sequence[PanelPlan], data: Path | None, data_dir: Path, venues: Sequence[str]) -> Recording:
    """The klines that some panels need.

    Args:
        data: a folder of ``SYMBOL-INTERVAL-FIRSTDAY-LASTDAY.parquet``; None is the store in ``data_dir``.
        venues: MARKET_VENUES, which decides whose folder of the store is read where ``homes.json`` does not.
    Raises:
        ConfigError: a symbol has no klines of an interval, or only klines of venues that are not named.
    """
    wanted = sorted({(symbol, plan.panel.interval_ms) for plan in plans for symbol in plan.symbols})
    folder = data or data_dir / "klines"
    if not folder.is_dir():
        remedy = "name a folder of Parquet klines" if data else "run birnn train once, or name a folder with --data"
        raise ConfigError(f"{folder}: no such folder: {remedy}")
    found = _from_folder(folder, wanted) if data else _from_store(folder, venues, wanted)
    for symbol, interval_ms in wanted:
        if not len(found[symbol, interval_ms]):
            raise ConfigError(
                f"{folder}: no klines of {symbol} in {interval_name(interval_ms)}, nor shorter ones to make them of; "
                f"add them, or leave out the topics of {symbol}"
            )
    return Recording(source=str(folder), simulated=simulated_words(folder), series=found)


def _from_store(
    folder: Path, venues: Sequence[str], wanted: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], Klines]:
    migrate(folder, venues[0])
    store = HomeStore(folder, venues)
    for symbol in sorted({symbol for symbol, _ in wanted}):
        having = [folder.root.name for folder in store.folders() if symbol in {known for known, _ in folder.series()}]
        if having and store.home(symbol) not in having:
            raise ConfigError(
                f"{folder}: klines of {symbol} are there from {' and '.join(having)}, and MARKET_VENUES="
                f"{','.join(venues)} does not name {'one of them' if having[1:] else 'it'}: "
                "set MARKET_VENUES to the venue whose klines are to be read"
            )
    return {(symbol, interval): store.read(symbol, interval, 0, _END_OF_TIME_MS) for symbol, interval in wanted}


def _from_folder(folder: Path, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Klines]:
    """The recorded klines; hours that are missing are made of whole hours of minutes."""
    recorded = load_recording(folder, {symbol for symbol, _ in wanted})
    found = {}
    for symbol, interval_ms in wanted:
        klines = recorded.get((symbol, interval_ms), Klines.empty(interval_ms))
        for step in sorted(step for other, step in recorded if other == symbol and step < interval_ms):
            if interval_ms % step == 0:
                klines = recorded[symbol, step].resample(interval_ms).merge(klines)
        found[symbol, interval_ms] = klines
    return found


def span_text(start_ms: int, end_ms: int) -> str:
    """A span as messages write it.

    >>> span_text(1_709_164_800_000, 1_709_251_200_000)
    '2024-02-29 00:00 to 2024-03-01 00:00 UTC'
    """
    return " to ".join(iso(edge)[:16].replace("T", " ") for edge in (start_ms, end_ms)) + " UTC"
