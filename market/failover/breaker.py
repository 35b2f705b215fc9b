"""Which venue may be asked what: faults by kind of question and symbol, how long each is waited out, signs of life."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import structlog

from core.clock import MINUTE_MS, SECOND_MS, Clock, iso
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from core.seldom import Seldom
from klines.klines import Klines
from klines.spans import Span
from market.http.client import PROBATION_MS, Blocked, Refused
from market.venue import Venue

KLINES, PRICES = "klines", "prices"  # kinds of question; a venue may be well for one and not for the other
SILENCE_REST_MS = 2 * MINUTE_MS
FIRST_REST_MS, LONGEST_REST_MS = SECOND_MS, MINUTE_MS  # of a venue that failed, doubling
LONE_REST_MS = 2 * SECOND_MS
# By state, the longest rest where no other venue can stand in; what is not here is waited out.
LONGEST_ALONE_MS = dict.fromkeys(("unreachable", "malformed", "refused", "silent", "frozen"), LONE_REST_MS)
LONGEST_ALONE_MS["barred"] = 3 * SECOND_MS  # a filter of one host for all may have been passing as well
SIGN_OF_LIFE_S = 3.0  # how long one is waited for
# Without a sign of life it is asked again after this all the same, where it has never given one or no other venue is
# left: it may be well, and only not know what we ask for as a sign. A proven one is, much later.
UNPROVEN_MS, PROVEN_MS = MINUTE_MS, 15 * MINUTE_MS

log = structlog.get_logger()

ASKED_AGAIN = "it is asked again within seconds; a second venue in MARKET_VENUES would stand in meanwhile"

Failures = list[tuple[Venue, WorkerError]]
Ask = Callable[[Venue, str, int, int, int], Klines]


class NoLevel(MarketUnavailable):
    """A venue's candles or prices cannot be brought to the level of a series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueFault:
    """Why a venue is left alone for a kind of question, or for one symbol of it."""

    reason: str
    state: (
        str  # barred, limited, unreachable, refused, key refused, malformed, unknown symbol, no level, silent, frozen
    )
    since_ms: int
    last_ms: int
    until_ms: int  # not asked before
    failures: int = 1  # in a row
    lives: bool = True  # whether it gave a sign of life since, where one is awaited


