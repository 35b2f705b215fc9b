"""Recorded klines, shifted in time so that the wall clock's now lies inside them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from core.clock import DAY_MS, iso
from core.errors import ConfigError
from core.files import disk_refusal, replace_json
from exchange.sources.given import Given
from klines.klines import Klines
from market.store.recording import load_recording, recorded_days

WEEK_MS = 7 * DAY_MS


class Replay(Given):
    """Recorded klines, shifted by whole weeks so that time of day and day of the week stay what they were.

    Args:
        folder: where the recording is.
        recorded: its candles by (symbol, interval_ms), in recorded time.
        shift_ms: wall-clock time less recorded time.
        state: file that keeps the shift.
        why: it is played from there.
    """

    def __init__(
        self,
        folder: Path,
        recorded: Mapping[tuple[str, int], Klines],
        shift_ms: int,
        state: Path | None = None,
        why: str = "",
    ) -> None:
        super().__init__({key: _shifted(klines, shift_ms) for key, klines in recorded.items()})
        self._folder, self.recorded, self.shift_ms, self._state = folder, recorded, shift_ms, state
        days, weeks = recorded_days(folder), shift_ms // WEEK_MS
        self.name = f"replay of real klines of {days} ({folder.name}), shifted by {weeks} weeks"
        self.note = f"the {self.name}, {why} and lasts until {iso(self.end_ms)}"

    @classmethod
    def open(
        cls, folder: Path, now_ms: int, *, symbols: Iterable[str] | None = None, state: Path | None = None
    ) -> "Replay":
        """Play a folder from where ``state`` says it was left off, else from a week or two before its end.

        Raises:
            ConfigError: the folder or the state file cannot be used.
        """
        recorded, folder = load_recording(folder, symbols), folder.resolve()
        kept_ms = _read_state(state, folder) if state else None
        if kept_ms is None:
            return cls(folder, recorded, 0, state)._begin(now_ms, "starts anew")
        return cls(folder, recorded, kept_ms, state, f"continues as {state} says").at(now_ms)

    @property
    def end_ms(self) -> int:
        """Wall-clock time from which some symbol has no more of its shortest candles.

        Symbols without candles as short as the shortest in the folder do not count.
        """
        shortest = min(interval for _, interval in self.series)
        return min(klines.end_ms for (_, step), klines in self.series.items() if step == shortest)

    def at(self, now_ms: int) -> "Replay":
        if now_ms < self.end_ms:
            return self
        return self._begin(now_ms, f"had run out at {iso(self.end_ms)} and starts over")

    def _begin(self, now_ms: int, why: str) -> "Replay":
        """Return the same klines, shifted so that between 7 and 14 days are left, and keep the shift in the state."""
        missing_ms = now_ms + WEEK_MS - (self.end_ms - self.shift_ms)
        replay = Replay(self._folder, self.recorded, -(-missing_ms // WEEK_MS) * WEEK_MS, self._state, why)
        if self._state:
            try:
                replace_json(self._state, {"folder": str(self._folder), "shift_ms": replay.shift_ms})
            except OSError as error:
                fault = f"state file {self._state}: cannot be written ({error.strerror})"
                if not disk_refusal(self._state.parent, 1):
                    raise ConfigError(f"{fault}; name one in another folder") from error
                replay.note += f"; {fault}: after a restart it may go on elsewhere"
        return replay


def _shifted(klines: Klines, by_ms: int) -> Klines:
    return replace(klines, open_time_ms=klines.open_time_ms + by_ms)


def _read_state(path: Path, folder: Path) -> int | None:
    """Return the shift kept for this folder, in ms; None if the file is absent or about another folder."""
    try:
        kept = json.loads(path.read_bytes())
        shift_ms, kept_folder = kept["shift_ms"], kept["folder"]
        if not isinstance(shift_ms, int) or shift_ms % WEEK_MS:
            raise ValueError(f"shift_ms is {shift_ms!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"state file {path}: not a replay's state ({error!r}); delete it or name another") from error
    return shift_ms if kept_folder == str(folder) else None
