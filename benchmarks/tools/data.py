"""Measure the cost of fetching, keeping and reading klines, beside the limits.

    python -m benchmarks.tools.data [--days 365] [--series 60]

The simulated exchange, in a process of its own, serves archive files made beforehand, and klines of an invented walk
with as many digits as Binance writes. Each sync runs in a process of its own as well, so that its peak of memory can be
measured. Two minutes; exit status 1 if a figure is above its limit.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from core.clock import DAY_MS, MINUTE_MS, iso
from exchange.rest import Rest
from exchange.server import SimulatedExchange
from exchange.sources.given import Given
from klines.klines import COLUMNS, Klines
from klines.spans import month_span
from market.store.kline_store import KlineStore
from market.store.sync import SyncReport, sync_all
from market.venues.binance.rest import Binance
from model.features import compute
from model.panels import MINUTE, training_start_ms
from tests.fakes.clock import FakeClock
from tests.fakes.klines import random_walk_klines

NOW_MS = 1_764_085_587_000  # 2025-11-25 15:46:27 UTC: files of both units are in the year before
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "ARBUSDT")
SPARE_DAYS = 2  # of klines after NOW_MS, for the later syncs
BEHIND_MIN = 4
LATER_MS = 4 * BEHIND_MIN * MINUTE_MS  # from the first sync to the end of the last
FIRST_S, FIRST_MB, LATER_S, READ_S = 90.0, 500.0, 5.0, 0.5
APPEND_MS, APPEND_KB = 25.0, 100.0


def written(klines: Klines) -> Klines:
    """The klines rounded as Binance writes prices in dollars."""
    digits = {"open": 2, "high": 2, "low": 2, "close": 2, "volume": 5, "trades": 0, "taker_buy_base": 5}
    columns = {name: np.round(getattr(klines, name), digits.get(name, 7)) for name in COLUMNS}
    return Klines(interval_ms=klines.interval_ms, open_time_ms=klines.open_time_ms, **columns)


@cache
def walk(days: int, seed: int = 0) -> Klines:
    """Return minutes that begin ``days`` and a margin before ``NOW_MS`` and end ``SPARE_DAYS`` after."""
    start_ms = month_span(training_start_ms(MINUTE, days, NOW_MS))[0]
    rows = (NOW_MS + SPARE_DAYS * DAY_MS - start_ms) // MINUTE_MS
    return written(random_walk_klines(rows, seed=seed, start_ms=start_ms, first=60_000.0))


# -- the venue --------------------------------------------------------------------------------------------------------


def serve(days: int, series: int) -> None:
    """Serve these klines as a simulated exchange, with archive files made beforehand, until this process is killed."""
    symbols = [*SYMBOLS, *(f"S{number:02}USDT" for number in range(series))]
    walks = {symbol: walk(days, SYMBOLS.index(symbol) if symbol in SYMBOLS else 0) for symbol in symbols}
    source, rest = Given({(symbol, MINUTE_MS): klines for symbol, klines in walks.items()}), Rest(archives_kept=10_000)
    for symbol in SYMBOLS:
        at_ms = int(walks[symbol].open_time_ms[0])
        while at_ms < NOW_MS:
            end_ms = month_span(at_ms)[1]
            months = [("monthly", iso(at_ms)[:7])]
            daily = [("daily", iso(day)[:10]) for day in range(at_ms, NOW_MS, DAY_MS)]
            for period, stamp in months if end_ms <= NOW_MS else daily:
                path = f"/data/spot/{period}/klines/{symbol}/1m/{symbol}-1m-{stamp}.zip"
                rest.answer(source, NOW_MS, path, [])
            at_ms = end_ms
    with SimulatedExchange(source=source, rest=rest, clock=FakeClock(NOW_MS + LATER_MS)) as exchange:
        print(exchange.url, flush=True)
        threading.Event().wait()


# -- what is measured, in a process of its own ------------------------------------------------------------------------


def bytes_written() -> int:
    """Bytes that this process has written so far."""
    counted = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counted["wchar"])


def peak_mb() -> float:
    """Return the peak of this process's resident memory."""
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def syncs(url: str, folder: Path, symbols: list[str], days: int, times: int) -> list[dict[str, float]]:
    """Return seconds, bytes written and rows of several syncs in this process, ``BEHIND_MIN`` apart."""
    clock = FakeClock(NOW_MS)
    store, market = KlineStore(folder), Binance([url], url, clock)
    found = []
    for number in range(times):
        clock.time_ms = NOW_MS + number * BEHIND_MIN * MINUTE_MS
        start_ms = training_start_ms(MINUTE, days, clock.time_ms)
        wanted = [(symbol, MINUTE_MS, start_ms) for symbol in symbols]
        before, began_s = bytes_written(), time.perf_counter()
        reports = sync_all(store, market, wanted, clock.time_ms)
        took_s = time.perf_counter() - began_s
        assert not any(report.failure or report.gaps for report in reports), bad(reports)
        rows = sum(report.fetched for report in reports)
        found.append({"s": took_s, "bytes": bytes_written() - before, "rows": rows, "peak_mb": peak_mb()})
    return found


def bad(reports: list[SyncReport]) -> str:
    """The failure of the first series that failed."""
    return str(next(report for report in reports if report.failure or report.gaps))


