"""Faults of the streams on demand: which are going on, and what they make of a message."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, StringConstraints, model_validator

Payload = dict[str, Any]

Kind = Literal[
    "drop", "close", "refuse", "silence", "half_open", "garbage", "garbage_flood", "duplicate", "reorder", "outlier",
    "lag", "mute", "lose_candles", "wrong_candles",
]  # fmt: skip

FLOOD = 50  # a symbol that trades four times a second becomes hundreds of messages

_SOME = {"seconds", "count", "symbol"}

_NEEDED: Mapping[Kind, set[str]] = {
    "silence": {"seconds"}, "mute": {"seconds", "symbol"}, "lag": {"seconds", "delay_s"}, "reorder": {"count"},
}  # fmt: skip
_ALLOWED: Mapping[Kind, set[str]] = {
    "refuse": {"seconds", "count", "status"}, "outlier": _SOME | {"factor"}, "garbage": _SOME, "garbage_flood": _SOME,
    "duplicate": _SOME, "lose_candles": _SOME, "wrong_candles": _SOME,
}  # fmt: skip


class StreamFault(BaseModel):
    """A fault of the streams, for ``seconds`` of real time or for the next ``count`` messages; by default for one.

    ``drop`` cuts every open connection, ``close`` ends it properly, ``half_open`` leaves it open and silent for ever.
    ``refuse`` answers handshakes with ``status``. ``silence`` sends nothing, ``mute`` nothing of one symbol.
    ``garbage`` sends messages that cannot be read, ``garbage_flood`` sends ``FLOOD`` of them in place of each message.
    ``duplicate`` sends messages twice, ``reorder`` in reverse order, ``lag`` late by ``delay_s``. ``outlier``
    multiplies prices by ``factor``. ``lose_candles`` and ``wrong_candles`` are about closed candles. A message counts
    once, however many connections get it.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    seconds: PositiveFloat | None = None
    count: PositiveInt | None = None
    symbol: Annotated[str, StringConstraints(pattern="^[A-Z0-9_.-]{1,20}$")] | None = None
    factor: PositiveFloat | None = None  # 1.1 by default
    delay_s: PositiveFloat | None = None
    status: Annotated[int, Field(ge=400, le=599)] | None = None  # 503 by default

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        needed = _NEEDED.get(self.kind, set())
        given = {name for name, value in self if value is not None} - {"kind"}
        if missing := needed - given:
            raise ValueError(f"{self.kind} needs {', '.join(sorted(missing))}")
        if idle := given - needed - _ALLOWED.get(self.kind, set()):
            raise ValueError(f"{self.kind} has no use for {', '.join(sorted(idle))}")
        return self


@dataclass(slots=True, kw_only=True)
class Active:
    """A fault that is going on."""

    fault: StreamFault
    until_s: float | None
    left: int | None

    def applies(self, now_s: float) -> bool:
        return (self.until_s is None or now_s < self.until_s) and (self.left is None or self.left > 0)

    def use(self) -> None:
        if self.left is not None:
            self.left -= 1


class StreamFaults:
    """The faults that are going on. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: list[Active] = []

    def add(self, fault: StreamFault) -> None:
        """Begin a fault that lasts."""
        until_s = None if fault.seconds is None else time.monotonic() + fault.seconds
        count = fault.count if fault.seconds is not None or fault.count is not None else 1
        with self._lock:
            self._active.append(Active(fault=fault, until_s=until_s, left=count))

    def clear(self) -> None:
        """End all faults."""
        with self._lock:
            self._active.clear()

    def find(self, kind: Kind, symbol: str | None = None) -> Active | None:
        """Return the first fault of this kind that is going on, and count one use of it."""
        now_s = time.monotonic()
        with self._lock:
            self._active = [active for active in self._active if active.applies(now_s)]
            for active in self._active:
                fault = active.fault
                if fault.kind == kind and fault.symbol in {None, symbol}:
                    active.use()
                    return active
        return None


def as_json(payload: Payload) -> str:
    """Return an event's text, as short as Binance writes it."""
    return json.dumps(payload, separators=(",", ":"))


def with_prices(payload: Payload, change: Callable[[str], Any]) -> Payload:
    """Return the event with another price: a trade's, a candle's close, or bid and ask."""
    if "k" in payload:
        return payload | {"k": payload["k"] | {"c": change(payload["k"]["c"])}}
    names = ("b", "a") if "u" in payload else ("p",)
    return payload | {name: change(payload[name]) for name in names}


def another(payload: Payload) -> Payload:
    """Return a valid candle with another close, high and volume."""
    candle = payload["k"]
    close, volume = f"{float(candle['h']) * 1.001:.8f}", f"{float(candle['v']) * 2 + 1:.8f}"
    return payload | {"k": candle | {"c": close, "h": close, "v": volume}}


def broken(payload: Payload, turn: int) -> str | bytes:
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
