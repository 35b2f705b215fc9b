"""Recorded klines in a folder of Parquet files, which the simulated exchange replays and a backtest reads."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from core.errors import ConfigError, MalformedKlines
from klines.klines import COLUMNS, Klines
from klines.spans import INTERVALS_MS

_FILE = re.compile(r"(?P<symbol>[A-Z0-9]+)-(?P<interval>[0-9]+[mhd])-(?P<first>[0-9]{8})-(?P<last>[0-9]{8})\.parquet")


def load_recording(folder: Path, symbols: Iterable[str] | None = None) -> dict[tuple[str, int], Klines]:
    """Klines by (symbol, interval_ms) of a folder of ``SYMBOL-INTERVAL-FIRSTDAY-LASTDAY.parquet``.

    Args:
        symbols: only these, all of which must be there; None is whatever there is.
    Raises:
        ConfigError: no such file for a symbol asked for, or one that cannot be read as klines.
    """
    wanted = None if symbols is None else frozenset(symbols)
    series: dict[tuple[str, int], Klines] = {}
    for path, name in _files(folder):
        if wanted is None or name["symbol"] in wanted:
            key = name["symbol"], INTERVALS_MS[name["interval"]]
            series[key] = series.get(key, Klines.empty(key[1])).merge(_read_parquet(path, key[1]))
    if missing := (wanted or frozenset()) - {symbol for symbol, _ in series}:
        raise _nothing_in(folder, f"klines of {','.join(sorted(missing))}")
    if not series:
        raise _nothing_in(folder, "klines")
    return series


def recorded_days(folder: Path) -> str:
    """The days that a folder's files of the shortest interval name, such as ``2023-09-01 to 2024-03-31``."""
    found: dict[int, list[str]] = {}
    for _, name in _files(folder):
        found.setdefault(INTERVALS_MS[name["interval"]], []).extend((name["first"], name["last"]))
    if not found:
        raise _nothing_in(folder, "klines")
    days = found[min(found)]
    return " to ".join(f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in (min(days), max(days)))


def _files(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for path in sorted(folder.glob("*.parquet")):
        if (name := _FILE.fullmatch(path.name)) and name["interval"] in INTERVALS_MS:
            yield path, name


def _nothing_in(folder: Path, what: str) -> ConfigError:
    return ConfigError(f"folder {folder}: no {what}; needs files SYMBOL-INTERVAL-FIRSTDAY-LASTDAY.parquet")


def _read_parquet(path: Path, interval_ms: int) -> Klines:
    try:
        time = "open_time_ms" if "open_time_ms" in pl.read_parquet_schema(path) else "open_time"  # as exported, or not
        frame = pl.read_parquet(path, columns=[time, *COLUMNS])
        times, table = frame[time].cast(pl.Int64).to_numpy(), frame.select(pl.col(COLUMNS).cast(pl.Float64))
        return Klines.from_table(interval_ms, times, table.to_numpy())
    except (OSError, pl.exceptions.PolarsError, MalformedKlines) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"file {path}: {reason}; remove it or write it anew") from error
