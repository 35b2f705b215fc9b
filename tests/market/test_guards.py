"""What one odd value costs between a venue and the store, for how long, and who lifts it (docs/decisions/0008)."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from cli.data.sync import line_of
from core.clock import DAY_MS, MINUTE_MS, iso
from core.errors import MalformedKlines
from klines.klines import PRICE_COLUMNS, Klines
from klines.plausible import LEAPT
from market.failover.endings import Endings
from market.quarantine import Quarantine
from market.store.inspection import gaps
from market.store.kline_store import KlineStore
from market.store.sync import SyncReport, sync_all
from market.venues.binance.rest import Binance
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import assert_same, random_walk_klines
from tests.fakes.venue_server import Answer, Venue, entry_of, rest_rows

NOW_MS = START_MS + 2 * DAY_MS + 617 * MINUTE_MS + 30_000
END_MS = NOW_MS // MINUTE_MS * MINUTE_MS
ROWS = 1240
WALK = random_walk_klines(ROWS, start_ms=END_MS - ROWS * MINUTE_MS)
Rows = list[list[object]]
DIFFERENT_MS: list[int] = np.random.default_rng(0).integers(1, 45_000, ROWS).tolist()


def listed(walk: Klines) -> Klines:
    """The same with the first closes of a new listing."""
    level = np.ones(len(walk))
    level[:3] = np.array([0.098, 0.73, 1.95]) / 4.4
    told = (*PRICE_COLUMNS, "quote_volume", "taker_buy_quote")
    return replace(walk, **{name: getattr(walk, name) * level for name in told})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


class Synced:
    """One venue's folder, its venue with archives and REST, and what a sync keeps between two runs."""

    def __init__(self, venue: Venue, folder: Path, clock: FakeClock) -> None:
        self.store, self.clock, self.quarantine = KlineStore(folder), clock, Quarantine()
        self.binance = Binance([venue.url], venue.url, clock, patience_s=0, quarantine=self.quarantine)
        self.endings = Endings(clock)

    def sync(self, days: int = 2, symbol: str = "ETHUSDT", start_ms: int | None = None) -> SyncReport:
        now_ms = self.clock.now_ms()
        wanted = [(symbol, MINUTE_MS, now_ms - days * DAY_MS if start_ms is None else start_ms)]
        return sync_all(self.store, self.binance, wanted, now_ms, quarantine=self.quarantine, endings=self.endings)[0]

    @property
    def stored(self) -> Klines:
        return self.store.read("ETHUSDT", MINUTE_MS, 0, 2**62)


@pytest.fixture
def synced(venue: Venue, tmp_path: Path, clock: FakeClock) -> Synced:
    return Synced(venue, tmp_path / "klines", clock)


def shifted(rows: Rows, by_ms: list[int]) -> Rows:
    """Rows whose times lie off the grid."""
    return [[int(str(r[0])) + ms, *r[1:6], int(str(r[6])) + ms, *r[7:]] for r, ms in zip(rows, by_ms, strict=True)]


def spoil(venue: Venue, change: Callable[[Rows], Rows], walk: Klines = WALK, *, in_place: bool = False) -> None:
    """Let REST tell a walk's rows otherwise; archives have none of them.

    Args:
        in_place: a row is told where the true row would be, whatever time it has now.
    """
    venue.has_archives = False

    def handle(path: str, query: dict[str, str]) -> Answer | None:
        if path != "/api/v3/klines":
            return None
        told, asked = change(rest_rows(walk)), range(int(query["startTime"]), int(query["endTime"]) + 1)
        times = walk.open_time_ms.tolist() if in_place else [int(str(row[0])) for row in told]
        return Answer(json.dumps([row for at_ms, row in zip(times, told, strict=True) if at_ms in asked][:1000]))

    venue.handler = handle


def heal(venue: Venue) -> None:
    """Let REST tell the walk as it is."""
    venue.handler = lambda path, query: None
    venue.add("ETHUSDT", WALK)


@pytest.mark.parametrize("archives", [pytest.param(True, id="archives"), pytest.param(False, id="REST")])
@pytest.mark.parametrize("age", [pytest.param(600, id="hours ago"), pytest.param(3 * 1440, id="days ago")])
def test_a_new_listing_is_stored_and_marked(venue: Venue, synced: Synced, age: int, *, archives: bool) -> None:
    whole = listed(random_walk_klines(age, start_ms=END_MS - age * MINUTE_MS, first=4.4))
    venue.add("ETHUSDT", whole)
    venue.has_archives = archives
    for _ in range(2):
        assert synced.sync(days=5).failure is None
        np.testing.assert_allclose(synced.stored.close, whole.close, rtol=0, atol=1e-8)
        synced.clock.time_ms += MINUTE_MS // 2
    assert {reason: count for (_, _, reason), count in synced.quarantine.marks.items()} == {LEAPT: 3}
    assert not synced.quarantine.counts


