"""What fetching, keeping and reading klines costs, with what it must not cost.

    python -m benchmarks.tools.data [--days 365] [--series 60]

A venue in a process of its own serves archive files made beforehand, with checksums, and REST klines of an invented
walk with as many digits as Binance writes. Each sync is a process of its own as well, so that its peak of memory is
its own. Two minutes; status 1 when a figure is above what it must be.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from core.clock import DAY_MS, MINUTE_MS, iso
from exchange.formats import archive_zip, rest_rows
from klines.klines import COLUMNS, Klines
from klines.spans import month_span
from market.store.kline_store import KlineStore
from market.store.sync import SyncReport, sync_all
from market.venues.binance.rest import Binance
from model.features import compute
from model.heads import MINUTE, training_start_ms
from tests.fakes.klines import random_walk_klines

NOW_MS = 1_764_085_587_000  # 2025-11-25 15:46:27 UTC: files of both units are in the year before
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "ARBUSDT")
SPARE_DAYS = 2  # of klines after NOW_MS, for the later syncs
BEHIND_MIN = 4
FIRST_S, FIRST_MB, LATER_S, READ_S = 90.0, 500.0, 5.0, 0.5
APPEND_MS, APPEND_KB = 25.0, 100.0


class StandingClock:
    """A clock that says what it was told."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.time_ms = now_ms

    def now_ms(self) -> int:
        return self.time_ms

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def written(klines: Klines) -> Klines:
    """The same with as many digits as Binance writes of a price in dollars."""
    digits = {"open": 2, "high": 2, "low": 2, "close": 2, "volume": 5, "trades": 0, "taker_buy_base": 5}
    columns = {name: np.round(getattr(klines, name), digits.get(name, 7)) for name in COLUMNS}
    return Klines(interval_ms=klines.interval_ms, open_time_ms=klines.open_time_ms, **columns)


@cache
def walk(days: int, seed: int = 0) -> Klines:
    """Minutes from so many days, and a margin, before ``NOW_MS`` until ``SPARE_DAYS`` after."""
    start_ms = month_span(training_start_ms(MINUTE, days, NOW_MS))[0]
    rows = (NOW_MS + SPARE_DAYS * DAY_MS - start_ms) // MINUTE_MS
    return written(random_walk_klines(rows, seed=seed, start_ms=start_ms, first=60_000.0))


# -- the venue --------------------------------------------------------------------------------------------------------


def make_archive(folder: Path, days: int) -> None:
    """Monthly and daily files, with their checksums, of every symbol."""
    for seed, symbol in enumerate(SYMBOLS):
        klines = walk(days, seed)
        at_ms = int(klines.open_time_ms[0])
        while at_ms < NOW_MS:
            start_ms, end_ms = month_span(at_ms)
            spans = [(start_ms, end_ms, iso(start_ms)[:7])]
            if end_ms > NOW_MS:
                spans = [(day, day + DAY_MS, iso(day)[:10]) for day in range(start_ms, NOW_MS - DAY_MS, DAY_MS)]
            for first_ms, last_ms, stamp in spans:
                name = f"{symbol}-1m-{stamp}"
                content = archive_zip(klines.between(first_ms, last_ms), name, last_ms)
                (folder / f"{name}.zip").write_bytes(content)
                digest = hashlib.sha256(content).hexdigest()
                (folder / f"{name}.zip.CHECKSUM").write_text(f"{digest}  {name}.zip\n")
            at_ms = end_ms


def serve(folder: Path, days: int) -> None:
    """Serve the archive in ``folder``, and by REST any symbol, until the standard input ends."""

    class Handling(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/api/v3/klines":
                query = dict(parse_qsl(parts.query))
                symbol = query["symbol"]
                klines = walk(days, SYMBOLS.index(symbol) if symbol in SYMBOLS else 0)
                found = klines.between(int(query["startTime"]), int(query["endTime"]) + 1)
                if len(found) > int(query["limit"]):
                    found = found.between(0, int(found.open_time_ms[int(query["limit"])]))
                self._answer(rest_rows(found))
                return
            path = folder / parts.path.rsplit("/", 1)[1]
            self._answer(path.read_bytes() if path.exists() else None)

        def _answer(self, body: bytes | None) -> None:
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            pass

    for seed in range(len(SYMBOLS)):
        walk(days, seed)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handling)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


# -- what is measured, in a process of its own ------------------------------------------------------------------------


def bytes_written() -> int:
    """What this process has handed to the kernel so far."""
    counted = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counted["wchar"])


def peak_mb() -> float:
    """Of this process's resident memory."""
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def syncs(url: str, folder: Path, symbols: list[str], days: int, times: int) -> list[dict[str, float]]:
    """Seconds, bytes written and rows of so many syncs, ``BEHIND_MIN`` apart, in this process."""
    clock = StandingClock()
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
    """What went wrong with the first series that failed."""
    return str(next(report for report in reports if report.failure or report.gaps))


def appends(folder: Path, times: int) -> dict[str, float]:
    """Milliseconds and bytes of appending one minute to a whole month, the mean of so many."""
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
    """What a piece of work in a process of its own found."""
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
    """Print a figure; whether it is what it must be."""
    kept = found < must
    print(f"{what:66} {found:9.2f} {unit:4} must be under {must:g}{'' if kept else '   MISSED'}", flush=True)
    return kept


def main(days: int, series: int) -> int:
    kept = []
    with tempfile.TemporaryDirectory(prefix="benchmark-data-") as root:
        folder, archive = Path(root) / "klines", Path(root) / "archive"
        archive.mkdir()
        make_archive(archive, days)
        command = [sys.executable, "-m", "benchmarks.tools.data", "--serve", str(archive), "--days", str(days)]
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
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked.days)
    elif asked.work:
        print(json.dumps(WORK[asked.work[0]](*asked.work[1:])))
    else:
        raise SystemExit(main(asked.days, asked.series))
