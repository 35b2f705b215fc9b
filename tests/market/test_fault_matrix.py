"""Every fault at every endpoint of the first venue, with what becomes of it; docs/fault-matrix.md is made from it.

scripts/test tests/market/test_fault_matrix.py --write-fault-matrix
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, MINUTE_MS, CorrectedClock
from core.errors import MalformedKlines, WorkerError
from exchange.server import SimulatedExchange
from exchange.stream_faults import Kind
from klines.klines import Klines
from market.live.live_market import LiveMarket
from market.live.price_feed import PriceFeed
from market.store.scale_break import checked
from market.venues.binance.rest import Binance
from market.venues.binance.stream import BinanceStream
from tests.fakes.clock import START_MS, FakeClock, RunningClock, Skewed, eventually
from tests.fakes.klines import random_walk_klines, times
from tests.fakes.venue_server import NOT_FOUND, Answer, Venue, rest_rows, zip_of
from tests.market.failover.pair import Stand, frozen, leapt, with_row

DOCUMENT = Path(__file__).parents[2] / "docs" / "fault-matrix.md"
LONGER = random_walk_klines(2 * 1440 + 3)
WALK = LONGER.between(START_MS, START_MS + 2 * DAY_MS)
NOW_MS = WALK.end_ms
ROWS = 40
BTC = ("BTCUSDT", MINUTE_MS)
DAY = WALK.between(START_MS, START_MS + DAY_MS)
Cells = list[list[object]]
Change = Callable[[Cells], object]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong at the first venue. What an endpoint cannot have is None there."""

    name: str
    answer: Answer | None = None  # in the place of every answer
    rows: Change | None = None  # what candles and archives say in the place of their rows
    price: str | None = None  # what a price says
    klines: Klines | None = None  # what it has in the place of the walk
    archive: Answer | None = None  # in the place of a file
    still: bool = False  # its price is the same for three minutes, while its candles go on


def cell(column: int, value: object, row: int = 5) -> Change:
    """Rows with another value in one cell."""

    def change(rows: Cells) -> object:
        rows[row][column] = value
        return rows

    return change


def twice(rows: Cells) -> object:
    return [*rows[:6], [*rows[5][:4], "1.0", *rows[5][5:]], *rows[6:]]


def spiked(factor: float) -> Klines:
    klines = WALK
    for row in (100, len(WALK) - 10):  # in the archived day, and among the newest
        price = float(WALK.close[row]) * factor
        klines = with_row(klines, int(WALK.open_time_ms[row]), close=price, high=price)
    return klines


def stuck() -> Klines:
    rows = np.minimum(np.arange(len(WALK)), len(WALK) - 6)
    return Klines.from_table(MINUTE_MS, WALK.open_time_ms, WALK.table()[rows])


