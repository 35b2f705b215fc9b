"""``python -m inference`` on one venue whose candles are odd: served when the newest are usable, else told why not.

The venue is a server on loopback that speaks Binance's format; its stream is out of reach.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from klines.klines import PRICE_COLUMNS, Klines
from tests.fakes.clock import eventually
from tests.fakes.klines import random_walk_klines
from tests.fakes.net import free_port
from tests.fakes.venue_server import Answer, Venue, rest_rows
from tests.inference.test_main import CONFIG, environment, running

ASKED = "/inference/ETH?topic=1"
FUTURE_ROWS = 30  # the venue knows them, and is not asked before they have closed


def series(rows: int, first: float, *, ended_ms: int = 0, interval_ms: int = MINUTE_MS) -> Klines:
    """Candles that end with the running minute or some time ago, and go on while a test runs."""
    now_ms = time.time_ns() // 1_000_000
    start_ms = (now_ms - ended_ms) // interval_ms * interval_ms - rows * interval_ms
    return random_walk_klines(
        rows + (0 if ended_ms else FUTURE_ROWS), interval_ms, start_ms=start_ms, first=first, sigma=1e-5
    )


def listed(minutes: int) -> Klines:
    """A pair whose first candles, some minutes ago, closed at .098, .73, 1.95 and 4.4."""
    walk = series(minutes, 4.4)
    level = np.ones(len(walk))
    level[:3] = np.array([0.098, 0.73, 1.95]) / 4.4
    of_prices = (*PRICE_COLUMNS, "quote_volume", "taker_buy_quote")
    return replace(walk, **{name: getattr(walk, name) * level for name in of_prices})


@pytest.fixture
def venue() -> Iterator[Venue]:
    """A venue that has the leader's candles."""
    with Venue().running() as venue:
        venue.add("BTCUSDT", series(600, 50_000.0))
        venue.prices = {"BTCUSDT": "50000"}
        yield venue


def trades(venue: Venue, symbol: str, klines: Klines) -> None:
    venue.add(symbol, klines)
    venue.prices[symbol] = repr(float(klines.close[-FUTURE_ROWS]))


@contextmanager
def serving(folder: Path, venue: Venue, **changes: str) -> Iterator[str]:
    """The address of an inference on that venue alone."""
    folder.mkdir(exist_ok=True)
    given = environment(
        folder,
        venue.url,
        **{
            "MARKET": "binance",
            "MARKET_VENUES": "binance",
            "BINANCE_WS_URLS": f"ws://127.0.0.1:{free_port()}",
            "PORT": str(free_port()),
            "ANSWER_PATIENCE_S": "0",  # what is refused is looked at, at once
            **changes,
        },
    )
    with running(given, folder / "log") as process:
        eventually(lambda: process.answers("/healthz"), timeout_s=30, what="the start")
        yield process.url


def status_of(url: str) -> int:
    return requests.get(url + ASKED, timeout=5).status_code


def says(url: str, words: str) -> None:
    """Wait until the answer, /readyz and /topics all say so, and none calls it starting."""

    def reasons() -> list[str]:
        topics = requests.get(f"{url}/topics", timeout=5).json()
        return [
            requests.get(url + ASKED, timeout=5).text,
            requests.get(f"{url}/readyz", timeout=5).text,
            topics[0]["reason"],
        ]

    eventually(lambda: all(words in text for text in reasons()), timeout_s=20, what=words)
    assert not any("starting" in text for text in reasons())


def test_a_new_listing_is_served_when_its_newest_candles_are_usable(tmp_path: Path, venue: Venue) -> None:
    trades(venue, "ETHUSDT", listed(40))
    with serving(tmp_path, venue) as url:
        eventually(lambda: status_of(url) == 200, timeout_s=20, what="an answer")
        assert float(requests.get(url + ASKED, timeout=5).text) == pytest.approx(4.4, rel=0.05)
        assert "birnn_rows_marked_total" in requests.get(f"{url}/metrics", timeout=5).text


def test_a_level_that_is_minutes_old_is_told_as_what_is_waited_for(tmp_path: Path, venue: Venue) -> None:
    walk = series(300, 2000.0)
    gone = np.where(np.arange(len(walk)) >= 300 - 5, 100.0, 1.0)
    trades(venue, "ETHUSDT", replace(walk, **{name: getattr(walk, name) * gone for name in PRICE_COLUMNS}))
    with serving(tmp_path, venue) as url:
        says(url, "10 more candles have stayed there, or it comes for the third time, or a second venue has it")
    with (
        Venue().running() as second,
        serving(tmp_path, venue, MARKET_VENUES="binance,binanceus", VENUE_URLS=f"binanceus={second.url}") as url,
    ):
        second.series, second.prices = dict(venue.series), dict(venue.prices)
        eventually(lambda: status_of(url) == 200, timeout_s=20, what="an answer that a second venue confirms")