def appends(folder: Path, times: int) -> dict[str, float]:
    """Mean milliseconds and bytes of appending one minute to a whole month."""
    klines = walk(60)
    end_ms = month_span(int(klines.open_time_ms[-1]) - 31 * DAY_MS)[1]
    whole = klines.between(month_span(end_ms - 1)[0], end_ms)
    store = KlineStore(folder)
    store.append("ETHUSDT", whole.between(0, end_ms - times * MINUTE_MS))
    before, began_s = bytes_written(), time.perf_counter()
    for row in range(times):
        at_ms = end_ms - (times - row) * MINUTE_MS
        assert store.append("ETHUSDT", whole.between(at_ms, at_ms + MINUTE_MS)) == 1
    took_s = time.perf_counter() - began_s
    return {"ms": took_s / times * 1000, "bytes": (bytes_written() - before) / times}


def reading(folder: Path, days: int) -> dict[str, float]:
    """Seconds of reading a symbol's klines and of computing its features.

    The best of seven: files are warm then, and the kernel has large pages again after all that was written before.
    """
    store, best = KlineStore(folder), {"read_s": 1e9, "compute_s": 1e9}
    for _ in range(7):
        began_s = time.perf_counter()
        klines = store.read("BTCUSDT", MINUTE_MS, NOW_MS - days * DAY_MS, NOW_MS)
        read_s = time.perf_counter() - began_s
        table = compute(klines, klines, MINUTE)
        compute_s = time.perf_counter() - began_s - read_s
        assert table.usable.sum() > days * DAY_MS // MINUTE_MS - 2 * MINUTE.rows_needed
        best = min(best, {"read_s": read_s, "compute_s": compute_s}, key=lambda one: one["read_s"] + one["compute_s"])
    return best


# -- all of it --------------------------------------------------------------------------------------------------------


def elsewhere(work: str, *arguments: object) -> Any:
    """The result of a piece of work in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tools.data", "--work", work, *map(str, arguments)],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


WORK: dict[str, Callable[..., Any]] = {
    "sync": lambda url, folder, symbols, days, times: syncs(
        url, Path(folder), symbols.split(","), int(days), int(times)
    ),
    "append": lambda folder, times: appends(Path(folder), int(times)),
    "read": lambda folder, days: reading(Path(folder), int(days)),
}


def figure(what: str, found: float, must: float, unit: str) -> bool:
    """Print a figure; True if it is within its limit."""
    kept = found < must
    print(f"{what:66} {found:9.2f} {unit:4} must be under {must:g}{'' if kept else '   MISSED'}", flush=True)
    return kept


def main(days: int, series: int) -> int:
    kept = []
    with tempfile.TemporaryDirectory(prefix="benchmark-data-") as root:
        folder = Path(root) / "klines"
        sizes = ["--days", str(days), "--series", str(series)]
        command = [sys.executable, "-m", "benchmarks.tools.data", "--serve", *sizes]
        venue = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert venue.stdout is not None
            url = venue.stdout.readline().strip()

            (first,) = elsewhere("sync", url, folder, ",".join(SYMBOLS), days, 1)
            kept.append(figure(f"first sync of {days} days of {len(SYMBOLS)} symbols", first["s"], FIRST_S, "s"))
            kept.append(figure("  its peak of resident memory", first["peak_mb"], FIRST_MB, "MB"))
            print(f"  {first['rows']:.0f} rows, {first['bytes'] / 1e6:.0f} MB written", flush=True)

            found = elsewhere("read", folder, days)
            both_s = found["read_s"] + found["compute_s"]
            kept.append(figure(f"{days} days of one symbol from the store into features", both_s, READ_S, "s"))
            print(f"  reading {found['read_s']:.3f} s, features {found['compute_s']:.3f} s", flush=True)

            symbols = [f"S{number:02}USDT" for number in range(series)]
            many = Path(root) / "many"
            template = KlineStore(Path(root) / "template")
            start_ms, behind_ms = training_start_ms(MINUTE, 90, NOW_MS), NOW_MS - BEHIND_MIN * MINUTE_MS
            template.append("ONE", walk(days).between(start_ms, behind_ms // MINUTE_MS * MINUTE_MS))
            for symbol in symbols:
                shutil.copytree(template.root / "ONE-1m", many / f"{symbol}-1m")
                (many / "tails").mkdir(exist_ok=True)
                shutil.copy(template.root / "tails" / "ONE-1m.npy", many / "tails" / f"{symbol}-1m.npy")
            cold, *warm = elsewhere("sync", url, many, ",".join(symbols), 90, 4)
            for name, one in (("the first of a process", cold), ("later ones", min(warm, key=lambda one: one["s"]))):
                what = f"sync of {series} series, 90 days each, {BEHIND_MIN} min behind: {name}"
                kept.append(figure(what, one["s"], LATER_S, "s"))
            mean = sum(one["bytes"] for one in warm) / len(warm)
            print(f"  {mean / 1e6:.1f} MB written by a later one, {mean / series / 1000:.0f} kB a series", flush=True)

            one = elsewhere("append", Path(root) / "append", 800)  # more than a journal takes
            kept.append(figure("one minute more in a month of minutes", one["ms"], APPEND_MS, "ms"))
            kept.append(figure("  written for it", one["bytes"] / 1000, APPEND_KB, "kB"))
        finally:
            venue.kill()
            venue.communicate()
    return 0 if all(kept) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=365, help="of the first sync, and of the read")
    parser.add_argument("--series", type=int, default=60, help="of the later syncs")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.days, asked.series)
    elif asked.work:
        print(json.dumps(WORK[asked.work[0]](*asked.work[1:])))
    else:
        raise SystemExit(main(asked.days, asked.series))
