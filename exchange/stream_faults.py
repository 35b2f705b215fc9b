"""Faults of the streams on demand: their kinds, and what they make of a message."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from exchange.faults import LastingFault
from exchange.formats import Event

Kind = Literal[
    "drop", "close", "refuse", "silence", "half_open", "garbage", "garbage_flood", "duplicate", "reorder", "outlier",
    "lag", "mute", "lose_candles", "wrong_candles",
]  # fmt: skip

FLOOD = 50  # a symbol that trades four times a second becomes hundreds of messages

_LASTING = {"seconds", "count", "symbol"}
_FIELDS: Mapping[str, tuple[set[str], set[str]]] = {  # which a kind needs, and which it may have; none without an entry
    "silence": ({"seconds"}, set()),
    "mute": ({"seconds", "symbol"}, set()),
    "lag": ({"seconds", "delay_s"}, set()),
    "reorder": ({"count"}, set()),
    "refuse": (set(), {"seconds", "count", "status"}),
    "outlier": (set(), _LASTING | {"factor"}),
} | dict.fromkeys(("garbage", "garbage_flood", "duplicate", "lose_candles", "wrong_candles"), (set(), _LASTING))


class StreamFault(LastingFault):
    """A fault of the streams.

    ``drop`` cuts every open connection, ``close`` ends it properly, ``half_open`` leaves it open and silent for ever.
    ``refuse`` answers handshakes with ``status``. ``silence`` sends nothing, ``mute`` nothing of one symbol.
    ``garbage`` sends messages that cannot be read, ``garbage_flood`` sends ``FLOOD`` of them in place of each message.
    ``duplicate`` sends messages twice, ``reorder`` in reverse order, ``lag`` late by ``delay_s``. ``outlier``
    multiplies prices by ``factor``. ``lose_candles`` and ``wrong_candles`` are about closed candles. A message counts
    once, however many connections get it.
    """

    kind: Kind
    symbol: str | None = Field(default=None, pattern="^[A-Z0-9_.-]{1,20}$")
    factor: PositiveFloat | None = None  # 1.1 by default
    delay_s: PositiveFloat | None = None
    status: int | None = Field(default=None, ge=400, le=599)  # 503 by default

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        needed, allowed = _FIELDS.get(self.kind, (set(), set()))
        given = {name for name, value in self if value is not None} - {"kind"}
        if missing := needed - given:
            raise ValueError(f"{self.kind} needs {', '.join(sorted(missing))}")
        if idle := given - needed - allowed:
            raise ValueError(f"{self.kind} has no use for {', '.join(sorted(idle))}")
        return self


def as_json(payload: Event) -> str:
    """Return an event's text, as short as Binance writes it."""
    return json.dumps(payload, separators=(",", ":"))


def with_prices(payload: Event, change: Callable[[str], Any]) -> Event:
    """Return the event with another price: a trade's, a candle's close, or bid and ask."""
    if "k" in payload:
        return payload | {"k": payload["k"] | {"c": change(payload["k"]["c"])}}
    names = ("b", "a") if "u" in payload else ("p",)
    return payload | {name: change(payload[name]) for name in names}


def another(payload: Event) -> Event:
    """Return a valid candle with another close, high and volume."""
    candle = payload["k"]
    close, volume = f"{float(candle['h']) * 1.001:.8f}", f"{float(candle['v']) * 2 + 1:.8f}"
    return payload | {"k": candle | {"c": close, "h": close, "v": volume}}


def broken(payload: Event, turn: int) -> str | bytes:
    """Return a message that no client may believe, of another kind each turn."""
    text = as_json(payload)
    kinds = (
        "<html>busy</html>",
        text[: len(text) // 2],
        "[7]",
        as_json(with_prices(payload, lambda price: "NaN")),
        as_json(with_prices(payload, lambda price: f"-{price}")),
        as_json(with_prices(payload, float)),
        as_json({name: payload[name] for name in ("e", "s") if name in payload}),
        b"\xff\xfe\x00\x01",
        as_json(payload | {"e": "somethingNew"}),
    )
    return kinds[turn % len(kinds)]