def test_a_listing_of_just_now_is_stored_as_it_comes(venue: Venue, synced: Synced) -> None:
    whole = listed(random_walk_klines(30, start_ms=END_MS - 4 * MINUTE_MS, first=4.4))
    venue.add("ETHUSDT", whole)
    venue.has_archives = False
    for rows in (4, 6):
        assert synced.sync().remark == ""
        np.testing.assert_allclose(synced.stored.close, whole.close[:rows], atol=1e-8)
        synced.clock.time_ms += 2 * MINUTE_MS


@pytest.mark.parametrize(
    ("by_ms", "how"),
    [
        pytest.param([14_789] * ROWS, "14789 ms off the grid", id="alike"),
        pytest.param(DIFFERENT_MS, "off the grid, not equally far in all rows", id="not alike"),
    ],
)
def test_minutes_off_the_grid_are_stored_as_the_minutes_that_they_lie_in(
    venue: Venue, synced: Synced, by_ms: list[int], how: str
) -> None:
    spoil(venue, lambda rows: shifted(rows, by_ms))
    synced.clock.time_ms = END_MS + 50_000  # the last one has ended
    with capture_logs() as lines:
        assert synced.sync().failure is None
    np.testing.assert_array_equal(synced.stored.open_time_ms, WALK.open_time_ms)
    np.testing.assert_allclose(synced.stored.close, WALK.close, rtol=0, atol=1e-8)
    reason = f"open time is {how}: taken for the minute that it lies in"
    assert [line["reason"] for line in lines if line["event"] == "rows_marked"] == [reason]
    assert synced.quarantine.marks == {("binance", "ETHUSDT", reason): ROWS}
    assert not synced.quarantine.counts


def test_an_unfinished_minute_off_the_grid_is_not_stored(venue: Venue, synced: Synced) -> None:
    spoil(venue, lambda rows: shifted(rows, [40_000] * ROWS))
    synced.sync()
    np.testing.assert_array_equal(synced.stored.open_time_ms, WALK.open_time_ms[:-1])


