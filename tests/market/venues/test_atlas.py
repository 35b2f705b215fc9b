"""What Atlas alone has: spans and pages, bars with a count of their minutes, the newest minute as a price."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import MalformedKlines, WorkerError
from klines.klines import Klines
from market.quarantine import Quarantine
from market.venues.atlas import MOST_PAGES, Atlas, live, page
from market.venues.parsing import time_ms
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Handler, Venue
from tests.market.venues.formats import KEY, atlas_line, atlas_page, atlas_rows

NOW_MS = START_MS + 40 * DAY_MS
WALK = random_walk_klines(3 * 1440)
NAME = "tiingo_ethusd_1min"
MINUTES = atlas_rows(WALK.rows(0, 5))
HOURS = WALK.resample(HOUR_MS)


def serving(klines: Klines, page_rows: int = 10_000, *, host: str = "") -> Handler:
    """Pages of a range as Atlas makes them: by offset, with the address of the next one."""

    def answer(path: str, query: dict[str, str]) -> Answer | None:
        rows = atlas_rows(klines.between(time_ms(query["start"]), time_ms(query["end"]) + 1))
        first = int(query.get("offset", 0))
        following = None
        if first + page_rows < len(rows):
            words = "&".join(f"{name}={value}" for name, value in {**query, "offset": first + page_rows}.items())
            following = f"{host}/api/rows/?{words.replace(':', '%3A')}"
        return Answer(atlas_page(rows[first : first + page_rows], following))

    return answer


@pytest.fixture
def atlas(venue: Venue, quarantine: Quarantine) -> Atlas:
    venue.handler = serving(WALK)
    return Atlas([venue.url], FakeClock(NOW_MS), quarantine, key=KEY)


def five(atlas: Atlas) -> Klines:
    return atlas.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 5 * MINUTE_MS)


def test_minutes_are_asked_for_day_by_day(venue: Venue, atlas: Atlas) -> None:
    klines = atlas.klines("ETHUSDT", MINUTE_MS, START_MS, WALK.end_ms)
    np.testing.assert_array_equal(klines.open_time_ms, WALK.open_time_ms)
    asked = venue.asked("/api/rows/")
    assert len(asked) == 3
    assert asked[0] == {
        "dataset_name": NAME,
        "start": iso(START_MS),
        "end": iso(START_MS + DAY_MS),
        "resolution": "raw",
        "limit": "10000",
        "ordering": "timestamp",
    }
    assert {head["X-API-Key"] for head in venue.heads} == {KEY}


@pytest.mark.parametrize(
    ("interval_ms", "resolution", "spans"),
    [(5 * MINUTE_MS, "5m", 5), (HOUR_MS, "1h", 1), (DAY_MS, "1d", 1)],
)
def test_coarser_bars_have_longer_spans_and_no_flow(
    venue: Venue, atlas: Atlas, interval_ms: int, resolution: str, spans: int
) -> None:
    coarse = WALK.resample(interval_ms)
    venue.handler = serving(coarse)
    klines = atlas.klines("ETHUSDT", interval_ms, START_MS, START_MS + 35 * DAY_MS)
    np.testing.assert_array_equal(klines.open_time_ms, coarse.open_time_ms)
    np.testing.assert_array_equal(klines.close, coarse.close)
    assert np.isnan(klines.trades).all()
    assert [query["resolution"] for query in venue.asked("/api/rows/")] == [resolution] * spans


@pytest.mark.parametrize("host", [pytest.param("", id="a path"), pytest.param("http://127.0.0.1:1", id="a URL")])
def test_pages_are_followed_and_never_to_another_host(venue: Venue, atlas: Atlas, host: str) -> None:
    venue.handler = serving(WALK, 600, host=host)  # nobody listens where the URL points
    klines = atlas.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + DAY_MS)
    np.testing.assert_array_equal(klines.open_time_ms, WALK.open_time_ms[:1440])
    assert [query.get("offset") for query in venue.asked("/api/rows/")] == [None, "600", "1200"]
    assert {query["dataset_name"] for query in venue.asked("/api/rows/")} == {NAME}


def test_a_next_page_is_of_the_same_dataset_and_may_repeat_a_row(venue: Venue, atlas: Atlas) -> None:
    venue.scripted = [
        Answer(atlas_page(MINUTES[:2], "/api/keys/?dataset_name=other&resolution=1d&after=x")),
        Answer(atlas_page(MINUTES[1:3])),
    ]
    assert len(five(atlas)) == 3
    assert venue.requests[1] == ("/api/rows/", {"dataset_name": NAME, "resolution": "raw", "after": "x"})


def test_pages_may_come_newest_first(venue: Venue, atlas: Atlas) -> None:
    pages = [atlas_page(MINUTES[:2:-1], "?offset=2"), atlas_page(MINUTES[2::-1])]
    venue.scripted = [Answer(body) for body in pages]
    np.testing.assert_array_equal(five(atlas).close, WALK.close[:5])


@pytest.mark.parametrize(
    ("following", "requests"),
    [
        pytest.param(lambda asked: "/api/rows/?offset=7", 2, id="in a circle"),
        pytest.param(lambda asked: f"/api/rows/?offset={asked}", MOST_PAGES, id="on and on"),
        pytest.param(lambda asked: "/api/rows/", 2, id="to no page"),
    ],
)
def test_pages_without_end_end_in_an_error(
    venue: Venue, atlas: Atlas, following: Callable[[int], str], requests: int
) -> None:
    venue.handler = lambda path, query: Answer(atlas_page(MINUTES[:1], following(len(venue.requests))))
    with pytest.raises(MalformedKlines, match="go on without end"):
        five(atlas)
    assert len(venue.requests) == requests


def test_a_bar_of_fewer_minutes_than_it_has_is_a_gap(venue: Venue, atlas: Atlas, quarantine: Quarantine) -> None:
    rows = atlas_rows(HOURS)[:24]
    rows[5]["count"] = 59
    rows[6]["count"] = 0
    venue.handler = lambda path, query: Answer(atlas_page(rows))
    klines = atlas.klines("ETHUSDT", HOUR_MS, START_MS, START_MS + DAY_MS)
    assert list(klines.gaps()) == [(START_MS + 5 * HOUR_MS, START_MS + 7 * HOUR_MS)]
    assert quarantine.counts == {}


@pytest.mark.parametrize(
    ("body", "interval_ms", "says"),
    [
        pytest.param("[]", MINUTE_MS, "must have results", id="a list"),
        pytest.param('{"detail": "later"}', MINUTE_MS, "must have results", id="another object"),
        pytest.param(atlas_page({"a": 1}), MINUTE_MS, "results must be a list", id="an object for rows"),
        pytest.param(atlas_page([], 7), MINUTE_MS, "next must be an address", id="a number for the next page"),
        pytest.param(
            atlas_page([], "http://[/"), MINUTE_MS, "next must be an address", id="nonsense for the next page"
        ),
        pytest.param(atlas_page([{"timestamp": iso(START_MS)}]), MINUTE_MS, "finite and above 0", id="no values"),
        pytest.param(
            atlas_page([atlas_rows(HOURS)[0] | {"count": None}]), HOUR_MS, "count of its minutes", id="a bar's count"
        ),
    ],
)
def test_what_is_not_a_page_is_refused(body: str, interval_ms: int, says: str) -> None:
    with pytest.raises(MalformedKlines, match=says):
        page(body.encode(), interval_ms=interval_ms, now_ms=NOW_MS)


def test_null_for_rows_is_a_page_without_rows() -> None:
    assert len(page(atlas_page(None).encode(), interval_ms=MINUTE_MS, now_ms=NOW_MS)[0].klines) == 0


def test_genuine_minutes_are_read_as_they_are_meant(payloads: Path) -> None:
    body = (payloads / "atlas" / "rows_raw.json").read_bytes()
    found, following = page(body, interval_ms=MINUTE_MS, now_ms=time_ms("2026-07-30T22:00:00Z"))
    assert iso(int(found.klines.open_time_ms[0])) == "2026-07-30T21:59:00.000Z"
    klines = found.klines
    assert (klines.open[0], klines.close[0]) == (64693.15622176585, 64688.67038416061)
    assert (klines.quote_volume[0], klines.trades[0]) == (47071.896101475904, 134)
    assert following is None
    assert len(page(body, interval_ms=MINUTE_MS, now_ms=time_ms("2026-07-30T21:59:59Z"))[0].klines) == 0


def test_a_genuine_hour_is_read_and_its_next_page_found(payloads: Path) -> None:
    body = (payloads / "atlas" / "rows_1h.json").read_bytes()
    found, following = page(body, interval_ms=HOUR_MS, now_ms=time_ms("2026-07-30T22:00:00Z"))
    assert iso(int(found.klines.open_time_ms[0])) == "2026-07-30T19:00:00.000Z"
    assert found.klines.volume[0] == 589.7614337300001
    assert following is not None
    assert following["offset"] == "3"


def test_a_price_is_the_close_of_the_newest_minute(venue: Venue, atlas: Atlas) -> None:
    lines = [atlas_line(2000.5, iso(NOW_MS - 90_000)), atlas_line(1900, iso(NOW_MS - 150_000)), "", ""]
    venue.handler = lambda path, query: Answer("\n".join(lines))
    price = atlas.prices(["ETHUSDT", "BTCUSDC"])["ETHUSDT"]
    assert (price.price, price.asof_ms) == (2000.5, NOW_MS - 30_000)
    assert venue.requests == [
        ("/api/rows/live/", {"dataset_name": name, "limit": "1"}) for name in (NAME, "tiingo_btcusd_1min")
    ]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param("", "no rows", id="nothing"),
        pytest.param(atlas_line(2000.5, "")[:20], "not JSON", id="cut off"),
        pytest.param("5\n6", "time in the past", id="numbers"),
        pytest.param(atlas_line(2000.5, None), "time in the past", id="no time"),
    ],
)
def test_what_is_not_a_price_is_refused(body: str, says: str) -> None:
    with pytest.raises(MalformedKlines, match=says):
        live(body.encode(), name=NAME, now_ms=NOW_MS)


def test_genuine_live_rows_are_read(payloads: Path) -> None:
    body = (payloads / "atlas" / "live.ndjson").read_bytes()
    for lines in (body, b"\n".join(body.splitlines()[::-1])):  # whichever comes first
        price = live(lines, name="tiingo_btcusd_1min", now_ms=time_ms("2026-07-30T22:00:10Z"))
        assert (price.price, iso(price.asof_ms)) == (64688.67038416061, "2026-07-30T22:00:00.000Z")


@pytest.mark.parametrize("name", ["http401_missing_key.json", "http400_range_too_long.json"])
def test_genuine_refusals_are_quoted(payloads: Path, venue: Venue, atlas: Atlas, name: str) -> None:
    body = (payloads / "atlas" / name).read_bytes()
    venue.scripted = [Answer(body, int(name[4:7]))]
    with pytest.raises(WorkerError) as caught:
        five(atlas)
    assert json.loads(body)["error"] in str(caught.value)
