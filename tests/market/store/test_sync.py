"""Sync: archives and REST fill the store, later runs fetch what is new, failures stop nothing else."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError, MalformedKlines, MarketUnavailable
from klines.klines import Klines
from market.store.absence import ABSENT_FOR_MS
from market.store.kline_store import KlineStore
from market.store.sync import MISSES, OVERLAP_ROWS, THREADS, SyncReport, sync_all
from market.venues.binance.rest import Binance
from tests.fakes.clock import FakeClock
from tests.fakes.klines import assert_same, random_walk_klines
from tests.fakes.venue_server import Answer, Venue, csv_of, zip_of


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


LISTED_MS, NOW_MS = utc("2023-09-25"), utc("2023-11-05 10:17:30")
START_MS = utc("2023-09-28 12:00")
END_MS = utc("2023-11-05 10:17")  # the newest closed kline ends here
WALK = random_walk_klines((utc("2023-11-08") - LISTED_MS) // MINUTE_MS, start_ms=LISTED_MS)
HOURS = WALK.resample(HOUR_MS)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def venue(venue: Venue) -> Venue:
    venue.add("ETHUSDT", WALK)
    venue.add("ETHUSDT", HOURS)
    venue.add("BTCUSDT", WALK)
    return venue


@pytest.fixture
def binance(venue: Venue, clock: FakeClock) -> Binance:
    return Binance([venue.url], venue.url, clock, patience_s=2)


def minutes(store: KlineStore, binance: Binance, now_ms: int = NOW_MS, start_ms: int = START_MS) -> SyncReport:
    return sync_all(store, binance, [("ETHUSDT", MINUTE_MS, start_ms)], now_ms)[0]


def assert_holds(store: KlineStore, expected: Klines, symbol: str = "ETHUSDT") -> None:
    """All of ``expected``, and no gap but its own."""
    first, last = int(expected.open_time_ms[0]), expected.end_ms
    found = store.read(symbol, expected.interval_ms, first, last)
    assert_same(found, expected)


def zips(venue: Venue) -> list[str]:
    return [path.rsplit("-1m-", 1)[1] for path, _ in venue.requests if path.endswith(".zip")]


def test_the_first_sync_takes_months_then_days_then_rest(venue: Venue, store: KlineStore, binance: Binance) -> None:
    report = minutes(store, binance)
    assert_holds(store, WALK.between(START_MS, END_MS))
    assert (report.gaps, report.failure, report.set_aside) == ((), None, ())
    days = [f"2023-11-{day:02}.zip" for day in range(1, 5)] + [f"2023-09-{day}.zip" for day in (29, 30)]
    assert zips(venue)[0] == "2023-10.zip"
    assert sorted(zips(venue)) == sorted(["2023-10.zip", *days])
    spans = sorted((int(query["startTime"]), int(query["endTime"]) + 1) for query in venue.asked("/api/v3/klines"))
    newest = END_MS - OVERLAP_ROWS * MINUTE_MS, END_MS  # first: archive files are held against what is stored
    assert spans == [(START_MS, utc("2023-09-29")), (utc("2023-11-05"), newest[0]), newest]


def test_later_syncs_fetch_only_what_is_new(
    venue: Venue, store: KlineStore, binance: Binance, clock: FakeClock
) -> None:
    minutes(store, binance)
    venue.requests.clear()
    assert minutes(store, binance).fetched == 0
    assert venue.requests == []
    clock.sleep(7 * 60)
    assert minutes(store, binance, NOW_MS + 7 * MINUTE_MS).fetched == 7
    assert len(venue.requests) == 1
    assert_holds(store, WALK.between(START_MS, END_MS + 7 * MINUTE_MS))
    clock.sleep(86_400)
    minutes(store, binance, NOW_MS + DAY_MS + 7 * MINUTE_MS)
    assert len(venue.requests) < 6  # a day zip was not worth it: part of that day was there
    assert_holds(store, WALK.between(START_MS, END_MS + DAY_MS))


@pytest.mark.parametrize("rows", [1, 30], ids=["stored unfinished", "corrected by the venue since"])
def test_newest_klines_are_taken_over_as_the_venue_has_them_now(
    venue: Venue, store: KlineStore, binance: Binance, clock: FakeClock, rows: int
) -> None:
    newest = WALK.between(START_MS, END_MS).tail(rows)
    minutes(store, binance)
    store.append("ETHUSDT", replace(newest, close=newest.open, high=newest.open, low=newest.open))
    clock.sleep(60)
    assert minutes(store, binance, NOW_MS + MINUTE_MS).fetched == rows + 1
    assert_holds(store, WALK.between(START_MS, END_MS + MINUTE_MS))


def test_a_lost_month_and_a_hole_are_fetched_again(venue: Venue, store: KlineStore, binance: Binance) -> None:
    minutes(store, binance)
    (store.root / "ETHUSDT-1m" / "2023-10.parquet").write_bytes(b"torn")
    november = store.root / "ETHUSDT-1m" / "2023-11.parquet"
    kept = store.read("ETHUSDT", MINUTE_MS, utc("2023-11-01"), END_MS)
    november.unlink()
    hole = utc("2023-11-02 06:00"), utc("2023-11-02 06:30")
    store.append("ETHUSDT", kept.between(0, hole[0]).merge(kept.between(hole[1], END_MS)))
    venue.requests.clear()
    report = minutes(store, binance)
    assert [path.name.split(".")[0] for path in report.set_aside] == ["2023-10"]
    assert zips(venue) == ["2023-10.zip"]
    assert [int(query["startTime"]) for query in venue.asked("/api/v3/klines")] == [hole[0]]
    assert_holds(store, WALK.between(START_MS, END_MS))


def test_a_server_without_archives_is_enough(venue: Venue, store: KlineStore, binance: Binance) -> None:
    venue.has_archives = False
    assert minutes(store, binance).failure is None
    assert_holds(store, WALK.between(START_MS, END_MS))
    months, days = 1, MISSES - 1 + 2 * THREADS  # those before the last miss, and all that were under way then
    assert len(zips(venue)) <= months + days


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer("no such key", 404), id="not there"),
        pytest.param(Answer("<html>", 200), id="no zip"),
        pytest.param(Answer(zip_of(("a.csv", csv_of(WALK.tail(1440))))), id="of another day, with a wrong checksum"),
        pytest.param(Answer("denied", 403), id="denied"),
        pytest.param(Answer(b"PK", cut=True), id="cut off"),
    ],
)
def test_what_the_archive_lacks_comes_by_rest(
    venue: Venue, store: KlineStore, binance: Binance, answer: Answer
) -> None:
    bad = ("2023-10.zip", "2023-10-05.zip", "2023-11-02.zip", "2023-11-04.zip")
    venue.handler = lambda path, query: answer if path.endswith(bad) else None
    assert minutes(store, binance).failure is None
    assert_holds(store, WALK.between(START_MS, END_MS))
    assert len({name for name in zips(venue) if name.startswith("2023-10-")}) == 31
    asked = {int(query["startTime"]) // DAY_MS * DAY_MS for query in venue.asked("/api/v3/klines")}
    assert {utc("2023-10-05"), utc("2023-11-02"), utc("2023-11-04")} <= asked


def test_a_hole_in_an_archive_file_is_filled_by_rest(venue: Venue, store: KlineStore, binance: Binance) -> None:
    day = WALK.between(utc("2023-11-02"), utc("2023-11-11"))
    holed = zip_of(("a.csv", csv_of(day.between(0, utc("2023-11-02 08:00"))) + csv_of(day.tail(60))))
    unchecked = Answer("no such key", 404)
    venue.handler = lambda path, query: (
        (Answer(holed) if path.endswith(".zip") else unchecked) if "2023-11-02" in path else None
    )
    assert minutes(store, binance).failure is None
    assert_holds(store, WALK.between(START_MS, END_MS))


def test_what_the_venue_never_had_is_asked_for_once_a_day(
    venue: Venue, store: KlineStore, binance: Binance, clock: FakeClock
) -> None:
    halt = utc("2023-11-05 03:00"), utc("2023-11-05 04:20")
    recent = utc("2023-11-05 09:50"), utc("2023-11-05 10:00")
    traded = Klines.joined(
        MINUTE_MS,
        [WALK.between(utc("2023-11-03"), halt[0]), WALK.between(halt[1], recent[0]), WALK.between(recent[1], 2**62)],
    )
    venue.series["ETHUSDT", "1m"] = traded
    report = minutes(store, binance)  # a good part of the range is before the listing
    assert report.gaps == (recent,)
    assert report.failure is None
    assert_holds(store, traded.between(0, END_MS))
    venue.requests.clear()
    assert minutes(store, binance).gaps == (recent,)
    assert [int(query["startTime"]) for query in venue.asked("/api/v3/klines")] == [recent[0]]
    assert len(venue.requests) == 1
    clock.sleep(ABSENT_FOR_MS / 1000)
    venue.add("ETHUSDT", WALK)
    minutes(store, binance, NOW_MS + ABSENT_FOR_MS)
    assert_holds(store, WALK.between(START_MS, END_MS + ABSENT_FOR_MS))


def test_hours_come_by_rest(venue: Venue, store: KlineStore, binance: Binance) -> None:
    report = sync_all(store, binance, [("ETHUSDT", HOUR_MS, START_MS)], NOW_MS)[0]
    assert (report.failure, report.gaps) == (None, ())
    assert_holds(store, HOURS.between(START_MS, utc("2023-11-05 10:00")))
    assert {path for path, _ in venue.requests} == {"/api/v3/klines"}
    assert len(venue.requests) == 1


@pytest.mark.parametrize("interval_ms", [MINUTE_MS, HOUR_MS])
def test_while_rest_is_down_the_archive_serves_what_it_has(
    venue: Venue, store: KlineStore, binance: Binance, interval_ms: int
) -> None:
    venue.handler = lambda path, query: Answer("down", 500) if path.startswith("/api/") else None
    report = sync_all(store, binance, [("ETHUSDT", interval_ms, START_MS)], NOW_MS)[0]
    assert isinstance(report.failure, MarketUnavailable)
    assert report.gaps == ((utc("2023-11-05"), END_MS // interval_ms * interval_ms),)
    assert_holds(store, (WALK if interval_ms == MINUTE_MS else HOURS).between(START_MS, utc("2023-11-05")))
    venue.handler = lambda path, query: None
    assert sync_all(store, binance, [("ETHUSDT", interval_ms, START_MS)], NOW_MS)[0].gaps == ()


@pytest.mark.parametrize("answer", [Answer("down", 500), Answer("[]")], ids=["down", "without any rows"])
def test_an_answer_without_rows_is_not_remembered_as_absence(
    venue: Venue, store: KlineStore, binance: Binance, answer: Answer
) -> None:
    venue.has_archives = False
    venue.handler = lambda path, query: answer if path.startswith("/api/") else None
    report = minutes(store, binance)
    assert (report.fetched, report.gaps) == (0, ((START_MS, END_MS),))
    venue.handler = lambda path, query: None
    assert minutes(store, binance).gaps == ()
    assert_holds(store, WALK.between(START_MS, END_MS))


def test_one_malformed_answer_leaves_only_its_own_gap(venue: Venue, store: KlineStore, binance: Binance) -> None:
    venue.handler = lambda path, query: Answer("[[]]") if query.get("startTime") == str(START_MS) else None
    report = minutes(store, binance)
    assert isinstance(report.failure, MalformedKlines)
    assert report.gaps == ((START_MS, utc("2023-09-29")),)
    assert_holds(store, WALK.between(utc("2023-09-29"), END_MS))


def test_progress_rises_to_all_that_was_missing(venue: Venue, store: KlineStore, binance: Binance) -> None:
    venue.handler = lambda path, query: Answer("", 404) if "2023-11-0" in path else None
    seen: list[tuple[int, int]] = []
    wanted = [
        ("ETHUSDT", MINUTE_MS, START_MS),
        ("BTCUSDT", MINUTE_MS, utc("2023-11-03")),
        ("ETHUSDT", HOUR_MS, START_MS),
    ]
    sync_all(store, binance, wanted, NOW_MS, lambda done, total: seen.append((done, total)))
    total = (END_MS - START_MS) // MINUTE_MS + (END_MS - utc("2023-11-03")) // MINUTE_MS
    total += (utc("2023-11-05 10:00") - START_MS) // HOUR_MS
    assert {of for _, of in seen} == {total}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (total, total)
    assert len(seen) > 5


def test_a_second_writer_is_refused(store: KlineStore, binance: Binance) -> None:
    with store.writing(), pytest.raises(ConfigError, match="another process is writing"):
        minutes(KlineStore(store.root), binance)