ODD_ROWS: dict[str, Callable[[list[object]], object]] = {
    "no row": lambda row: None,
    "an object": lambda row: {"open": row[1]},
    "too few columns": lambda row: row[:5],
    "a time in words": lambda row: ["soon", *row[1:]],
    "a time in seconds": lambda row: [int(str(row[0])) // 1000, *row[1:]],
    "a time in microseconds": lambda row: [int(str(row[0])) * 1000, *row[1:]],
    "a time below 0": lambda row: [-1, *row[1:]],
    "off the grid": lambda row: [int(str(row[0])) + 14_789, *row[1:]],
    "of tomorrow": lambda row: [int(str(row[0])) + 2 * DAY_MS, *row[1:]],
    "no close time": lambda row: [*row[:6], None, *row[7:]],
    "a price in words": lambda row: [*row[:4], "much", *row[5:]],
    "a price of zero": lambda row: [row[0], "0", *row[2:]],
    "an infinite price": lambda row: [*row[:2], "inf", *row[3:]],
    "high below low": lambda row: [*row[:2], "1", *row[3:]],
    "a volume below 0": lambda row: [*row[:5], "-1", *row[6:]],
    "a hundredfold close": lambda row: [*row[:2], "250000", row[3], "200000", *row[5:]],
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD_ROWS.values(), ids=ODD_ROWS.keys())
@pytest.mark.parametrize("place", [0, 600, ROWS - 2])
def test_one_odd_row_costs_itself_and_is_stored_when_it_is_right(
    venue: Venue,
    synced: Synced,
    odd: Callable[[list[object]], object],
    place: int,
) -> None:
    """Also where it is the newest but one, so that serving goes on."""

    def change(rows: Rows) -> Rows:
        return [*rows[:place], odd(rows[place]), *rows[place + 1 :]]  # type: ignore[list-item]

    spoil(venue, change, in_place=True)
    assert synced.sync().failure is None
    missing = np.setdiff1d(WALK.open_time_ms, synced.stored.open_time_ms)
    assert set(missing.tolist()) <= {int(WALK.open_time_ms[place])}
    heal(venue)
    synced.clock.time_ms += DAY_MS  # a hole is asked for again after a day
    synced.sync(days=3)
    assert_same(synced.stored, WALK)


def test_where_most_rows_are_wrong_the_message_says_how_many_and_right_ones_are_stored_at_once(
    venue: Venue, synced: Synced
) -> None:
    spoil(venue, lambda rows: [[r[0], r[3], r[1], r[2], *r[4:]] for r in rows])
    failure = synced.sync().failure
    assert isinstance(failure, MalformedKlines)
    assert re.search(r"(\d+) of \1 rows are no klines", str(failure))
    assert not len(synced.stored)
    heal(venue)
    synced.clock.time_ms += 2_000
    assert synced.sync().failure is None
    np.testing.assert_array_equal(synced.stored.open_time_ms, WALK.open_time_ms)


@pytest.mark.parametrize(
    ("status", "lists"),
    [
        pytest.param("BREAK", " (binance has halted or delisted it)", id="halted"),
        pytest.param("TRADING", " (binance lists it as trading)", id="trading"),
        pytest.param("", " (binance does not list it)", id="not listed"),
        pytest.param(None, "", id="no list"),
    ],
)
@pytest.mark.parametrize("minutes", [6, 30, 300, 1439, 1800])
def test_a_pair_whose_candles_ended_is_told_with_what_is_known(
    venue: Venue, synced: Synced, minutes: int, status: str | None, lists: str
) -> None:
    venue.add("ETHUSDT", random_walk_klines(600, start_ms=END_MS - (minutes + 600) * MINUTE_MS))
    venue.add("BTCUSDT", random_walk_klines(600, start_ms=END_MS - 600 * MINUTE_MS))
    venue.has_archives = False

    def handle(path: str, query: dict[str, str]) -> Answer | None:
        if path != "/api/v3/exchangeInfo" or status is None:
            return None
        unknown = Answer('{"code":-1121,"msg":"Invalid symbol."}', 400)
        return Answer(entry_of("ETHUSDT", "ETH", "USDT", status)) if status else unknown

    venue.handler = handle
    synced.sync(symbol="BTCUSDT", start_ms=END_MS - 600 * MINUTE_MS)
    closed = iso(END_MS - minutes * MINUTE_MS)
    advice = "halted, delisted or renamed? Its next candle is answered from"
    if minutes >= 1440:
        advice = "delisted or renamed? Set parameters.Symbol"
    with capture_logs() as lines:
        report = synced.sync()
    assert (report.fetched, report.failure) == (600, None)
    assert f"newest candle of ETHUSDT closed {closed}{lists}: {advice}" in line_of(report)
    assert [line["reason"] for line in lines if line["event"] == "nothing_new"] == [report.remark]
    venue.add("ETHUSDT", random_walk_klines(600 + minutes, start_ms=END_MS - (minutes + 600) * MINUTE_MS))
    assert synced.sync().remark == ""


@pytest.mark.parametrize("twice", [40, ROWS], ids=["some", "all"])
def test_rows_that_share_a_minute_are_nobody_s_minute(venue: Venue, synced: Synced, twice: int) -> None:
    """Some cost themselves; where all do, all is refused, with one of the rows."""

    def change(rows: Rows) -> Rows:
        told = shifted(rows, DIFFERENT_MS)
        return sorted([*told, *([int(str(r[0])) + 7, *r[1:]] for r in told[:twice])], key=lambda row: int(str(row[0])))

    spoil(venue, change)
    synced.clock.time_ms = END_MS + 50_000
    report = synced.sync()
    if twice == ROWS:
        said = r"(\d+) of \1 rows are no klines: open time is not on the grid: kline at 2023-"
        assert re.search(said, str(report.failure))
        assert not len(synced.stored)
        heal(venue)
        synced.clock.time_ms += 2_000
        assert synced.sync().failure is None
        assert len(synced.stored) == ROWS
        return
    assert len(synced.stored) >= ROWS - twice - 1
    assert sum(synced.quarantine.counts.values()) >= twice


def test_refused_rows_are_named_by_every_sync_until_they_are_right(venue: Venue, synced: Synced) -> None:
    """Also by a process that did not see them; a day after, they are asked for again and nothing is left to say."""
    bad = {600: "high is below open or close", 601: "high is below open or close", 900: "open time before 2009"}

    def change(rows: Rows) -> Rows:
        for row in (600, 601):
            rows[row][2] = "1"
        rows[900][0] = "soon"
        return rows

    spoil(venue, change, in_place=True)
    at = iso(int(WALK.open_time_ms[600]))[:16].replace("T", " ")
    first = f"3 rows rejected, the first of {at}Z: high is below open or close"
    until = f"asked for again by the first sync after {iso(NOW_MS + DAY_MS)[:16].replace('T', ' ')}Z"
    start_ms = int(WALK.open_time_ms[0])
    for _ in range(2):
        report = synced.sync(start_ms=start_ms)
        assert "no gaps except rejected rows" in line_of(report)
        assert first in line_of(report)
        assert until in line_of(report)
        synced.clock.time_ms += 1
        synced = Synced(venue, synced.store.root, synced.clock)
    whys = {int(WALK.open_time_ms[row]): why for row, why in bad.items()}
    told = {gap.start_ms: gap.why for gap in gaps(synced.store, "ETHUSDT", MINUTE_MS)}
    assert told == {at_ms: why for at_ms, why in whys.items() if at_ms != WALK.open_time_ms[601]}
    heal(venue)
    synced.clock.time_ms = NOW_MS + DAY_MS
    report = synced.sync(start_ms=start_ms)
    assert report.rejected == ""
    np.testing.assert_array_equal(synced.stored.open_time_ms, WALK.open_time_ms)


def test_a_part_that_is_refused_as_a_whole_is_named(venue: Venue, synced: Synced) -> None:
    days = random_walk_klines(3000, start_ms=END_MS - 3000 * MINUTE_MS)
    spoil(venue, lambda rows: [[*r[:4], "NaN" if 300 <= n < 1200 else r[4], *r[5:]] for n, r in enumerate(rows)], days)
    line = line_of(synced.sync(start_ms=int(days.open_time_ms[0])))
    assert "1,200 rows rejected, the first of" in line or "1,000 rows rejected, the first of" in line
    assert "rows are no klines" in line