BANNED = json.dumps({"code": -1003, "msg": f"Way too much request weight used; IP banned until {NOW_MS + 90_000}."})
HOLE = WALK.between(0, NOW_MS - 20 * MINUTE_MS).merge(WALK.between(NOW_MS - 18 * MINUTE_MS, NOW_MS))
FAULTS = [
    Fault(name="HTTP 451, barred", answer=Answer('{"code":0,"msg":"restricted location"}', 451)),
    Fault(name="HTTP 403 in HTML", answer=Answer("<html>Request blocked</html>", 403)),
    Fault(name="HTTP 429, Retry-After 20", answer=Answer("{}", 429, {"Retry-After": "20"})),
    Fault(name="HTTP 418, ban ends in 90 s by its text", answer=Answer(BANNED, 418)),
    Fault(name="HTTP 500", answer=Answer("sorry", 500)),
    Fault(name="HTTP 503, maintenance", answer=Answer("<html>maintenance</html>", 503)),
    Fault(name="connection ended", answer=Answer(hang_up=True)),
    Fault(name="no answer in time", answer=Answer(wait_for=threading.Event())),
    Fault(name="answer cut off", answer=Answer("[" * 50, cut=True)),
    Fault(name="HTML with HTTP 200", answer=Answer("<html>log in</html>")),
    Fault(name="JSON cut short", answer=Answer('[[1, "2"')),
    Fault(name="JSON of another form", answer=Answer('{"rows": []}')),
    Fault(name="no body", answer=Answer("")),
    Fault(name="unknown or delisted symbol", answer=Answer('{"code":-1121,"msg":"Invalid symbol."}', 400)),
    Fault(name="file not there", archive=Answer("NoSuchKey", 404)),
    Fault(name="wrong checksum", archive=Answer("0" * 64 + "  x.zip")),
    Fault(name="no rows at all", rows=lambda rows: []),
    Fault(name="columns in another order", rows=lambda rows: [[r[0], r[3], r[1], r[2], *r[4:]] for r in rows]),
    Fault(name="newest first", rows=lambda rows: rows[::-1]),
    Fault(name="times in microseconds", rows=lambda rows: [[int(str(r[0])) * 1000, *r[1:]] for r in rows]),
    Fault(name="times in seconds", rows=lambda rows: [[int(str(r[0])) // 1000, *r[1:]] for r in rows]),
    Fault(name="one price NaN", rows=cell(4, "NaN"), price="NaN"),
    Fault(name="one price 0", rows=cell(1, "0"), price="0"),
    Fault(name="one price below 0", rows=cell(3, "-5"), price="-5"),
    Fault(name="one price infinite", rows=cell(2, "inf"), price="inf"),
    Fault(name="one price in words", rows=cell(4, "much"), price="much"),
    Fault(name="one high below its low", rows=cell(2, "1.0")),
    Fault(name="one volume below 0", rows=cell(5, "-1")),
    Fault(name="one time off the grid", rows=cell(0, NOW_MS - 30 * MINUTE_MS - 7)),
    Fault(name="two rows of one time, not alike", rows=twice),
    Fault(name="one row of tomorrow", rows=lambda rows: [*rows, [NOW_MS + DAY_MS, *rows[-1][1:]]]),
    Fault(name="a hole of two minutes", klines=HOLE),
    Fault(name="a spike that no other venue has", klines=spiked(1.5)),
    Fault(name="a leap of the newest candle that no other venue has", klines=leapt(WALK, NOW_MS - MINUTE_MS, 1.5)),
    Fault(name="frozen: no trade in five minutes, price still", klines=frozen(WALK, 5)),
    Fault(name="nothing newer than ten minutes", klines=WALK.between(0, NOW_MS - 10 * MINUTE_MS)),
    Fault(name="frozen: the last candle told five times over", klines=stuck()),
    Fault(name="a price 30 % away", price="2600"),
    Fault(name="a price that stands still while candles go on", still=True),
]
ENDPOINTS = ("candles", "price", "archive")


@pytest.fixture
def venues() -> Iterator[tuple[Venue, Venue]]:
    with Venue().running() as first, Venue().running() as second:
        for venue in (first, second):
            venue.add("ETHUSDT", WALK)
            venue.prices = {"ETHUSDT": "2000"}
        yield first, second


def spoil(venue: Venue, fault: Fault) -> None:
    """Let the first venue have the fault, wherever it can."""
    if fault.klines is not None:
        venue.add("ETHUSDT", fault.klines)
    if fault.price is not None:
        venue.prices = {"ETHUSDT": fault.price}

    def handle(path: str, query: dict[str, str]) -> Answer | None:
        if fault.answer is not None:
            return fault.answer
        is_file = path.startswith("/data/spot/")
        if is_file and fault.archive is not None:
            return fault.archive if fault.archive.status != 200 or path.endswith(".CHECKSUM") else None
        if fault.rows is None:
            return None
        if path == "/api/v3/klines":
            start_ms, end_ms = int(query["startTime"]), int(query["endTime"]) + 1
            return Answer(json.dumps(fault.rows(rest_rows(WALK.between(start_ms, end_ms)))))
        if is_file and not path.endswith(".CHECKSUM"):
            changed = fault.rows(rest_rows(DAY))
            lines = [",".join(map(str, cells)) for cells in changed]  # type: ignore[attr-defined]
            return Answer(zip_of(("a.csv", "\n".join(lines))))
        return NOT_FOUND if is_file else None

    venue.handler = handle


def applies(fault: Fault, endpoint: str) -> bool:
    """Whether an endpoint can have it."""
    if fault.answer is not None:
        return True
    if endpoint == "price":
        return fault.price is not None or fault.still or fault.name.startswith("frozen")
    if endpoint == "archive":
        in_day = fault.klines is not None and "spike" in fault.name
        return fault.archive is not None or fault.rows is not None or in_day
    return fault.rows is not None or fault.klines is not None


def state(stand: Stand, kind: str) -> str:
    """How the first venue is left, and for how long."""
    faults = stand.market.faults
    fault = faults.get(("binance", kind, "")) or faults.get(("binance", kind, "ETHUSDT"))
    return f"first {fault.state}, {fault.rest_s:g} s" if fault else "first well"


def rejected(stand: Stand) -> str:
    counts = sorted(stand.market.quarantine.counts.items())
    return "; ".join(f"{count} rejected: {reason}" for (_, _, reason), count in counts)


def assert_true(told: Klines) -> None:
    np.testing.assert_allclose(told.close, WALK.close[np.isin(WALK.open_time_ms, told.open_time_ms)], rtol=1e-8)


def of_candles(stand: Stand) -> str:
    told = stand.newest(ROWS, NOW_MS)
    assert_true(told)
    who = "first" if stand.source == "binance" else "next venue"
    parts = [who, "" if len(told) == ROWS else f"{ROWS - len(told)} missing, asked for again", rejected(stand)]
    filled = f"{stand.market.filled} from the next venue" if stand.market.filled else ""
    return "; ".join(filter(None, [*parts, filled, state(stand, "klines")]))


def of_price(stand: Stand, feed: PriceFeed) -> str:
    moved = stand.clock.now_ms() >= LONGER.end_ms  # the market went on
    if not moved:
        feed.anchors.learn("ETHUSDT", times(WALK, 2000 / float(WALK.close[-1])))  # it closes at the price
    parts = []
    for _ in range(5):
        feed.poll(["ETHUSDT"])
        if anchor := feed.anchors.get("ETHUSDT"):
            break
        parts = ["doubted"]
        stand.wait(1)
    assert anchor
    assert anchor.price == pytest.approx(float(LONGER.close[-1]) if moved else 2000.0)
    who = "first" if anchor.venue == "binance" else "next venue"
    return f"{', then '.join([*parts, who])}, believed; {state(stand, 'prices')}"


def of_archive(stand: Stand) -> str:
    """As a sync does, which asks the venue itself."""
    try:
        file = stand.venues[0].archive("ETHUSDT", MINUTE_MS, START_MS)
    except WorkerError as error:
        kind = "malformed" if isinstance(error, MalformedKlines) else "unavailable"
        return f"not used ({kind}): asked for over REST"
    if file is None:
        return "not there: asked for over REST"
    rows = checked(file, Klines.empty(MINUTE_MS))
    stand.market.quarantine.put("binance", "ETHUSDT", MINUTE_MS, rows.rejected, NOW_MS)
    assert_true(rows.klines)
    missing = len(DAY) - len(rows.klines)
    left = f"{missing} missing, asked for over REST" if missing else ""
    return "; ".join(filter(None, ["used", left, rejected(stand)]))


def observed(fault: Fault, endpoint: str, venues: tuple[Venue, Venue]) -> str:
    """What becomes of a fault, on a market that was well before."""
    first, second = venues
    hangs = fault.answer is not None and fault.answer.wait_for is not None
    stand = Stand(first, second, FakeClock(NOW_MS), timeout_s=0.3 if hangs else 5)
    first.handler = lambda path, query: None
    for venue in venues:
        venue.add("ETHUSDT", LONGER if fault.still else WALK)
    first.prices = {"ETHUSDT": repr(float(WALK.close[-1])) if fault.still else "2000"}
    stand.newest(299, NOW_MS - MINUTE_MS)
    spoil(first, fault)
    if fault.name.startswith("frozen") and endpoint == "price":
        of_candles(stand)  # which tell that nobody trades
    feed = PriceFeed(stand.market, ["ETHUSDT"], CorrectedClock(stand.clock))
    if fault.still:
        for step in range(45):
            stand.wait(4)
            ended = LONGER.between(0, stand.clock.time_ms - MINUTE_MS + 1)
            second.prices = {"ETHUSDT": repr(float(ended.close[-1]))}  # there it goes on
            feed.poll(["ETHUSDT"])
            if step % 15 == 14:
                feed.anchors.learn("ETHUSDT", stand.latest(ROWS))
    if endpoint == "price":
        return of_price(stand, feed)
    return of_candles(stand) if endpoint == "candles" else of_archive(stand)


STREAM_FAULTS: list[tuple[str, Kind | None, dict[str, float]]] = [
    ("connection cut", "drop", {}),
    ("connection ended properly, as every 24 hours", "close", {}),
    ("new connections refused, HTTP 451", "refuse", {"seconds": 3, "status": 451}),
    ("silence, pings answered", "silence", {"seconds": 5}),
    ("half-open: nobody is there", "half_open", {}),
    ("messages that cannot be read", "garbage", {"count": 20}),
    ("hundreds of messages a second that cannot be read, and no others", "garbage_flood", {"seconds": 5}),
    ("messages twice", "duplicate", {"count": 20}),
    ("messages in another order", "reorder", {"count": 3}),
    ("a price 40 % away", "outlier", {"count": 2, "factor": 1.4}),
    ("messages three seconds late", "lag", {"seconds": 5, "delay_s": 3}),
    ("closed candles not told", "lose_candles", {"count": 2}),
    ("closed candles told wrongly", "wrong_candles", {"count": 2}),
    ("none; our clock fifty seconds ahead", None, {"ours_ahead_ms": 50_000}),
    ("none; our clock fifty seconds behind", None, {"ours_ahead_ms": -50_000}),
    ("none; our clock ten minutes ahead", None, {"ours_ahead_ms": 10 * MINUTE_MS}),
    ("none; our clock ten minutes behind", None, {"ours_ahead_ms": -10 * MINUTE_MS}),
]
WATCHED_S = 6.0
FRESH_MS = 5_000
STREAMS_AT_ONCE = 8


def of_stream(kind: Kind | None, options: dict[str, float]) -> str:
    """What becomes of a fault of the stream, REST being well. Every price and candle is compared with the true one."""
    clock = RunningClock()
    ours = CorrectedClock(Skewed(clock, round(options.get("ours_ahead_ms", 0))))
    with SimulatedExchange(clock=clock, symbols=["BTCUSDT"]) as exchange:
        stream = BinanceStream([exchange.stream_url], [BTC], ping_after_s=0.7, silence_s=2.0)
        live = LiveMarket(Binance([exchange.url], "", ours, timeout_s=2, patience_s=0), {BTC: ROWS}, ours, stream)
        live.start(lambda _: None)
        try:
            eventually(lambda: bool(live.anchor("BTCUSDT") and len(live.klines(*BTC))), what="the start")
            eventually(lambda: not live.stream_fault, what="the stream")
            clock.jump(55_000 - clock.now_ms() % MINUTE_MS)  # a candle closes while it is going on
            jumped_ms = clock.now_ms()
            eventually(lambda: bool((price := live.anchor("BTCUSDT")) and price.asof_ms > jumped_ms), what="a price")
            if kind:
                exchange.fail_stream(kind, **options)
            if kind == "refuse":
                exchange.fail_stream("drop")
            oldest_ms, until_s = 0, time.monotonic() + WATCHED_S
            while time.monotonic() < until_s:
                anchor = live.anchor("BTCUSDT")
                assert anchor
                now_ms = clock.now_ms()
                moments = (*range(anchor.asof_ms - 1000, now_ms, 250), now_ms)  # the tape moves every quarter second
                assert any(exchange.source.price_at("BTCUSDT", at) == anchor.price for at in moments)
                oldest_ms = max(oldest_ms, clock.now_ms() - anchor.asof_ms)
                time.sleep(0.1)
            eventually(lambda: not live.stream_fault, what="the stream again")
            eventually(lambda: live.klines(*BTC).end_ms == clock.now_ms() // MINUTE_MS * MINUTE_MS, what="the candle")
            wrong = kind == "wrong_candles"
            eventually(lambda: bool(live.incidents["candle_corrected"]) is wrong, what="the correction")
            known = live.klines(*BTC)
            true = exchange.source.klines("BTCUSDT", MINUTE_MS, int(known.open_time_ms[0]), known.end_ms)
            np.testing.assert_allclose(known.close, true.close, rtol=1e-7)
        finally:
            live.stop()
        fresh = "fresh" if oldest_ms < FRESH_MS else f"up to {oldest_ms / 1000:.0f} s old"
        parts = [
            f"price {fresh}",
            "connected anew" if live.incidents["stream_ended"] else "connection kept",
            "doubted, not believed" if live.incidents["price_doubted"] else "",
            "REST has it otherwise, and counts" if wrong else "",
            f"the venue's time is used, {ours.ahead_ms / 1000:+.0f} s" if ours.ahead_ms else "",
        ]
        return "; ".join(filter(None, parts))


def test_the_document_says_what_happens(venues: tuple[Venue, Venue], request: pytest.FixtureRequest) -> None:
    with ThreadPoolExecutor(STREAMS_AT_ONCE) as pool:
        streams = list(pool.map(lambda fault: of_stream(fault[1], fault[2]), STREAM_FAULTS))
    lines = []
    for fault in FAULTS:
        cells = [observed(fault, at, venues) if applies(fault, at) else "" for at in ENDPOINTS]
        lines.append(f"| {fault.name} | {' | '.join(cells)} |")
    told = [f"| {name} | {said} |" for (name, _, _), said in zip(STREAM_FAULTS, streams, strict=True)]
    made = HEAD + "\n".join(lines) + "\n" + STREAM_HEAD + "\n".join(told) + "\n"
    if request.config.getoption("--write-fault-matrix"):
        DOCUMENT.write_text(made)
    assert DOCUMENT.read_text() == made, "run again with --write-fault-matrix, and look at what has changed"


HEAD = """# Faults and what becomes of them

Made by `scripts/test tests/market/test_fault_matrix.py --write-fault-matrix`; each test run compares it with what
happens. The first venue of `MARKET_VENUES` has the fault at one endpoint of a market that was well a moment before; a
second one is well. Every candle and price that comes out is also compared with the true one.

| fault | candles over REST | price over REST | archive file |
|---|---|---|---|
"""
STREAM_HEAD = """
With the stream, REST being well (fresh: never older than 5 s while the fault lasts):

| fault of the stream | what becomes of it |
|---|---|
"""
