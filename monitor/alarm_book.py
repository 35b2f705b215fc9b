"""Which alarms hold, since when, and what of them was told: kept in the database, told once to each address."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from core.backoff import backoff
from core.clock import DAY_MS, MINUTE_MS, SECOND_MS, Clock, iso
from ledger.database import FAULTS
from ledger.schema import one_line
from monitor.alarm_rows import Alarm, AlarmRows, Kept
from monitor.send import NOT_UNDERSTOOD, Address, Delivery, Kind, Message

CLEAR_MS = 30 * SECOND_MS  # an alarm is over when nothing was wrong for so long: what flutters is told once
LOAD_PATIENCE_MS = 30 * SECOND_MS  # nothing is told so long if the table cannot be read: it may have been told before
ENDED_SHOWN = 50
FIRST_RETRY_S, LONGEST_RETRY_S = 5.0, 300.0
TOLD_AT_ONCE = 10  # alarms in a notification; many services cut off long ones
END_PATIENCE_S = 1.0

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Standing:
    """An alarm that holds, and since when it has not been seen."""

    kept: Kept
    clear_since_ms: int | None = None


@dataclass(slots=True, kw_only=True)
class _News:
    """Something to tell, and the positions of the addresses that have not accepted it."""

    kept: Kept
    owed_to: set[int] = field(default_factory=set)


class AlarmBook:
    """Compares the conditions of each look with the alarms that hold, and tells begins and ends.

    Safe to use from several threads. Nothing here waits for a notification, and a database that fails costs the memory
    of a restart alone.

    Args:
        url: of the ledger.
        addresses: where alarms are told.
        market: BINANCE or SIMULATED, for the title.
    """

    def __init__(self, url: str, addresses: Sequence[Address], clock: Clock, market: str = "BINANCE") -> None:
        self._rows = AlarmRows(url)
        self._clock = clock
        self._begun_ms = clock.now_ms()
        self._place = f"BiRNN worker on {socket.gethostname()}" + (", SIMULATED" if market == "SIMULATED" else "")
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._loaded = False
        self._standing: dict[tuple[str, str], _Standing] = {}
        self._ended: list[Kept] = []  # oldest first
        self._news: dict[tuple[str, str, int, bool], _News] = {}  # by the row's key, and True for the end
        self._unwritten: dict[tuple[str, str, int], Kept] = {}
        self._database_fault = ""
        self._tellers = [_Teller(address, self) for address in addresses]

    def start(self) -> None:
        """Begin to tell, in a thread for each address."""
        for teller in self._tellers:
            teller.start()

    def stop(self) -> None:
        """Finish the notifications at hand within END_PATIENCE_S; what nobody accepted is told after the next start."""
        for teller in self._tellers:
            teller.stop()
        deadline_s = time.monotonic() + END_PATIENCE_S
        for teller in self._tellers:
            teller.join(max(0.0, deadline_s - time.monotonic()))
        self._rows.close()

    def __len__(self) -> int:
        """How many addresses there are."""
        return len(self._tellers)

    @property
    def database_fault(self) -> str:
        """Why the table of alarms cannot be read or written; empty if it can."""
        return self._database_fault

    @property
    def standing(self) -> tuple[Kept, ...]:
        """The alarms that hold, newest first."""
        with self._lock:
            return tuple(sorted((one.kept for one in self._standing.values()), key=lambda kept: -kept.since_ms))

    @property
    def ended(self) -> tuple[Kept, ...]:
        """The newest alarms that are over, newest first."""
        with self._lock:
            return tuple(reversed(self._ended))

    @property
    def failures(self) -> int:
        """How many notifications were not accepted since the start."""
        return sum(teller.failures for teller in self._tellers)

    @property
    def fault(self) -> str:
        """Why alarms are not told; empty if they are. It is no alarm itself: nobody would be told of it."""
        return "; ".join(teller.fault for teller in self._tellers if teller.fault)

    def step(self, found: Iterable[Alarm], can_be_over: Callable[[str, str], bool], now_ms: int) -> None:
        """Take over what one look has found.

        Args:
            can_be_over: tells by name and subject whether an alarm that was not found is over; else it stays as it is.
        """
        if not self._loaded:
            self._load(now_ms)
        with self._lock:
            there = {(alarm.name, alarm.subject): alarm for alarm in found}
            for key, alarm in there.items():
                self._holds(key, alarm)
            for key in [key for key in self._standing if key not in there]:
                if can_be_over(*key):
                    self._is_clear(key, now_ms)
                else:
                    self._standing[key].clear_since_ms = None
            self._forget(now_ms)
        self.write()
        for teller in self._tellers:
            teller.wake()

    def news_for(self, position: int) -> tuple[Kept, ...]:
        """What the address at a position has not accepted yet, in order of time."""
        if not self._loaded and self._clock.now_ms() - self._begun_ms < LOAD_PATIENCE_MS:
            return ()
        with self._lock:
            return tuple(news.kept for news in self._news.values() if position in news.owed_to)

    def accepted(self, position: int, told: Iterable[Kept]) -> None:
        """Note that an address has accepted what ``news_for`` gave."""
        now_ms = self._clock.now_ms()
        with self._lock:
            for kept in told:
                key, is_end = _key(kept), kept.ended_ms is not None
                news = self._news.get((*key, is_end))
                if news:
                    news.owed_to.discard(position)
                    if not news.owed_to:
                        del self._news[*key, is_end]
                self._mark_told(key, is_end, now_ms)
        self.write()

    def give_up(self, position: int) -> None:
        """Note that nothing can be told to an address."""
        with self._lock:
            for key, news in list(self._news.items()):
                news.owed_to.discard(position)
                if not news.owed_to:
                    del self._news[key]

    def write(self) -> None:
        """Write what changed; what the database does not take is written with the next change."""
        if not self._loaded:
            return
        with self._writing:
            with self._lock:
                batch = dict(self._unwritten)
            if not batch:
                return
            try:
                self._rows.write(batch.values())
            except FAULTS as error:
                self._fail(error)
                return
            with self._lock:
                self._unwritten = {key: kept for key, kept in self._unwritten.items() if batch.get(key) is not kept}
            self._database_fault = ""

    def message(self, told: Sequence[Kept]) -> Message:
        """The notification about some alarms."""
        now_ms = self._clock.now_ms()
        begun = [kept for kept in told if kept.ended_ms is None]
        parts = [_words(kept, now_ms) for kept in (*begun, *(kept for kept in told if kept.ended_ms is not None))]
        if more := len(parts) - TOLD_AT_ONCE:
            parts = [*parts[:TOLD_AT_ONCE], f"and {more} more: see the status page"] if more > 0 else parts
        names = ", ".join(dict.fromkeys(kept.name for kept in begun or told))
        title = f"{self._place}: {names}" if begun else f"{self._place}: over: {names}"
        return Message(title=title, body="\n\n".join(parts), kind=Kind.ALARM if begun else Kind.OVER)

    def _holds(self, key: tuple[str, str], alarm: Alarm) -> None:
        standing = self._standing.get(key)
        if standing is None:
            kept = Kept(
                name=alarm.name, subject=alarm.subject, since_ms=alarm.since_ms, what=alarm.what, remedy=alarm.remedy
            )
            self._standing[key] = _Standing(kept=kept)
            self._changed(kept)
            self._tell(kept)
            log.warning("alarm", name=kept.name, subject=kept.subject, what=kept.what, remedy=kept.remedy)
            return
        standing.clear_since_ms = None
        # The words change with each look, such as an age; the page shows the newest, the row keeps the first.
        standing.kept = replace(standing.kept, what=alarm.what, remedy=alarm.remedy)

    def _is_clear(self, key: tuple[str, str], now_ms: int) -> None:
        standing = self._standing[key]
        since_ms = standing.clear_since_ms = min(now_ms, standing.clear_since_ms or now_ms)  # the clock may be set back
        if now_ms - since_ms < CLEAR_MS:
            return
        kept = replace(standing.kept, ended_ms=since_ms)
        del self._standing[key]
        self._ended = [*self._ended, kept][-ENDED_SHOWN:]
        self._changed(kept)
        news = self._news.pop((*_key(kept), False), None)  # told in one with its end
        if kept.sent_ms or news:
            self._tell(kept)
        log.info("alarm_over", name=kept.name, subject=kept.subject, what=kept.what)

    def _tell(self, kept: Kept) -> None:
        owed_to = {teller.address.position for teller in self._tellers if not teller.is_given_up}
        if owed_to:
            self._news[*_key(kept), kept.ended_ms is not None] = _News(kept=kept, owed_to=owed_to)

    def _forget(self, now_ms: int) -> None:
        """Tell no more of what has been over for a day."""
        for key, news in list(self._news.items()):
            if news.kept.ended_ms is not None and now_ms - news.kept.ended_ms > DAY_MS:
                del self._news[key]

    def _mark_told(self, key: tuple[str, str, int], is_end: bool, now_ms: int) -> None:
        standing = self._standing.get(key[:2])
        if standing and _key(standing.kept) == key and not is_end:
            standing.kept = replace(standing.kept, sent_ms=standing.kept.sent_ms or now_ms)
            self._changed(standing.kept)
        for place, kept in enumerate(self._ended):
            if _key(kept) == key:
                first_ms, end_ms = kept.sent_ms or now_ms, kept.end_sent_ms or (now_ms if is_end else None)
                self._ended[place] = replace(kept, sent_ms=first_ms, end_sent_ms=end_ms)
                self._changed(self._ended[place])

    def _changed(self, kept: Kept) -> None:
        self._unwritten[_key(kept)] = kept

    def _load(self, now_ms: int) -> None:
        """Take over what an earlier process has told."""
        try:
            rows = self._rows.read(now_ms)
        except FAULTS as error:
            self._fail(error)
            return
        with self._lock:
            self._loaded, self._database_fault = True, ""
            for kept in rows:
                key = (kept.name, kept.subject)
                if kept.ended_ms is not None:
                    self._ended = [*self._ended, kept][-ENDED_SHOWN:]
                    if kept.sent_ms and not kept.end_sent_ms:
                        self._tell(kept)
                    continue
                if meanwhile := self._standing.get(key):  # seen before the table could be read
                    self._unwritten.pop(_key(meanwhile.kept), None)
                    self._news.pop((*_key(meanwhile.kept), False), None)
                self._standing[key] = _Standing(kept=kept)
                if not kept.sent_ms:
                    self._tell(kept)

    def _fail(self, error: Exception) -> None:
        reason = one_line(error)
        if reason != self._database_fault:  # else each look would repeat it
            log.warning("alarms_not_kept", reason=reason, remedy="tried again with every look")
        self._database_fault = reason


class _Teller:
    """Tells one address, in a thread of its own, and tries again what it does not accept."""

    def __init__(self, address: Address, book: AlarmBook) -> None:
        self.address = address
        self.fault = ""
        self.failures = 0  # since the start
        self.is_given_up = False
        self._book = book
        self._delivery = Delivery(address)
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"alarms-{address.position}")

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._ending.set()
        self._wake.set()

    def join(self, patience_s: float) -> None:
        if self._thread.is_alive():
            self._thread.join(patience_s)
        self._delivery.end()

    def _run(self) -> None:
        if self._delivery.send(None) == NOT_UNDERSTOOD:
            self.is_given_up, self.fault = True, f"{self.address.name} is no address that alarms can be sent to"
            self._book.give_up(self.address.position)
            log.error("alarm_url_wrong", entry=self.address.name, remedy="correct ALARM_URLS; birnn alarm --test")
            return
        failures = 0
        while not self._ending.is_set():
            self._wake.clear()
            news = self._book.news_for(self.address.position)
            if not news:
                self._wake.wait()
                continue
            reason = self._delivery.send(self._book.message(news))
            if self._ending.is_set() and reason:
                return
            if not reason:
                failures, self.fault = 0, ""
                self._book.accepted(self.address.position, news)
                continue
            failures += 1
            self.failures += 1
            pause_s = backoff(failures, FIRST_RETRY_S, LONGEST_RETRY_S)
            self.fault = f"alarms cannot be sent to {self.address.name}: {reason}; tried {failures} times"
            log.warning("alarm_not_sent", entry=self.address.name, reason=reason, alarms=len(news), again_in_s=pause_s)
            self._ending.wait(pause_s)


def _key(kept: Kept) -> tuple[str, str, int]:
    return kept.name, kept.subject, kept.since_ms


def _words(kept: Kept, now_ms: int) -> str:
    """An alarm in a notification.

    >>> kept = Kept(name="clock", subject="", since_ms=0, what="the clock is off", remedy="set it")
    >>> print(_words(kept, 120_000))
    ALARM clock: the clock is off
    Since 1970-01-01 00:00 UTC (2 min).
    To do: set it
    >>> print(_words(replace(kept, ended_ms=60_000), 120_000))
    OVER clock: the clock is off
    From 1970-01-01 00:00 to 1970-01-01 00:01 UTC.
    """
    if kept.ended_ms is not None:
        return f"OVER {kept.name}: {kept.what}\nFrom {_minute(kept.since_ms)} to {_minute(kept.ended_ms)} UTC."
    minutes = max(0, now_ms - kept.since_ms) // MINUTE_MS
    return f"ALARM {kept.name}: {kept.what}\nSince {_minute(kept.since_ms)} UTC ({minutes} min).\nTo do: {kept.remedy}"


def _minute(ms: int) -> str:
    return iso(ms)[:16].replace("T", " ")
