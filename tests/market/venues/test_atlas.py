"""The Atlas client against a scripted venue: spans, pages, coarse bars, tags, the newest minute."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import ConfigError, MalformedKlines, WorkerError
from klines.klines import Klines
from market.quarantine import Quarantine
from market.venues.atlas import MOST_PAGES, Atlas, live, page
from market.venues.parsing import time_ms
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Handler, Venue
from tests.market.venues.bodies import CELLS, assert_keeps_rules

KEY = "UP-0123456789abcdef0123456789"
NOW_MS = START_MS + 40 * DAY_MS
WALK = random_walk_klines(3 * 1440)
END_MS = START_MS + 3 * DAY_MS
NAME = "tiingo_ethusd_1min"
PRICES = ("open", "high", "low", "close", "volume")


def row_of(klines: Klines, row: int, **more: object) -> dict[str, Any]:
    """A row as Atlas has it: minutes keep their numbers in ``values``."""
    cells: dict[str, Any] = {name: float(getattr(klines, name)[row]) for name in PRICES}
    at = {"dataset_id": 3, "timestamp": iso(int(klines.open_time_ms[row])).replace(".000Z", "Z")}
    if klines.interval_ms == MINUTE_MS:
        flow = {"volume_notional": float(klines.quote_volume[row]), "trades_done": int(klines.trades[row])}
        return at | {"id": row, "values": cells | flow | more}
    return at | cells | {"count": klines.interval_ms // MINUTE_MS} | more


def page_of(rows: object, following: object = None, count: int = -1) -> str:
    return json.dumps({"count": count, "next": following, "previous": None, "results": rows})


def serving(klines: Klines, page_rows: int = 10_000, *, host: str = "") -> Handler:
    """Answers as Atlas does: pages of a range, by offset, with the address of the next one."""

    def answer(path: str, query: dict[str, str]) -> Answer | None:
        if path != "/api/rows/":
            return None
        found = klines.between(time_ms(query["start"]), time_ms(query["end"]) + 1)
        rows = [row_of(found, row) for row in range(len(found))]
        if query["ordering"] != "timestamp":
            rows = rows[::-1]
        first = int(query.get("offset", 0))
        following = None
        if first + page_rows < len(rows):
            words = "&".join(f"{name}={value}" for name, value in {**query, "offset": first + page_rows}.items())
            following = f"{host}/api/rows/?{words.replace(':', '%3A')}"
        return Answer(page_of(rows[first : first + page_rows], following, 0))

    return answer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def venue(venue: Venue) -> Venue:
    venue.handler = serving(WALK)
    return venue


@pytest.fixture
def atlas(venue: Venue, clock: FakeClock, aside: Quarantine) -> Atlas:
    return Atlas([venue.url], clock, aside, key=KEY)


def five(atlas: Atlas) -> Klines:
    return atlas.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 5 * MINUTE_MS)


# -- klines -----------------------------------------------------------------------------------------------------------


def test_minutes_are_asked_for_day_by_day(venue: Venue, atlas: Atlas) -> None:
    klines = atlas.klines("ETHUSDT", MINUTE_MS, START_MS, END_MS)
    np.testing.assert_array_equal(klines.open_time_ms, WALK.open_time_ms)
    for name in (*PRICES, "quote_volume", "trades"):
        np.testing.assert_array_equal(getattr(klines, name), getattr(WALK, name))
    assert np.isnan(klines.taker_buy_base).all()
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


def test_a_next_page_is_of_the_same_dataset(venue: Venue, atlas: Atlas) -> None:
    venue.scripted = [
        Answer(page_of([row_of(WALK, 0)], "/api/keys/?dataset_name=other&resolution=1d&after=x")),
        Answer(page_of([row_of(WALK, 1)])),
    ]
    assert len(five(atlas)) == 2
    assert venue.requests[1] == ("/api/rows/", {"dataset_name": NAME, "resolution": "raw", "after": "x"})


def test_rows_may_come_newest_first(venue: Venue, atlas: Atlas) -> None:
    pages = [page_of([row_of(WALK, 4), row_of(WALK, 3)], "?offset=2"), page_of([row_of(WALK, n) for n in (2, 1, 0)])]
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
    venue.handler = lambda path, query: Answer(page_of([row_of(WALK, 0)], following(len(venue.requests))))
    with pytest.raises(MalformedKlines, match="go on without end"):
        five(atlas)
    assert len(venue.requests) == requests


@pytest.mark.parametrize("rows", [pytest.param([], id="a list"), pytest.param(None, id="null")])
def test_no_rows_are_no_klines(venue: Venue, atlas: Atlas, rows: object) -> None:
    venue.scripted = [Answer(page_of(rows))]
    assert len(five(atlas)) == 0


@pytest.mark.parametrize("into_the_minute_ms", [0, MINUTE_MS - 1])
def test_the_minute_that_has_not_ended_is_dropped(venue: Venue, aside: Quarantine, into_the_minute_ms: int) -> None:
    atlas = Atlas([venue.url], FakeClock(START_MS + 10 * MINUTE_MS + into_the_minute_ms), aside, key=KEY)
    venue.handler = lambda path, query: Answer(page_of([row_of(WALK, row) for row in range(11)]))
    assert len(atlas.klines("ETHUSDT", MINUTE_MS, START_MS, END_MS)) == 10


def test_a_bar_of_fewer_minutes_than_it_has_is_a_gap(venue: Venue, atlas: Atlas, aside: Quarantine) -> None:
    hours = WALK.resample(HOUR_MS)
    rows = [row_of(hours, row) for row in range(24)]
    rows[5]["count"] = 59
    rows[6]["count"] = 0
    venue.handler = lambda path, query: Answer(page_of(rows))
    klines = atlas.klines("ETHUSDT", HOUR_MS, START_MS, START_MS + DAY_MS)
    assert list(klines.gaps()) == [(START_MS + 5 * HOUR_MS, START_MS + 7 * HOUR_MS)]
    assert aside.counts == {}


def test_rows_that_are_no_klines_are_kept_aside_and_the_others_used(
    venue: Venue, atlas: Atlas, aside: Quarantine
) -> None:
    rows = [row_of(WALK, row, **({"close": -1} if row == 7 else {})) for row in range(100)]
    venue.handler = lambda path, query: Answer(page_of(rows))
    assert len(atlas.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 100 * MINUTE_MS)) == 99
    assert aside.counts == {("atlas", "ETHUSDT", "a price is not finite and above 0"): 1}


def changed(**cells: object) -> str:
    return page_of([row_of(WALK, row, **cells) for row in range(5)])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param("<html>busy</html>", "not JSON", id="a page of a proxy"),
        pytest.param(changed()[:70], "not JSON", id="cut off"),
        pytest.param("", "not JSON", id="nothing"),
        pytest.param(b"\xff\xfe\x00", "not JSON", id="no text"),
        pytest.param("[]", "must have results", id="a list"),
        pytest.param('{"detail": "later"}', "must have results", id="another object"),
        pytest.param(page_of([5]), "list of objects", id="a number for a row"),
        pytest.param(page_of({"a": 1}), "list of objects", id="an object for rows"),
        pytest.param(page_of([], 7), "next must be an address", id="a number for the next page"),
        pytest.param(page_of([], "http://[/"), "next is no address", id="nonsense for the next page"),
        pytest.param(page_of([{"timestamp": iso(START_MS)}]), "finite and above 0", id="no values"),
        pytest.param(page_of([{"values": row_of(WALK, 0)["values"]}]), "a time that cannot be read", id="no time"),
        pytest.param(changed(close="NaN"), "finite and above 0", id="prices that are no number"),
        pytest.param(changed(open=0), "finite and above 0", id="prices of zero"),
        pytest.param(changed(low=9e9), "low .*above", id="low above high"),
        pytest.param(changed(volume=-1), "(?i)volume|flow", id="volumes below zero"),
    ],
)
def test_what_is_no_page_is_refused(venue: Venue, atlas: Atlas, clock: FakeClock, body: bytes | str, says: str) -> None:
    venue.scripted = [Answer(body)]
    with pytest.raises(MalformedKlines, match=says) as caught:
        five(atlas)
    assert venue.url in str(caught.value)
    assert clock.slept_s == []


def test_a_coarse_bar_must_say_of_how_many_minutes_it_is(venue: Venue, atlas: Atlas) -> None:
    venue.handler = lambda path, query: Answer(page_of([row_of(WALK.resample(HOUR_MS), 0, count=None)]))
    with pytest.raises(MalformedKlines, match="count of its minutes"):
        atlas.klines("ETHUSDT", HOUR_MS, START_MS, END_MS)


def test_genuine_minutes_are_read_as_they_are_meant(shared_data: Path) -> None:
    body = (shared_data / "raw" / "allora" / "atlas_rows_raw.json").read_bytes()
    found = page(body, interval_ms=MINUTE_MS, now_ms=time_ms("2026-07-30T22:00:00Z"))
    assert iso(int(found.sifted.klines.open_time_ms[0])) == "2026-07-30T21:59:00.000Z"
    assert found.sifted.klines.open[0] == 64693.15622176585
    assert found.sifted.klines.close[0] == 64688.67038416061
    assert found.sifted.klines.quote_volume[0] == 47071.896101475904
    assert found.sifted.klines.trades[0] == 134
    assert found.following is None
    assert len(page(body, interval_ms=MINUTE_MS, now_ms=time_ms("2026-07-30T21:59:59Z")).sifted.klines) == 0


def test_a_genuine_hour_is_read_and_its_next_page_found(shared_data: Path) -> None:
    body = (shared_data / "raw" / "allora" / "atlas_rows_1h.json").read_bytes()
    found = page(body, interval_ms=HOUR_MS, now_ms=time_ms("2026-07-30T22:00:00Z"))
    assert iso(int(found.sifted.klines.open_time_ms[0])) == "2026-07-30T19:00:00.000Z"
    assert found.sifted.klines.volume[0] == 589.7614337300001
    assert found.following is not None
    assert found.following["offset"] == "3"


PARTS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys((*PRICES, "volume_notional", "timestamp", "values", "count"), CELLS)
)
BODIES = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda parts, following: page_of([row_of(WALK, n) | part for n, part in enumerate(parts)], following),
        st.lists(PARTS, max_size=4),
        CELLS,
    ),
    st.builds(
        lambda parts: page_of([row_of(WALK, n, **part) for n, part in enumerate(parts)]), st.lists(PARTS, max_size=4)
    ),
    st.builds(page_of, st.recursive(CELLS, lambda inner: st.lists(inner, max_size=3)), CELLS),
)


@given(body=BODIES, interval_ms=st.sampled_from([MINUTE_MS, HOUR_MS]))
def test_any_bytes_are_a_page_that_keeps_the_rules_or_a_named_error(body: bytes | str, interval_ms: int) -> None:
    try:
        found = page(body if isinstance(body, bytes) else body.encode(), interval_ms=interval_ms, now_ms=NOW_MS)
    except WorkerError:
        return
    assert_keeps_rules(found.sifted, interval_ms, NOW_MS)


# -- prices -----------------------------------------------------------------------------------------------------------


def line(close: object = 2000.5, at: object = iso(NOW_MS - 90_000)) -> str:
    return json.dumps({"close": close, "timestamp": at})


def test_a_price_is_the_close_of_the_newest_minute(venue: Venue, atlas: Atlas) -> None:
    venue.handler = lambda path, query: Answer(f"{line()}\n{line(1900, iso(NOW_MS - 150_000))}\n\n")
    price = atlas.prices(["ETHUSDT", "BTCUSDC"])["ETHUSDT"]
    assert (price.price, price.asof_ms) == (2000.5, NOW_MS - 30_000)
    assert venue.requests == [
        ("/api/rows/live/", {"dataset_name": name, "limit": "1"}) for name in (NAME, "tiingo_btcusd_1min")
    ]


def test_a_price_is_never_of_a_time_to_come(venue: Venue, atlas: Atlas) -> None:
    venue.handler = lambda path, query: Answer(line(at=iso(NOW_MS - 1)))
    assert atlas.prices(["ETHUSDT"])["ETHUSDT"].asof_ms == NOW_MS


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param("", "no rows", id="nothing"),
        pytest.param("<html>busy</html>", "not JSON", id="a page of a proxy"),
        pytest.param(line()[:20], "not JSON", id="cut off"),
        pytest.param("5\n6", "list of objects", id="numbers"),
        pytest.param(line(close=0), "finite and above 0", id="a price of zero"),
        pytest.param(line(close=None), "finite and above 0", id="no price"),
        pytest.param(line(at=None), "time in the past", id="no time"),
        pytest.param(line(at="2190-01-01T00:00:00Z"), "time in the past", id="a time to come"),
    ],
)
def test_what_is_no_price_is_refused(venue: Venue, atlas: Atlas, body: str, says: str) -> None:
    venue.scripted = [Answer(body)]
    with pytest.raises(MalformedKlines, match=says):
        atlas.prices(["ETHUSDT"])


def test_genuine_live_rows_are_read(shared_data: Path) -> None:
    body = (shared_data / "raw" / "allora" / "atlas_live.ndjson").read_bytes()
    for lines in (body, b"\n".join(body.splitlines()[::-1])):  # whichever comes first
        price = live(lines, name="tiingo_btcusd_1min", now_ms=time_ms("2026-07-30T22:00:10Z"))
        assert (price.price, iso(price.asof_ms)) == (64688.67038416061, "2026-07-30T22:00:00.000Z")


@given(body=st.one_of(st.binary(max_size=60), st.lists(st.builds(line, CELLS, CELLS), max_size=3).map("\n".join)))
def test_any_bytes_are_a_price_in_the_past_or_a_named_error(body: bytes | str) -> None:
    try:
        found = live(body if isinstance(body, bytes) else body.encode(), name=NAME, now_ms=NOW_MS)
    except WorkerError:
        return
    assert found.price > 0
    assert found.asof_ms <= NOW_MS


# -- tags, names -- ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["atlas_http401_missing_key.json", "atlas_http400_range_too_long.json"])
def test_genuine_refusals_are_quoted(shared_data: Path, venue: Venue, atlas: Atlas, name: str) -> None:
    body = (shared_data / "raw" / "allora" / name).read_bytes()
    venue.scripted = [Answer(body, int(name.split("http")[1][:3]))]
    with pytest.raises(WorkerError) as caught:
        five(atlas)
    assert json.loads(body)["error"] in str(caught.value)


def test_names_and_what_it_declares(atlas: Atlas) -> None:
    assert atlas.name_of("BTCUSD") == "tiingo_btcusd_1min"
    with pytest.raises(ConfigError, match="not a symbol in USDT, USDC or USD"):
        atlas.name_of("ETHBTC")
    with pytest.raises(ConfigError, match="choose one of 1m, 5m, 1h, 1d"):
        atlas.klines("ETHUSDT", 15 * MINUTE_MS, START_MS, END_MS)
    assert (atlas.offer.quote, atlas.offer.trades, atlas.offer.key_missing) == ("USD", False, False)
    assert atlas.clock_ahead_ms() == 0
    assert atlas.archive("ETHUSDT", MINUTE_MS, START_MS) is None