class Health:
    """What is known of how the venues are. Safe to use from several threads; nothing is asked under its lock.

    Args:
        venues: best first.
        clock: for rests.
        awaits_life: whether a thread looks for a sign of life of a venue that could not be reached before it is asked
            again, so that no question waits for one that hangs; without it the next question finds out.
    """

    def __init__(self, venues: Sequence[Venue], clock: Clock, *, awaits_life: bool) -> None:
        self._venues = tuple(venues)
        self._clock = clock
        self._awaits_life = awaits_life
        self._lock = threading.RLock()
        self._faults: dict[tuple[str, str, str], VenueFault] = {}  # by (venue, kind, symbol or "")
        self._watched: set[str] = set()  # venues whose sign of life is awaited
        self._proven: set[str] = set()  # venues that have given one
        self._stopping = threading.Event()
        self._seldom = Seldom()

    @property
    def faults(self) -> dict[tuple[str, str, str], VenueFault]:
        """By (venue, kind of question, symbol or empty): what is left alone now, and why."""
        now_ms = self._clock.now_ms()
        with self._lock:
            return {key: fault for key, fault in self._faults.items() if not self._is_over(key, fault, now_ms)}

    def stop(self) -> None:
        """End the threads that wait for signs of life."""
        self._stopping.set()

    def order(
        self, kind: str, symbol: str, failures: Failures, fits: Callable[[Venue], bool] = lambda _: True
    ) -> Iterator[Venue]:
        """The venues to ask, best first; those that are left alone add why to ``failures``.

        Args:
            fits: whether a venue has what is asked for at all; where it has not, it cannot stand in either.
        """
        for venue in filter(fits, self._venues):
            error = self.why_left(venue, kind, symbol, fits)
            if error is None:
                yield venue
            else:
                failures.append((venue, error))

    def having(self, interval_ms: int, end_ms: int) -> Callable[[Venue], bool]:
        """Whether a venue has candles of an interval, as far back as they end."""

        def has(venue: Venue) -> bool:
            rows = venue.offer.history_rows
            reaches = rows is None or end_ms > self._clock.now_ms() - rows * interval_ms
            return interval_ms in venue.offer.intervals_ms and reaches

        return has

    def others(
        self, first: Venue, symbol: str, interval_ms: int, span: Span, ask: Ask | None = None
    ) -> Iterator[tuple[Venue, Klines]]:
        """What the other venues have of a range, best first; those that fail are left alone.

        Args:
            ask: asks one of them, as ``Venue.klines`` has it; None takes their candles as they are.
        """
        for venue in self.order(KLINES, symbol, [], self.having(interval_ms, span[1])):
            if venue is first:
                continue
            try:
                told = ask(venue, symbol, interval_ms, *span) if ask else venue.klines(symbol, interval_ms, *span)
            except WorkerError as error:
                self.failed(venue, KLINES, symbol, error)
            else:
                yield venue, told

    def why_left(
        self, venue: Venue, kind: str, symbol: str, fits: Callable[[Venue], bool] = lambda _: True
    ) -> WorkerError | None:
        """Why a venue is not asked now; None when it is."""
        name, now_ms = venue.offer.name, self._clock.now_ms()
        if venue.offer.key_missing:
            return ConfigError(f"{name}: {venue.offer.key} is not set")
        with self._lock:
            others = [other for other in filter(fits, self._venues) if other is not venue]
            alone = all(self._is_left(other, kind, symbol, now_ms) for other in others)
            fault = self._fault_of(name, kind, symbol, now_ms, alone=alone)
        if fault is None:
            return None
        if fault.state == "limited":
            return MarketUnavailable(fault.reason, max(0.0, (fault.until_ms - now_ms) / 1000))
        return ConfigError(fault.reason) if fault.state == "unknown symbol" else MarketUnavailable(fault.reason)

    def failed(self, venue: Venue, kind: str, symbol: str, error: WorkerError) -> None:
        """Leave a venue alone for a while."""
        now_ms, name = self._clock.now_ms(), venue.offer.name
        state, scope, rest_ms = _sorted_out(venue, symbol, error)
        awaits = self._awaits_life and state == "unreachable"
        with self._lock:
            before = self._faults.get((name, kind, scope))
            failures = before.failures + 1 if before else 1
            doubled_ms = min(FIRST_REST_MS * 2 ** min(failures - 1, 10), LONGEST_REST_MS)
            self._faults[name, kind, scope] = VenueFault(
                reason=str(error),
                state=state,
                since_ms=before.since_ms if before else now_ms,
                last_ms=now_ms,
                until_ms=now_ms + (doubled_ms if rest_ms is None else rest_ms),
                failures=failures,
                lives=not awaits,
            )
        if before is None:
            self._say_left(name, kind, scope or symbol, state, str(error))
        if awaits:
            self._watch(venue)

    def silent(self, venue: Venue, symbol: str) -> None:
        """Leave a venue alone that has no trade of a symbol in its last candles, where another one has."""
        # Its last price is no newer than its last trade.
        why = f"{venue.offer.name} has no trade of {symbol} in its last candles, where another venue has"
        self._stopped(venue, symbol, "silent", why, (KLINES, PRICES))

    def frozen(self, venue: Venue, symbol: str, since_ms: int) -> WorkerError:
        """Leave a venue's prices of a symbol alone: they stand still while its candles go on. Returns that in words."""
        why = f"{venue.offer.name} tells the same price of {symbol} since {iso(since_ms)}, and its candles have others"
        self._stopped(venue, symbol, "frozen", why, (PRICES,))
        return MarketUnavailable(why)

    def _stopped(self, venue: Venue, symbol: str, state: str, reason: str, kinds: Sequence[str]) -> None:
        now_ms, name = self._clock.now_ms(), venue.offer.name
        fault = VenueFault(
            reason=reason,
            state=state,
            since_ms=now_ms,
            last_ms=now_ms,
            until_ms=now_ms + SILENCE_REST_MS,
        )
        self._say_left(name, kinds[0], symbol, state, reason)
        with self._lock:
            for kind in kinds:
                self._faults[name, kind, symbol] = fault

    def well(self, venue: Venue, kind: str, symbol: str) -> None:
        """A venue has answered."""
        name = venue.offer.name
        with self._lock:
            gone = [self._faults.pop((name, kind, scope), None) for scope in ("", symbol)]
        for fault in gone:
            if fault and fault.state not in {"silent", "frozen"}:
                away_s = (self._clock.now_ms() - fault.since_ms) / 1000
                said = {"asked_for": kind, "symbol": symbol, "away_s": away_s, "failures": fault.failures}
                if count := self._seldom.due("venue_back", name, kind, symbol):
                    log.info("venue_back", venue=name, **said, count=count)

    def proven(self, venue: Venue) -> None:
        """A venue has answered what is asked of it as a sign of life."""
        with self._lock:
            self._proven.add(venue.offer.name)

    def _say_left(self, name: str, kind: str, symbol: str, state: str, reason: str) -> None:
        if count := self._seldom.due("venue_left", name, kind, symbol, state):
            said = {"asked_for": kind, "symbol": symbol, "state": state, "reason": reason}
            log.warning("venue_left", venue=name, **said, count=count)

    def _is_left(self, venue: Venue, kind: str, symbol: str, now_ms: int) -> bool:
        return venue.offer.key_missing or self._fault_of(venue.offer.name, kind, symbol, now_ms) is not None

    def _fault_of(self, name: str, kind: str, symbol: str, now_ms: int, *, alone: bool = False) -> VenueFault | None:
        for key in ((name, kind, ""), (name, kind, symbol)):
            fault = self._faults.get(key)
            if fault and not self._is_over(key, fault, now_ms, alone=alone):
                return fault
        return None

    def _is_over(self, key: tuple[str, str, str], fault: VenueFault, now_ms: int, *, alone: bool = False) -> bool:
        """Whether a venue may be asked again.

        Args:
            alone: no other venue can stand in for it.
        """
        if fault.last_ms > now_ms:  # the clock was set back
            return True
        if not fault.lives:
            proven = key[0] in self._proven and not alone
            return now_ms >= fault.last_ms + (PROVEN_MS if proven else UNPROVEN_MS)
        longest_ms = LONGEST_ALONE_MS.get(fault.state) if alone else None
        return now_ms >= (fault.until_ms if longest_ms is None else min(fault.until_ms, fault.last_ms + longest_ms))

    # Signs of life.

    def _watch(self, venue: Venue) -> None:
        name = venue.offer.name
        with self._lock:
            if name in self._watched:
                return
            self._watched.add(name)
        try:
            threading.Thread(target=self._await_life, args=(venue,), name=f"venue-{name}", daemon=True).start()
        except RuntimeError:  # no thread to be had: the next question finds out
            log.exception("no_sign_of_life_awaited", venue=name)
            self._lives(name)

    def _await_life(self, venue: Venue) -> None:
        """Wait until a venue answers something cheap."""
        # A sign of life is a request too: half of what the venue may be asked is left for questions.
        pause_s = max(FIRST_REST_MS / 1000, 120 * len(venue.hosts.urls) / venue.offer.requests_a_minute)
        try:
            while not self._stopping.is_set():
                reach = venue.hosts.answers(venue.offer.ping, SIGN_OF_LIFE_S)
                if reach:
                    self.proven(venue)
                if reach.barred:
                    self._bars(venue.offer.name, reach.detail)
                if reach or reach.barred:
                    break
                self._stopping.wait(pause_s)
        except Exception:
            log.exception("sign_of_life_fault", venue=venue.offer.name)
        self._lives(venue.offer.name)

    def _bars(self, name: str, why: str) -> None:
        """A venue that could not be reached bars us now: that has an end, and no sign of life is to be had before."""
        now_ms = self._clock.now_ms()
        with self._lock:
            for key, fault in self._faults.items():
                if key[0] == name and fault.state == "unreachable":
                    self._faults[key] = replace(
                        fault, state="barred", reason=why, last_ms=now_ms, until_ms=now_ms + PROBATION_MS
                    )

    def _lives(self, name: str) -> None:
        with self._lock:
            self._watched.discard(name)
            for key, fault in self._faults.items():
                if key[0] == name:
                    self._faults[key] = replace(fault, lives=True)


