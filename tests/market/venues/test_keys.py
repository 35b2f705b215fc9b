"""What venues with keys share: a key goes out in its header and is told nowhere, and a refusal says what to do."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from core.clock import DAY_MS
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from core.settings import load_settings
from core.topic import Target, Topic
from market.build import market_from
from market.quarantine import Quarantine
from market.venues.atlas import Atlas
from market.venues.base import KeyedVenue
from market.venues.coingecko import CoinGecko
from market.venues.tiingo import Tiingo
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.venue_server import Answer, Venue

KEY = "0123456789abcdef0123456789abcdef01234567"
NOW_MS = START_MS + 2 * DAY_MS
KINDS: tuple[type[KeyedVenue], ...] = (Tiingo, Atlas, CoinGecko)
VENUES = [pytest.param(kind, id=kind.OFFER.name) for kind in KINDS]
Call = Callable[[KeyedVenue], object]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


def klines(keyed: KeyedVenue) -> object:
    return keyed.klines("ETHUSDT", min(keyed.offer.intervals_ms), NOW_MS - DAY_MS, NOW_MS)


CALLS: list[Any] = [
    pytest.param(klines, id="klines"),
    pytest.param(lambda keyed: keyed.prices(["ETHUSDT"]), id="prices"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("key", ["", "  \n"])
@pytest.mark.parametrize("kind", [Tiingo, Atlas])
def test_without_a_key_nothing_is_asked(
    venue: Venue, clock: FakeClock, aside: Quarantine, kind: type[KeyedVenue], call: Call, key: str
) -> None:
    keyless = kind([venue.url], clock, aside, key=key)
    assert keyless.offer.key_missing
    with pytest.raises(ConfigError, match=f"set {kind.KEY}"):
        call(keyless)
    assert venue.requests == []


@pytest.mark.parametrize("key", ["two\nlines of it", "schlüssel-schlüssel", "short", "with a blank in it"])
@pytest.mark.parametrize("kind", VENUES)
def test_what_is_no_key_is_not_sent_and_not_told(
    venue: Venue, clock: FakeClock, aside: Quarantine, kind: type[KeyedVenue], key: str
) -> None:
    keyed = kind([venue.url], clock, aside, key=key)
    assert not keyed.offer.key_missing
    with pytest.raises(ConfigError, match=f"{kind.KEY} is no key") as caught:
        klines(keyed)
    assert key not in str(caught.value)
    keyed.hosts.answers("/", 5.0)
    assert [head[kind.HEADER] for head in venue.heads] == [None]


@pytest.mark.parametrize("kind", VENUES)
def test_a_key_is_sent_without_the_blanks_around_it(
    venue: Venue, clock: FakeClock, aside: Quarantine, kind: type[KeyedVenue]
) -> None:
    keyed = kind([venue.url], clock, aside, key=f" {KEY}\n", patience_s=0)
    with pytest.raises(WorkerError):  # the venue knows no such path
        klines(keyed)
    assert [head[kind.HEADER] for head in venue.heads] == [kind.SCHEME + KEY]


TAG = r"POST /api/tags/acquire/ .*public.* once with the key of ATLAS_API_KEY"
OF_ANY = [
    pytest.param(Answer(f'{{"detail": "{KEY}: what?"}}', 400), MarketUnavailable, "what", id="400"),
    pytest.param(Answer(f'{{"error":"{KEY}"}}', 429, {"Retry-After": "900"}), MarketUnavailable, "429", id="429"),
    pytest.param(Answer(f"{KEY}: down", 500), MarketUnavailable, "500", id="500"),
    pytest.param(Answer(f"{'x' * 190} {KEY}", 500), MarketUnavailable, "500", id="500, cut in the key"),
    pytest.param(Answer(json.dumps({"msg": KEY}).replace("0", "\\u0030"), 500), MarketUnavailable, "500", id="escaped"),
    pytest.param(Answer(f"<html>{KEY}: not from here</html>", 403), MarketUnavailable, "from here", id="403 of a page"),
    pytest.param(Answer(KEY), MalformedKlines, "not JSON", id="an answer of it"),
    pytest.param(Answer(json.dumps({"k": KEY})), MalformedKlines, "must|no price of", id="an object of it"),
    pytest.param(Answer("{}", 302, {"Location": "/elsewhere"}), MarketUnavailable, "302", id="sent elsewhere"),
    pytest.param(Answer(hang_up=True), MarketUnavailable, "connection", id="hung up"),
]
OF_ONE = [
    (Tiingo, Answer(f'{{"detail": "Invalid token {KEY}."}}', 401), ConfigError, "TIINGO_API_KEY"),
    (Tiingo, Answer(f'{{"detail": "Please supply a token, not {KEY}"}}', 403), ConfigError, "TIINGO_API_KEY"),
    (Tiingo, Answer(f'{{"detail": "{KEY}: gone"}}', 404), MarketUnavailable, "404"),
    (Tiingo, Answer(f"You have run over your limit, {KEY}"), MarketUnavailable, "allocation is used up"),
    (Atlas, Answer('{"error":"Missing API key"}', 401), ConfigError, "set ATLAS_API_KEY to a key"),
    (Atlas, Answer(f'{{"error":"no dataset for {KEY}"}}', 403), ConfigError, TAG),
    (Atlas, Answer('{"error":"missing tag"}', 403), ConfigError, TAG),
    (Atlas, Answer('{"error":"dataset not found"}', 404), ConfigError, TAG),
    (Atlas, Answer(f'{{"error":"tag of {KEY}"}}', 409), ConfigError, TAG),
    (Atlas, Answer("", 301, {"Location": "/api/rows"}), MarketUnavailable, "301"),  # a path without its slash
    (
        CoinGecko,
        Answer(f'{{"status":{{"error_code":10010,"error_message":"Invalid API Key {KEY}"}}}}', 401),
        ConfigError,
        "10010.*COINGECKO_API_KEY",
    ),
    (CoinGecko, Answer('{"error":"coin not found"}', 404), ConfigError, "knows the coin by another id"),
    (CoinGecko, Answer('{"error":"Missing parameter vs_currency"}', 422), MarketUnavailable, "Missing parameter"),
]


CASES = [
    *(pytest.param(kind, *case.values, id=f"{kind.OFFER.name}: {case.id}") for kind in KINDS for case in OF_ANY),
    *(pytest.param(*case, id=f"{case[0].OFFER.name}: {case[1].status} {case[1].body!r:.30}") for case in OF_ONE),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("kind", "answer", "error", "says"), CASES)
def test_a_refusal_says_what_to_do_and_a_key_is_in_no_fault_no_log_and_no_url(
    venue: Venue,
    clock: FakeClock,
    aside: Quarantine,
    kind: type[KeyedVenue],
    call: Call,
    answer: Answer,
    error: type[WorkerError],
    says: str,
) -> None:
    keyed = kind([venue.url], clock, aside, key=KEY, patience_s=0)
    venue.handler = lambda path, query: answer
    with capture_logs() as lines, pytest.raises(error, match=says) as caught:
        call(keyed)
    for told in (str(caught.value), repr(caught.value), str(lines), repr(keyed), str(venue.requests)):
        assert not any(KEY[at : at + 7] in told for at in range(len(KEY) - 6))
    assert len(venue.requests) == 1 + answer.hang_up  # a connection that was closed is opened anew, once


@pytest.mark.parametrize("kind", VENUES)
def test_not_even_a_part_of_a_key_is_quoted_from_an_answer(
    venue: Venue, clock: FakeClock, aside: Quarantine, kind: type[KeyedVenue]
) -> None:
    keyed = kind([venue.url], clock, aside, key=KEY)
    venue.scripted = [Answer(f"{'x' * 40}{KEY}")]  # a fault quotes the first 60 bytes
    with pytest.raises(MalformedKlines, match=r"x{40}\*\*\*") as caught:
        klines(keyed)
    assert KEY[:4] not in str(caught.value)
    assert [KEY[:4] in state.fault for state in keyed.hosts.states] == [False]


@pytest.mark.parametrize(
    ("named", "says"),
    [
        pytest.param("tiingo", "MARKET_VENUES=tiingo: set TIINGO_API_KEY", id="none has its key"),
        pytest.param("atlas,tiingo", "set ATLAS_API_KEY or TIINGO_API_KEY", id="nor the other"),
        pytest.param("coingecko", "MARKET_VENUES=coingecko: has no 1m klines", id="no minutes"),
        pytest.param("coingecko,tiingo", "set TIINGO_API_KEY", id="minutes with a key alone"),
    ],
)
def test_a_market_that_can_tell_nothing_is_refused_at_the_start(named: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        market_from(load_settings(market="binance", market_venues=named), FakeClock(NOW_MS), topics=())


@pytest.mark.parametrize(("token", "base"), [("DOT", "DOT"), ("DO", "DO"), ("", "DO")])
def test_a_venue_in_dollars_names_the_pair_of_the_configured_token(token: str, base: str) -> None:
    topic = Topic(topic_id=1, token=token, symbol="DOTUSD", target=Target.PRICE, horizon_min=10)
    keys = {"tiingo_api_key": KEY, "atlas_api_key": KEY}
    settings = load_settings(market="binance", market_venues="kraken,coinbase,tiingo,atlas", **keys)
    market = market_from(settings, FakeClock(NOW_MS), topics=[topic] if token else [])
    named = [venue.name_of("DOTUSD") for venue in market.venues]
    assert named == [f"{base}USD", f"{base}-USD", f"{base.lower()}usd", f"tiingo_{base.lower()}usd_1min"]


def test_a_venue_without_its_key_is_named_and_the_others_serve() -> None:
    settings = load_settings(market="binance", market_venues="atlas,kraken,tiingo", tiingo_api_key=KEY)
    with capture_logs() as lines:
        market = market_from(settings, FakeClock(NOW_MS), topics=())
    assert [line["venue"] for line in lines if line["event"] == "venue_without_key"] == ["atlas"]
    assert [venue.offer.name for venue in market.venues] == ["atlas", "kraken", "tiingo"]
