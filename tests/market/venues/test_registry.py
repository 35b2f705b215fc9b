"""Venues built from the settings: the table of names, hosts and keys, old and new."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from core.settings import Market, load_settings
from core.topic import Target, Topic
from market.build import market_from
from market.quarantine import Quarantine
from market.venues.registry import VENUES, stream_from, venue_from
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Venue
from tests.market.venues.formats import FORMATS, KEY

NOW_MS = START_MS + 2 * DAY_MS


@pytest.fixture(autouse=True)
def _without_dotenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_venue_is_in_the_contract() -> None:
    assert {form.name for form in FORMATS} == set(VENUES) - {"binanceus"}


@pytest.mark.parametrize(
    ("settings", "urls"),
    [
        pytest.param({}, ("https://api.kraken.com",), id="default"),
        pytest.param({"kraken_rest_urls": "http://old/"}, ("http://old",), id="the name of earlier releases"),
        pytest.param(
            {"venue_urls": "kraken=http://a/, atlas=http://c,kraken=http://b", "kraken_rest_urls": "http://old"},
            ("http://a", "http://b"),
            id="VENUE_URLS",
        ),
    ],
)
def test_hosts_come_from_the_settings_or_from_the_table(settings: dict[str, str], urls: tuple[str, ...]) -> None:
    built = venue_from("kraken", load_settings(market="binance", **settings), FakeClock(), Quarantine(), topics=())
    assert built.hosts.urls == urls


@pytest.mark.parametrize("settings", [{"tiingo_api_key": KEY}, {"venue_keys": f"atlas=x, tiingo={KEY}"}])
def test_a_key_comes_from_the_settings_and_is_in_no_representation(settings: dict[str, str]) -> None:
    read = load_settings(market="binance", **settings)
    built = venue_from("tiingo", read, FakeClock(), Quarantine(), topics=())
    assert not built.info.key_missing
    assert KEY not in repr(read)
    assert KEY not in repr(built)


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"market_venues": "binance,ftx"}, "MARKET_VENUES='binance,ftx': 'ftx' cannot"),
    ({"market_venues": "binance,coingecko"}, "'coingecko' is no longer a venue: take it out"),
    ({"truth_venue": "oracle"}, "TRUTH_VENUE='oracle'"),
    ({"venue_urls": "krakn=http://a"}, "VENUE_URLS='krakn'"),
    ({"venue_urls": "binance=http://a"}, "'binance' has its hosts in BINANCE_REST_URLS"),
    ({"venue_keys": f"tingo={KEY}"}, "VENUE_KEYS='tingo'"),
    ({"venue_keys": f"tingo=x,{KEY}=tiingo"}, r"VENUE_KEYS='tingo,\(not shown\)': 'tingo' cannot"),
    ({"venue_keys": f"{KEY}=tiingo"}, r"'\(not shown\)' cannot .*: each part must be VENUE=KEY"),
    ({"market_venues": "tiingo"}, r"MARKET_VENUES=tiingo: set VENUE_KEYS \(tiingo=KEY\)"),
    ({"market_venues": "atlas,tiingo"}, r"set VENUE_KEYS \(atlas=KEY\) or VENUE_KEYS \(tiingo=KEY\)"),
]


@pytest.mark.parametrize(("settings", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_no_venue_can_be_built_from_is_refused_at_the_start(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        market_from(load_settings(market="binance", **settings), FakeClock(NOW_MS), topics=())
    assert KEY.lower() not in str(caught.value).lower()


@pytest.mark.parametrize(
    ("market", "rest", "archive", "says"),
    [
        pytest.param(
            "simulated",
            "https://api.binance.com",
            "http://localhost:1",
            "BINANCE_REST_URLS.*python -m exchange",
            id="rest",
        ),
        pytest.param("simulated", "http://127.0.0.1:1,http://a.b", "http://[::1]:1", "'http://a.b'", id="second rest"),
        pytest.param("simulated", "http://127.0.0.1:1", "https://a.b", "BINANCE_ARCHIVE_URL", id="archive"),
        pytest.param("simulated", "http://127.0.0.1@a.b", "http://127.0.0.1:1", "on this machine", id="in disguise"),
        pytest.param("binance", "ws://127.0.0.1:1", "http://127.0.0.1:1", "http:// or https://", id="not http"),
    ],
)
def test_hosts_that_do_not_fit_the_market_are_refused(market: str, rest: str, archive: str, says: str) -> None:
    settings = load_settings(market=Market(market), binance_rest_urls=rest, binance_archive_url=archive)
    with pytest.raises(ConfigError, match=says):
        venue_from("binance", settings, FakeClock(), Quarantine(), topics=())


@pytest.mark.parametrize("market", list(Market))
def test_a_server_on_this_machine_serves_every_market(venue: Venue, market: Market) -> None:
    venue.add("ETHUSDT", random_walk_klines(1440))
    settings = load_settings(market=market, binance_rest_urls=f"{venue.url}/", binance_archive_url=f"{venue.url}/")
    built = venue_from("binance", settings, FakeClock(NOW_MS), Quarantine(), topics=())
    assert len(built.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 5 * MINUTE_MS)) == 5
    assert built.archive("ETHUSDT", MINUTE_MS, START_MS) is not None


@pytest.mark.parametrize(("token", "base"), [("DOT", "DOT"), ("DO", "DO"), ("", "DO")])
def test_a_venue_in_dollars_names_the_pair_of_the_configured_token(token: str, base: str) -> None:
    topic = Topic(topic_id=1, token=token, symbol="DOTUSD", target=Target.PRICE, horizon_min=10)
    settings = load_settings(
        market="binance", market_venues="kraken,coinbase,tiingo,atlas", venue_keys=f"tiingo={KEY},atlas={KEY}"
    )
    market = market_from(settings, FakeClock(NOW_MS), topics=[topic] if token else [])
    named = [venue.name_of("DOTUSD") for venue in market.venues]
    assert named == [f"{base}USD", f"{base}-USD", f"{base.lower()}usd", f"tiingo_{base.lower()}usd_1min"]


def test_a_venue_without_its_key_is_named_and_the_others_serve() -> None:
    settings = load_settings(market="binance", market_venues="atlas,kraken,tiingo", venue_keys=f"tiingo={KEY}")
    with capture_logs() as lines:
        market = market_from(settings, FakeClock(NOW_MS), topics=())
    assert [line["venue"] for line in lines if line["event"] == "venue_without_key"] == ["atlas"]
    assert [venue.info.name for venue in market.venues] == ["atlas", "kraken", "tiingo"]


def test_all_series_are_asked_for_in_one_connection() -> None:
    settings = load_settings(market="binance")
    stream = stream_from(settings, [("ETHUSDT", MINUTE_MS), ("BTCUSDT", MINUTE_MS), ("ETHUSDT", HOUR_MS)])
    assert stream is not None
    assert stream.urls == ("wss://stream.binance.com:9443", "wss://data-stream.binance.vision")
    assert stream.path == (
        "/stream?streams=ethusdt@aggTrade/btcusdt@aggTrade/ethusdt@kline_1m/btcusdt@kline_1m/ethusdt@kline_1h"
    )


def test_the_simulated_exchange_streams_where_it_answers() -> None:
    settings = load_settings(market="simulated", binance_rest_urls="http://127.0.0.1:5000")
    stream = stream_from(settings, [("ETHUSDT", MINUTE_MS)])
    assert stream is not None
    assert stream.urls == ("ws://127.0.0.1:5000",)
    elsewhere = load_settings(market="simulated", binance_ws_urls="wss://stream.binance.com:9443")
    with pytest.raises(ConfigError, match=r"BINANCE_WS_URLS.*wss://stream\.binance\.com:9443"):
        stream_from(elsewhere, [("ETHUSDT", MINUTE_MS)])
    rest = load_settings(market="binance", binance_ws_urls="https://stream.binance.com")
    with pytest.raises(ConfigError, match="BINANCE_WS_URLS must begin with ws"):
        stream_from(rest, [("ETHUSDT", MINUTE_MS)])


def test_of_another_venue_binances_stream_is_not_listened_to() -> None:
    assert stream_from(load_settings(market_venues="coinbase,binance"), [("ETHUSDT", MINUTE_MS)]) is None