# Kinds of failure: the state that it is, whether it is about one symbol alone, and the rest; None is the doubling one.
_KINDS: tuple[tuple[type[WorkerError], str, bool, int | None], ...] = (
    (ConfigError, "unknown symbol", True, PROBATION_MS),
    (MalformedKlines, "malformed", True, None),
    (Refused, "refused", True, None),
    (Blocked, "barred", False, PROBATION_MS),
    (NoLevel, "no level", True, None),
)


def _sorted_out(venue: Venue, symbol: str, error: WorkerError) -> tuple[str, str, int | None]:
    """The state that a failure is, the symbol that it is about or "", and the rest in ms or None."""
    if isinstance(error, ConfigError) and venue.offer.key and venue.offer.key in str(error):
        return "key refused", "", PROBATION_MS
    for kind, state, of_symbol, rest_ms in _KINDS:
        if isinstance(error, kind):
            return state, symbol if of_symbol else "", rest_ms
    if isinstance(error, MarketUnavailable) and error.retry_after_s is not None:
        return "limited", "", round(error.retry_after_s * 1000)
    return "unreachable", "", None


def failure_of(failures: Failures, what: str) -> WorkerError:
    """One error for all venues that were to be asked: of the kind that says what to do next."""
    if len(failures) == 1:
        error = failures[0][1]
        if isinstance(error, MalformedKlines):
            return MalformedKlines(f"{error}; {ASKED_AGAIN}")
        return error
    told = "; ".join(f"{venue.offer.name}: {error}" for venue, error in failures)
    errors = [error for _, error in failures]
    message = f"no venue has {what}: {told}" if failures else f"no venue of MARKET_VENUES has {what}"
    if all(isinstance(error, ConfigError) for error in errors):
        return ConfigError(message)
    waits = [error.retry_after_s if isinstance(error, MarketUnavailable) else None for error in errors]
    known = [wait_s for wait_s in waits if wait_s is not None]
    return MarketUnavailable(message, min(known) if len(known) == len(waits) else None)
