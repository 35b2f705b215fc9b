"""Recorded klines as the simulated exchange's tape, shifted in time so that the wall clock's now lies inside them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from core.clock import DAY_MS, iso
from core.errors import ConfigError
from core.files import disk_refusal, replace_json
from klines.klines import Klines
from market.store.recording import load_recording, recorded_days

WEEK_MS = 7 * DAY_MS


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayTape:
    """Recorded klines, shifted in time by whole weeks so that time of day and day of the week stay what they were.

    Intervals without a file are made of the shortest there is.
    """

    folder: Path
    series: Mapping[tuple[str, int], Klines]  # (symbol, interval_ms), in recorded time
    shift_ms: int  # wall-clock time less recorded time
    state: Path | None = None
    note: str = ""  # why this shift
    symbols: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.shift_ms % WEEK_MS:
            raise ConfigError(f"shift_ms must be whole weeks ({WEEK_MS} ms), was {self.shift_ms}")
        object.__setattr__(self, "symbols", tuple(sorted({symbol for symbol, _ in self.series})))

    @classmethod
    def open(
        cls, folder: Path, now_ms: int, *, symbols: Iterable[str] | None = None, state: Path | None = None
    ) -> "ReplayTape":
        """The folder's tape, where it was left off when ``state`` says so, else a week or two before its end.

        Raises:
            ConfigError: the folder or the state file cannot be used.
        """
        tape = cls(folder=folder.resolve(), series=load_recording(folder, symbols), shift_ms=0, state=state)
        kept = _read_state(state, tape.folder) if state else None
        if kept is None:
            return tape._begin(now_ms, "starts anew")
        tape = replace(tape, shift_ms=kept)
        return replace(tape, note=tape._sentence(f"continues as {state} says")).at(now_ms)

    @property
    def name(self) -> str:
        days = recorded_days(self.folder)
        return f"replay of real klines of {days} ({self.folder.name}), shifted by {self.shift_ms // WEEK_MS} weeks"

    @property
    def end_ms(self) -> int:
        """Wall-clock time from which some symbol has no more of its shortest candles.

        Symbols without candles as short as the shortest in the folder are not asked.
        """
        shortest = min(interval for _, interval in self.series)
        return min(klines.end_ms for (_, step), klines in self.series.items() if step == shortest) + self.shift_ms

    def first_ms(self, symbol: str) -> int:
        return min(int(k.open_time_ms[0]) for (s, _), k in self.series.items() if s == symbol) + self.shift_ms

    def step_ms(self, symbol: str) -> int:
        return min(interval for s, interval in self.series if s == symbol)

    def decimals(self, symbol: str) -> int:
        close = self.series[symbol, self.step_ms(symbol)].close[-2_000:]
        return next((digits for digits in range(8) if (np.round(close, digits) == close).all()), 8)

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        first = -(-start_ms // interval_ms) * interval_ms - self.shift_ms
        last = -(-end_ms // interval_ms) * interval_ms - self.shift_ms
        rows = self.series.get((symbol, interval_ms))
        if rows is None:
            step = self.step_ms(symbol)
            if interval_ms % step:
                return Klines.empty(interval_ms)
            rows = self.series[symbol, step].between(first, last).resample(interval_ms)
        rows = rows.between(first, last)
        return replace(rows, open_time_ms=rows.open_time_ms + self.shift_ms)

    def at(self, now_ms: int) -> "ReplayTape":
        """Itself, or, when it has run out, the same klines with a new shift, which the state file then has."""
        if now_ms < self.end_ms:
            return self
        return self._begin(now_ms, f"had run out at {iso(self.end_ms)} and starts over")

    def _begin(self, now_ms: int, why: str) -> "ReplayTape":
        """Shifted so that between 7 and 14 days of it are left."""
        short = now_ms + WEEK_MS - (self.end_ms - self.shift_ms)
        tape = replace(self, shift_ms=-(-short // WEEK_MS) * WEEK_MS)
        tape = replace(tape, note=tape._sentence(why))
        if self.state:
            try:
                replace_json(self.state, {"folder": str(self.folder), "shift_ms": tape.shift_ms})
            except OSError as error:
                fault = f"state file {self.state}: cannot be written ({error.strerror})"
                if not disk_refusal(self.state.parent, 1):
                    raise ConfigError(f"{fault}; name one in another folder") from error
                tape = replace(tape, note=f"{tape.note}; {fault}: after a restart it may go on elsewhere")
        return tape

    def _sentence(self, why: str) -> str:
        return f"the {self.name}, {why} and lasts until {iso(self.end_ms)}"


def _read_state(path: Path, folder: Path) -> int | None:
    """The shift kept for this folder, in ms; None when nothing is kept for it."""
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_bytes())
        shift_ms, kept_folder = kept["shift_ms"], kept["folder"]
        if not isinstance(shift_ms, int) or shift_ms % WEEK_MS:
            raise ValueError(f"shift_ms is {shift_ms!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"state file {path}: not a replay's state ({error!r}); delete it or name another") from error
    return shift_ms if kept_folder == str(folder) else None
