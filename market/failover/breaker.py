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
LONE_REST_S = 2.0  # of a venue that failed and has no stand-in
ASKED_AGAIN = "it is asked again within seconds; a second venue in MARKET_VENUES would stand in meanwhile"

log = structlog.get_logger()

Failures = list[tuple[Venue, WorkerError]]
Ask = Callable[[Venue, str, int, int, int], Klines]
Fits = Callable[[Venue], bool]
Key = tuple[str, str, str]  # venue, kind of question, symbol or empty


class NoRatio(MarketUnavailable):
    """A venue's candles or prices cannot be brought to the prices of the home venue."""


@dataclass(frozen=True, slots=True)
class _State:
    """Why a venue is left alone, and for how long."""

    rest_s: float | None = None  # None is the doubling rest
    alone_s: float = float("inf")  # the longest rest if no other venue can stand in
    of_symbol: bool = True  # False if the venue is asked for no other symbol either
    error: tuple[type[WorkerError], ...] = ()  # the failures that bring the state
    reason: str = ""  # of a symbol that must not be used although the venue answers


# By name. A failure brings the first state that has its class.
STATES = {
    "key refused": _State(BARRED_REST_S, of_symbol=False, error=(KeyRefused,)),
    "unknown symbol": _State(BARRED_REST_S, error=(ConfigError,)),
    "malformed": _State(alone_s=LONE_REST_S, error=(MalformedKlines,)),
    "refused": _State(alone_s=LONE_REST_S, error=(Refused,)),
    "barred": _State(BARRED_REST_S, 3.0, of_symbol=False, error=(Blocked,)),  # a filter of one host for all may pass
    "no ratio": _State(error=(NoRatio,)),
    "unreachable": _State(alone_s=LONE_REST_S, of_symbol=False, error=(WorkerError,)),
    "limited": _State(of_symbol=False),  # unreachable until a time that the venue names
    "silent": _State(
        STOPPED_REST_S, LONE_REST_S, reason="no trade of {} in its last candles, where another venue has some"
    ),
    # The price guard decides about the price of a lone venue; a rest would only delay it.
    "far": _State(None, 0.0, reason="its price of {} is far from the last ones; another venue or more prices decide"),
    "frozen": _State(STOPPED_REST_S, 0.0, reason="it repeats an old price of {}, which the newest candles exclude"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueFault:
    """Why a venue is left alone for a kind of question, or for one symbol of it. Times are of ``Clock.elapsed_s``."""

    reason: str
    state: str  # of ``STATES``
    since_s: float
    last_s: float
    rest_s: float  # after the last failure
    failures: int  # in a row

    def lasts(self, now_s: float, *, alone: bool = False) -> bool:
        """True while the venue is left alone; ``alone`` if no other venue can stand in."""
        rest_s = min(self.rest_s, STATES[self.state].alone_s) if alone else self.rest_s
        return now_s < self.last_s + rest_s


class VenueBreaker:
    """The faults of all venues, which come best first. Safe to use from several threads; asks nothing under a lock."""

    def __init__(self, venues: Sequence[Venue], clock: Clock) -> None:
        self._venues = tuple(venues)
        self._clock = clock
        self._lock = threading.Lock()
        self._faults: dict[Key, VenueFault] = {}
        self._seldom = Seldom()

    @property
    def faults(self) -> dict[Key, VenueFault]:
        """The present faults by (venue, kind of question, symbol or empty)."""
        now_s = self._clock.elapsed_s()
        with self._lock:
            return {key: fault for key, fault in self._faults.items() if fault.lasts(now_s)}

    def order(self, kind: str, symbol: str, failures: Failures, fits: Fits = lambda _: True) -> Iterator[Venue]:
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

    def having(self, interval_ms: int, end_ms: int) -> Fits:
        """Return a test that is True for a venue that has candles of an interval that end at ``end_ms``."""

        def has(venue: Venue) -> bool:
            rows = venue.info.history_rows
            reaches = rows is None or end_ms > self._clock.now_ms() - rows * interval_ms
            return interval_ms in venue.info.intervals_ms and reaches

        return has

    def others(
        self,
        first: Venue,
        symbol: str,
        interval_ms: int,
        span: Span,
        ask: Ask = lambda venue, *candles: venue.klines(*candles),
    ) -> Iterator[tuple[Venue, Klines]]:
        """Candles of a span from each venue but one, best first; failures are recorded."""
        for venue in self.order(KLINES, symbol, [], self.having(interval_ms, span[1])):
            if venue is first:
                continue
            try:
                klines = ask(venue, symbol, interval_ms, *span)
            except WorkerError as error:
                self.record_failure(venue, KLINES, symbol, error)
            else:
                yield venue, klines

    def why_open(self, venue: Venue, kind: str, symbol: str, fits: Fits = lambda _: True) -> WorkerError | None:
        """Why a venue is not asked now; None if it is asked."""
        if venue.info.key_missing:
            return ConfigError(f"{venue.info.name}: {venue.info.key} is not set")
        now_s = self._clock.elapsed_s()
        with self._lock:
            others = [other for other in filter(fits, self._venues) if other is not venue]
            alone = all(other.info.key_missing or self._fault_of(other, kind, symbol, now_s) for other in others)
            fault = self._fault_of(venue, kind, symbol, now_s, alone=alone)
        if fault is None:
            return None
        if fault.state == "limited":
            return MarketUnavailable(fault.reason, max(0.0, fault.last_s + fault.rest_s - now_s))
        return ConfigError(fault.reason) if fault.state == "unknown symbol" else MarketUnavailable(fault.reason)

    def record_failure(self, venue: Venue, kind: str, symbol: str, error: WorkerError) -> None:
        """Leave a venue alone for a while, by the class of the failure."""
        state = next(name for name, state in STATES.items() if isinstance(error, state.error))
        wait_s = error.retry_after_s if isinstance(error, MarketUnavailable) and state == "unreachable" else None
        self._record(venue, kind, symbol, state if wait_s is None else "limited", str(error), wait_s)

    def record_unusable(self, venue: Venue, kind: str, symbol: str, state: str) -> None:
        """Pause a venue for a symbol whose candles or price must not be used, although the venue answers."""
        self._record(venue, kind, symbol, state, f"{venue.info.name}: {STATES[state].reason.format(symbol)}")

    def record_success(self, venue: Venue, kind: str, symbol: str) -> None:
        """Forget the faults of a venue that has answered."""
        name = venue.info.name
        with self._lock:
            gone = [self._faults.pop((name, kind, scope), None) for scope in ("", symbol)]
        for fault in gone:
            if fault and (count := self._seldom.due("venue_back", name, kind, symbol)):
                away_s = round(self._clock.elapsed_s() - fault.since_s, 3)
                details = {"asked_for": kind, "symbol": symbol, "away_s": away_s, "failures": fault.failures}
                log.info("venue_back", venue=name, **details, count=count)

    def _record(
        self, venue: Venue, kind: str, symbol: str, state: str, reason: str, wait_s: float | None = None
    ) -> None:
        now_s, name, rule = self._clock.elapsed_s(), venue.info.name, STATES[state]
        key = (name, kind, symbol if rule.of_symbol else "")
        with self._lock:
            before = self._faults.get(key)
            failures = (before.failures if before else 0) + 1
            # A far price rests twice as long, or the next poll would ask the same venue again.
            doubled_s = backoff(failures + (state == "far"), FIRST_REST_S, LONGEST_REST_S)
            self._faults[key] = VenueFault(
                reason=reason,
                state=state,
                since_s=before.since_s if before else now_s,
                last_s=now_s,
                rest_s=next(rest_s for rest_s in (wait_s, rule.rest_s, doubled_s) if rest_s is not None),
                failures=failures,
            )
        is_news = before is None or before.state != state
        if is_news and (count := self._seldom.due("venue_left", name, kind, symbol, state)):
            details = {"asked_for": kind, "symbol": symbol, "state": state, "reason": reason}
            log.warning("venue_left", venue=name, **details, count=count)

    def _fault_of(
        self, venue: Venue, kind: str, symbol: str, now_s: float, *, alone: bool = False
    ) -> VenueFault | None:
        faults = (self._faults.get((venue.info.name, kind, scope)) for scope in ("", symbol))
        return next((fault for fault in faults if fault and fault.lasts(now_s, alone=alone)), None)


def failure_of(failures: Failures, what: str) -> WorkerError:
    """One error for all venues that failed to give ``what``; the class of the error says what to do next."""
    errors = [error for _, error in failures]
    if len(errors) == 1:
        return MalformedKlines(f"{errors[0]}; {ASKED_AGAIN}") if isinstance(errors[0], MalformedKlines) else errors[0]
    reasons = "; ".join(f"{venue.info.name}: {error}" for venue, error in failures)
    message = f"no venue has {what}: {reasons or 'MARKET_VENUES names none that could have it'}"
    if all(isinstance(error, ConfigError) for error in errors):
        return ConfigError(message)
    waits_s = [error.retry_after_s for error in errors if isinstance(error, MarketUnavailable)]
    known_s = [wait_s for wait_s in waits_s if wait_s is not None]
    return MarketUnavailable(message, min(known_s) if len(known_s) == len(errors) else None)
