"""Which venue may be asked for what: a circuit breaker by venue, kind of question and symbol.

A venue that fails is left alone for a rest. The first question after the rest finds out whether the venue is back: no
thread asks meanwhile. Where no other venue can stand in, the rest is seconds.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import structlog

from core.backoff import backoff
from core.clock import Clock
from core.errors import ConfigError, KeyRefused, MalformedKlines, MarketUnavailable, WorkerError
from core.seldom import Seldom
from klines.klines import Klines
from klines.spans import Span
from market.http.errors import Blocked, Refused
from market.venue import Venue

KLINES, PRICES = "klines", "prices"  # kinds of question; a venue may answer klines and fail at prices
FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0  # of a venue that failed, doubling
BARRED_REST_S = 600.0  # a country, an address, a key or a listing does not change within minutes
STOPPED_REST_S = 120.0  # of a venue that stands still while others go on
# By state of a venue that answers and is not to be used for a symbol: why, and the rest; None is the doubling rest.
UNUSABLE: dict[str, tuple[str, float | None]] = {
    "silent": ("no trade of {} in its last candles, where another venue has some", STOPPED_REST_S),
    "far": ("its price of {} is far from the last ones; another venue or more prices decide", None),
    "frozen": ("it repeats an old price of {}, which the newest candles exclude", STOPPED_REST_S),
}
LONE_REST_S = 2.0
# By state, the longest rest if no other venue can stand in; other states keep their rest.
LONGEST_ALONE_S = dict.fromkeys(("unreachable", "malformed", "refused", "silent"), LONE_REST_S)
LONGEST_ALONE_S |= {"barred": 3.0}  # a filter of one host for all may have been passing as well
LONGEST_ALONE_S |= {"far": 0.0, "frozen": 0.0}  # the price guard decides; a pause would only delay it

log = structlog.get_logger()

ASKED_AGAIN = "it is asked again within seconds; a second venue in MARKET_VENUES would stand in meanwhile"

Failures = list[tuple[Venue, WorkerError]]
Ask = Callable[[Venue, str, int, int, int], Klines]
Key = tuple[str, str, str]  # venue, kind of question, symbol or empty


class NoRatio(MarketUnavailable):
    """A venue's candles or prices cannot be brought to the prices of the home venue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueFault:
    """Why a venue is left alone for a kind of question, or for one symbol of it. Times are of ``Clock.elapsed_s``."""

    reason: str
    state: str  # as in FAULT_KINDS, or limited, unreachable, silent, far, frozen
    since_s: float
    last_s: float
    rest_s: float  # after the last failure
    failures: int = 1  # in a row


# By class of failure: the state, whether it concerns one symbol alone, and the rest; None is the doubling rest.
FAULT_KINDS: tuple[tuple[type[WorkerError], str, bool, float | None], ...] = (
    (KeyRefused, "key refused", False, BARRED_REST_S),
    (ConfigError, "unknown symbol", True, BARRED_REST_S),
    (MalformedKlines, "malformed", True, None),
    (Refused, "refused", True, None),
    (Blocked, "barred", False, BARRED_REST_S),
    (NoRatio, "no ratio", True, None),
)


