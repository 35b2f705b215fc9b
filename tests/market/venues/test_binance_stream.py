"""What the stream's messages are read as, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import MINUTE_MS
from core.errors import MalformedKlines
from market.venues.binance.stream import CANDLE_LAG_MS, Closed, ShuttingDown, Trade, parse

AT_MS = 1_700_006_400_123
TRADE: dict[str, Any] = json.loads(
    '{"e":"aggTrade","E":1700006400127,"s":"ETHUSDT","a":12345,"p":"2000.25000000","q":"0.5","f":100,"l":105,'
    '"T":1700006400123,"m":true,"M":true}'
)
CANDLE: dict[str, Any] = json.loads(
    '{"t":1700006340000,"T":1700006399999,"s":"ETHUSDT","i":"1m","f":100,"L":200,"o":"2000.10","c":"2000.20",'
    '"h":"2000.30","l":"2000.00","v":"12.5","n":101,"x":true,"q":"25000.5","V":"6.25","Q":"12500.25","B":"0"}'
)
KLINE: dict[str, Any] = {"e": "kline", "E": AT_MS, "s": "ETHUSDT", "k": CANDLE}


def wrapped(event: object) -> bytes:
    return json.dumps({"stream": "ethusdt@whatever", "data": event}).encode()


@pytest.mark.parametrize("kind", ["aggTrade", "trade"])
def test_a_trade_is_its_price_and_its_own_time(kind: str) -> None:
    expected = Trade(symbol="ETHUSDT", price=2000.25, venue_ms=AT_MS)
    assert parse(wrapped({**TRADE, "e": kind})) == expected
    assert parse(json.dumps({**TRADE, "e": kind})) == expected, "without the wrapping of a combined stream"


def test_a_closed_candle_is_one_kline() -> None:
    event = parse(wrapped(KLINE))
    assert isinstance(event, Closed)
    kline = event.kline
    assert (event.symbol, kline.interval_ms, len(kline)) == ("ETHUSDT", MINUTE_MS, 1)
    assert kline.open_time_ms[0] == CANDLE["t"]
    assert kline.table().tolist() == [[2000.1, 2000.3, 2000.0, 2000.2, 12.5, 25000.5, 101, 6.25, 12500.25]]


def test_an_open_candle_tells_a_price_that_newer_trades_outrank() -> None:
    event = parse(wrapped({**KLINE, "k": {**CANDLE, "x": False}}))
    assert event == Trade(symbol="ETHUSDT", price=2000.2, venue_ms=AT_MS - CANDLE_LAG_MS)


def test_what_is_no_news_is_none() -> None:
    assert parse(b'{"result": null, "id": 1}') is None
    assert parse(wrapped({"u": 1, "s": "ETHUSDT", "b": "1", "B": "1", "a": "2", "A": "1"})) is None
    assert parse(wrapped({"e": "somethingNew", "E": AT_MS})) is None


def test_a_shutdown_is_told() -> None:
    with pytest.raises(ShuttingDown):
        parse(json.dumps({"e": "serverShutdown", "E": AT_MS}))


REFUSED: dict[str, bytes] = {
    "empty": b"",
    "a page": b"<html>busy</html>",
    "cut off": wrapped(TRADE)[:50],
    "binary": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number": b"7",
    "wrapped number": b'{"data": 7}',
    "deep": b"[" * 100_000,
    **{
        f"a trade with {name} {value}": wrapped({**TRADE, name: value})
        for name, value in [
            *(("p", price) for price in ("NaN", "Infinity", "-1", "0", 2000.25, None)),
            *(("T", time) for time in ("1", True, AT_MS * 1000)),
            ("s", 7),
        ]
    },
    "a trade without a time": wrapped({key: TRADE[key] for key in TRADE if key != "T"}),
    "no candle": wrapped({**KLINE, "k": None}),
    **{
        f"a candle with {name} {value}": wrapped({**KLINE, "k": {**CANDLE, name: value}})
        for name, value in {"i": "7m", "l": "2000.15", "v": "-1", "t": CANDLE["t"] + 1, "c": "NaN"}.items()
    },
    "a candle without a time": wrapped({**KLINE, "k": {**CANDLE, "t": "soon"}}),
}


@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED)
def test_what_is_no_event_is_refused(message: bytes) -> None:
    with pytest.raises(MalformedKlines):
        parse(message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("edsptTkxicohlvEn"), inner, max_size=6),
    max_leaves=12,
)


@given(value=JSON)
def test_no_message_raises_anything_else(value: object) -> None:
    for content in (json.dumps(value), wrapped(value), wrapped({"e": "kline", "k": value, "s": "X", "E": 1})):
        try:
            parse(content)
        except (MalformedKlines, ShuttingDown):
            continue


def test_recorded_messages_are_read(payloads: Path) -> None:
    closed = parse((payloads / "binance" / "kline_stream_closed.json").read_bytes())
    assert isinstance(closed, Closed)
    assert closed.kline.close[0] == 0.002
    assert isinstance(parse((payloads / "binance" / "kline_stream_open.json").read_bytes()), Trade)