def test_minutes_off_the_grid_are_minutes(tmp_path: Path, venue: Venue) -> None:
    walk = series(1240, 2000.0)
    trades(venue, "ETHUSDT", walk)

    def shifted(path: str, query: dict[str, str]) -> Answer | None:
        if path != "/api/v3/klines" or query["symbol"] != "ETHUSDT":
            return None
        rows = [[int(str(row[0])) + 14_789, *row[1:6], int(str(row[6])) + 14_789, *row[7:]] for row in rest_rows(walk)]
        start, end = int(query["startTime"]), int(query["endTime"])
        return Answer(json.dumps([row for row in rows if start <= int(str(row[0])) <= end][:1000]))

    venue.handler = shifted
    with serving(tmp_path, venue) as url:
        eventually(lambda: status_of(url) == 200, timeout_s=20, what="an answer")
        assert "14789 ms off the grid" in requests.get(f"{url}/metrics", timeout=5).text


def test_where_most_is_wrong_all_is_refused_until_it_is_right_or_another_venue_stands_in(
    tmp_path: Path, venue: Venue
) -> None:
    walk = series(600, 2000.0)
    trades(venue, "ETHUSDT", walk)

    def swapped(path: str, query: dict[str, str]) -> Answer | None:
        if path != "/api/v3/klines" or query["symbol"] != "ETHUSDT":
            return None
        rows = rest_rows(walk.between(int(query["startTime"]), int(query["endTime"]) + 1))
        return Answer(json.dumps([[row[0], row[3], row[1], row[2], *row[4:]] for row in rows[:1000]]))

    venue.handler = swapped
    with serving(tmp_path, venue) as url:
        says(url, "rows are no klines")
        says(url, "asked again within seconds; a second venue in MARKET_VENUES would stand in meanwhile")
        venue.handler = lambda path, query: None
        eventually(lambda: status_of(url) == 200, timeout_s=20, what="an answer from the right rows")
    venue.handler = swapped
    with Venue().running() as second, ExitStack() as stack:
        second.series, second.prices = dict(venue.series), dict(venue.prices)
        more = {"MARKET_VENUES": "binance,binanceus", "VENUE_URLS": f"binanceus={second.url}"}
        url = stack.enter_context(serving(tmp_path / "two", venue, **more))
        eventually(lambda: status_of(url) == 200, timeout_s=20, what="an answer from the second venue")


@pytest.mark.parametrize("days", [2, 40])
def test_a_pair_whose_candles_ended_is_told_as_that(tmp_path: Path, venue: Venue, days: int) -> None:
    ended = series(600, 2000.0, ended_ms=days * DAY_MS)
    venue.add("ETHUSDT", ended)
    whole_days = series(100, 2000.0, ended_ms=(days - 1) * DAY_MS, interval_ms=DAY_MS)
    venue.add("ETHUSDT", whole_days.between(0, ended.end_ms))
    venue.prices["ETHUSDT"] = "2000"
    trades(venue, "ETHUSDC", series(600, 2000.0))
    with serving(tmp_path, venue) as url:
        closed = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(ended.end_ms / 1000))
        says(url, f"newest candle of ETHUSDT closed {closed}")
        says(url, "delisted or renamed? Set parameters.Symbol of this worker in config.json to a pair that trades")
    other = json.loads(json.dumps(CONFIG))
    other["worker"][0]["parameters"]["Symbol"] = "ETHUSDC"
    (tmp_path / "config.json").write_text(json.dumps(other))
    with serving(tmp_path, venue) as url:
        eventually(lambda: status_of(url) == 200, timeout_s=20, what="an answer from a pair that trades")


def exchange_info(path: str, query: dict[str, str]) -> Answer | None:
    """A list in which the pair that ended is halted."""
    if path != "/api/v3/exchangeInfo":
        return None
    entry = {"symbol": query["symbol"], "baseAsset": "ETH", "quoteAsset": "USDT", "status": "BREAK"}
    return Answer(json.dumps({"symbols": [entry]}))


def test_a_pair_that_ended_today_is_told_with_its_newest_candle_and_the_venue_s_list(
    tmp_path: Path, venue: Venue
) -> None:
    """And is answered from its next candle."""
    ended = series(600, 2000.0, ended_ms=5 * HOUR_MS)
    venue.add("ETHUSDT", ended)
    venue.prices["ETHUSDT"] = "2000"
    venue.handler = exchange_info
    with serving(tmp_path, venue) as url:
        closed = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(ended.end_ms / 1000))
        says(url, f"newest candle of ETHUSDT closed {closed}")
        says(url, "(binance has halted or delisted it): halted, delisted or renamed? Its next candle is answered from")
        trades(venue, "ETHUSDT", series(600, 2000.0))
        eventually(lambda: status_of(url) == 200, timeout_s=25, what="an answer from its next candle")


@pytest.mark.parametrize("hours", [0.5, 30])
def test_a_venue_that_stands_still_is_no_delisting(tmp_path: Path, venue: Venue, hours: float) -> None:
    for symbol, price in (("BTCUSDT", 50_000.0), ("ETHUSDT", 2000.0)):
        venue.add(symbol, series(600, price, ended_ms=round(hours * HOUR_MS)))
        venue.prices[symbol] = repr(price)
    with serving(tmp_path, venue) as url:
        says(url, "no other symbol has new ones: the venue stands still; name another in MARKET_VENUES")