class VenueBreaker:
    """The faults of all venues. Safe to use from several threads; nothing is asked under the lock.

    Args:
        venues: best first.
        clock: for rests.
    """

    def __init__(self, venues: Sequence[Venue], clock: Clock) -> None:
        self._venues = tuple(venues)
        self._clock = clock
        self._lock = threading.RLock()
        self._faults: dict[Key, VenueFault] = {}
        self._seldom = Seldom()

    @property
    def faults(self) -> dict[Key, VenueFault]:
        """The present faults by (venue, kind of question, symbol or empty)."""
        now_s = self._clock.elapsed_s()
        with self._lock:
            return {key: fault for key, fault in self._faults.items() if now_s < fault.last_s + fault.rest_s}

    def order(
        self, kind: str, symbol: str, failures: Failures, fits: Callable[[Venue], bool] = lambda _: True
    ) -> Iterator[Venue]:
        """The venues to ask, best first; ``failures`` gets the reason of each venue that is left out.

        Args:
            fits: True if a venue has what is asked for at all; else it cannot stand in either.
        """
        for venue in filter(fits, self._venues):
            error = self.why_open(venue, kind, symbol, fits)
            if error is None:
                yield venue
            else:
                failures.append((venue, error))

    def having(self, interval_ms: int, end_ms: int) -> Callable[[Venue], bool]:
        """Return a test that is True for a venue that has candles of an interval that end at ``end_ms``."""

        def has(venue: Venue) -> bool:
            rows = venue.offer.history_rows
            reaches = rows is None or end_ms > self._clock.now_ms() - rows * interval_ms
            return interval_ms in venue.offer.intervals_ms and reaches

        return has

    def others(
        self, first: Venue, symbol: str, interval_ms: int, span: Span, ask: Ask | None = None
    ) -> Iterator[tuple[Venue, Klines]]:
        """Candles of a span from each venue but one, best first; failures are recorded.

        Args:
            ask: asks a venue, as ``Venue.klines`` does; None is ``Venue.klines``.
        """
        for venue in self.order(KLINES, symbol, [], self.having(interval_ms, span[1])):
            if venue is first:
                continue
            try:
                klines = ask(venue, symbol, interval_ms, *span) if ask else venue.klines(symbol, interval_ms, *span)
            except WorkerError as error:
                self.record_failure(venue, KLINES, symbol, error)
            else:
                yield venue, klines

    def why_open(
        self, venue: Venue, kind: str, symbol: str, fits: Callable[[Venue], bool] = lambda _: True
    ) -> WorkerError | None:
        """Why a venue is not asked now; None if it is asked."""
        if venue.offer.key_missing:
            return ConfigError(f"{venue.offer.name}: {venue.offer.key} is not set")
        now_s = self._clock.elapsed_s()
        with self._lock:
            others = [other for other in filter(fits, self._venues) if other is not venue]
            alone = all(other.offer.key_missing or self._fault_of(other, kind, symbol, now_s) for other in others)
            fault = self._fault_of(venue, kind, symbol, now_s, alone=alone)
        if fault is None:
            return None
        if fault.state == "limited":
            return MarketUnavailable(fault.reason, max(0.0, fault.last_s + fault.rest_s - now_s))
        return ConfigError(fault.reason) if fault.state == "unknown symbol" else MarketUnavailable(fault.reason)

    def record_failure(self, venue: Venue, kind: str, symbol: str, error: WorkerError) -> None:
        """Leave a venue alone for a while, by the class of the failure."""
        state, of_symbol, rest_s = _sorted_out(error)
        self._record((venue.offer.name, kind, symbol if of_symbol else ""), symbol, state, str(error), rest_s)

    def record_unusable(self, venue: Venue, kind: str, symbol: str, state: str) -> None:
        """Pause a venue for a symbol whose candles or price must not be used, although the venue answers.

        Args:
            state: of ``UNUSABLE``.
        """
        why, rest_s = UNUSABLE[state]
        reason = f"{venue.offer.name}: {why.format(symbol)}"
        self._record((venue.offer.name, kind, symbol), symbol, state, reason, rest_s)

    def record_success(self, venue: Venue, kind: str, symbol: str) -> None:
        """Forget the faults of a venue that has answered."""
        name = venue.offer.name
        with self._lock:
            gone = [self._faults.pop((name, kind, scope), None) for scope in ("", symbol)]
        for fault in gone:
            if fault and (count := self._seldom.due("venue_back", name, kind, symbol)):
                away_s = round(self._clock.elapsed_s() - fault.since_s, 3)
                details = {"asked_for": kind, "symbol": symbol, "away_s": away_s, "failures": fault.failures}
                log.info("venue_back", venue=name, **details, count=count)

    def _record(self, key: Key, symbol: str, state: str, reason: str, rest_s: float | None) -> None:
        now_s, (name, kind, _) = self._clock.elapsed_s(), key
        with self._lock:
            before = self._faults.get(key)
            failures = before.failures + 1 if before else 1
            # A far price rests twice as long, or the next poll would ask the same venue again.
            doubled_s = backoff(failures + (state == "far"), FIRST_REST_S, LONGEST_REST_S)
            self._faults[key] = VenueFault(
                reason=reason,
                state=state,
                since_s=before.since_s if before else now_s,
                last_s=now_s,
                rest_s=doubled_s if rest_s is None else rest_s,
                failures=failures,
            )
        is_news = before is None or before.state != state
        if is_news and (count := self._seldom.due("venue_left", name, kind, symbol, state)):
            details = {"asked_for": kind, "symbol": symbol, "state": state, "reason": reason}
            log.warning("venue_left", venue=name, **details, count=count)

    def _fault_of(
        self, venue: Venue, kind: str, symbol: str, now_s: float, *, alone: bool = False
    ) -> VenueFault | None:
        """The fault for which a venue is left alone; ``alone`` if no other venue can stand in."""
        for scope in ("", symbol):
            fault = self._faults.get((venue.offer.name, kind, scope))
            if fault is None:
                continue
            rest_s = min(fault.rest_s, LONGEST_ALONE_S.get(fault.state, fault.rest_s)) if alone else fault.rest_s
            if now_s < fault.last_s + rest_s:
                return fault
        return None


def _sorted_out(error: WorkerError) -> tuple[str, bool, float | None]:
    """The state of a failure, True if it concerns one symbol alone, and the rest."""
    for kind, state, of_symbol, rest_s in FAULT_KINDS:
        if isinstance(error, kind):
            return state, of_symbol, rest_s
    if isinstance(error, MarketUnavailable) and error.retry_after_s is not None:
        return "limited", False, error.retry_after_s
    return "unreachable", False, None


def failure_of(failures: Failures, what: str) -> WorkerError:
    """One error for all venues that failed to give ``what``; the class of the error says what to do next."""
    if len(failures) == 1:
        error = failures[0][1]
        if isinstance(error, MalformedKlines):
            return MalformedKlines(f"{error}; {ASKED_AGAIN}")
        return error
    reasons = "; ".join(f"{venue.offer.name}: {error}" for venue, error in failures)
    errors = [error for _, error in failures]
    message = f"no venue has {what}: {reasons}" if failures else f"no venue of MARKET_VENUES has {what}"
    if all(isinstance(error, ConfigError) for error in errors):
        return ConfigError(message)
    waits_s = [error.retry_after_s if isinstance(error, MarketUnavailable) else None for error in errors]
    known_s = [wait_s for wait_s in waits_s if wait_s is not None]
    return MarketUnavailable(message, min(known_s) if len(known_s) == len(waits_s) else None)
