"""Checks at a start, off the path of any answer, that the venues list the pairs which topics are answered from.

A venue whose own list has the symbol as another pair contradicts the symbol, and its topics are not answered from then
on. A symbol that no venue lists, or trades now, is in doubt: answers go on while there are fresh prices.
"""

import threading
import time
from collections.abc import Iterable, Sequence

import structlog

from core.backoff import backoff
from core.errors import MarketUnavailable, UnknownSymbol, WorkerError
from core.topic import DOLLARS, Topic, bases_of
from market.venue import Listing, Venue

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 3600.0  # until venues that could not be asked are asked again

log = structlog.get_logger()


class Pair:
    """A symbol that answers for a token, and what the venues' own lists say of the symbol. For one thread at a time.

    Attributes:
        contradiction: the venue that lists the symbol as a pair of another asset or not in a dollar, and how; empty
            while no venue does. It stays.
        unasked: the venues that could contradict, and could not be asked.
    """

    def __init__(self, symbol: str, token: str) -> None:
        self.symbol = symbol
        self.token = token
        self.contradiction = ""
        self.unasked: list[str] = []
        self._lacks: dict[str, str] = {}  # by venue that answered: why it does not trade the pair; empty if it does

    @property
    def doubt(self) -> str:
        """Why the symbol's topics may never be answered; empty if a venue trades it, or no venue answered."""
        if not self._lacks or "" in self._lacks.values():
            return ""
        return ", ".join([*self._lacks.values(), *(f"{name} could not be asked" for name in self.unasked)])

    @property
    def refusal(self) -> str:
        """Why no topic of the token is answered from the symbol, and what to do; empty without a contradiction."""
        return f"cannot answer for {self.token}: {self.contradiction}; {self.remedy}" if self.contradiction else ""

    @property
    def line(self) -> str:
        """The fault of the symbol and the remedy; empty without a fault."""
        if self.contradiction:
            return f"{self.symbol} {self.refusal}"
        return f"{self.symbol}: {self.doubt}; {self.remedy}" if self.doubt else ""

    @property
    def remedy(self) -> str:
        """The remedy for a symbol that is contradicted or in doubt."""
        again = " and start again" if self.contradiction else ""
        doctor = f"birnn doctor --market --symbol {self.symbol} asks every venue"
        return f"correct Token or Symbol in config.json{again}; {doctor}"

    def ask(self, venues: Sequence[Venue], away: set[str]) -> None:
        """Ask each venue that has not answered yet.

        Args:
            away: venues that could not be asked for another pair just now and are passed over; added to.
        """
        self.unasked = []
        for venue in venues:
            name = venue.info.name
            # A venue of one currency makes the pair's name from the token itself: it cannot contradict.
            needless = self.contradiction or (venue.info.quote and "" in self._lacks.values())
            if needless or name in self._lacks or venue.info.key_missing:
                continue
            try:
                if name in away:
                    raise MarketUnavailable(name)
                listing, self._lacks[name] = lack(venue, self.symbol)
            except WorkerError as error:
                self.unasked.append(name)
                away |= {name} if isinstance(error, MarketUnavailable) else set()
                continue
            bases = bases_of(self.token)
            if listing and (listing.base not in bases or listing.quote not in DOLLARS):
                found = f"{name} lists it as {listing.base} in {listing.quote}"
                self.contradiction, self.unasked = f"{found}, not {' or '.join(bases)} in dollars", []
                return


def lack(venue: Venue, symbol: str) -> tuple[Listing | None, str]:
    """A symbol's entry in a venue's own list, and why the venue does not trade the symbol; empty if it does."""
    name = venue.info.name
    try:
        listing = venue.listing(symbol)
    except UnknownSymbol:
        return None, f"{name} does not list it"
    return listing, f"{name} has halted or delisted it" if listing and not listing.trades else ""


def pairs_of(topics: Iterable[Topic]) -> list[Pair]:
    """The pairs of topics, each once."""
    return [Pair(*pair) for pair in dict.fromkeys((topic.symbol, topic.token) for topic in topics)]


def asked_pairs(venues: Sequence[Venue], topics: Iterable[Topic], timeout_s: float) -> list[Pair]:
    """The pairs of topics, each asked in its own thread for at most ``timeout_s``."""
    pairs = pairs_of(topics)
    threads = [threading.Thread(target=pair.ask, args=(venues, set()), daemon=True) for pair in pairs]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return pairs


class Listings:
    """Asks for each topic's pair, with longer and longer pauses until all have answered. Safe to use from threads.

    Args:
        stop: set when the process is to end.
        logs_doubts: False leaves the line about a symbol that no venue trades to another process.
    """

    def __init__(
        self, venues: Sequence[Venue], topics: Iterable[Topic], stop: threading.Event, *, logs_doubts: bool = True
    ) -> None:
        self._venues = tuple(venues)
        self._pairs = {(pair.symbol, pair.token): pair for pair in pairs_of(topics)}
        self._stop = stop
        self._logs_doubts = logs_doubts
        self._logged: set[str] = set()
        self._asked_once = threading.Event()

    def refusal(self, topic: Topic) -> str:
        """Why a topic's symbol must not be answered from, nor trained on; empty without a contradiction."""
        pair = self._pairs.get((topic.symbol, topic.token))
        return pair.refusal if pair else ""

    def start(self) -> None:
        """Ask in a thread of its own, at once and until every venue has answered."""
        threading.Thread(target=self._run, name="listings", daemon=True).start()

    def wait(self, timeout_s: float) -> None:
        """Wait at most so long until each venue was asked once."""
        self._asked_once.wait(timeout_s)

    def stop(self) -> None:
        """Ask no more; a request that is under way is not waited for."""
        self._stop.set()

    def _run(self) -> None:
        waiting, rounds = list(self._pairs.values()), 0
        while waiting and not self._stop.is_set():
            away: set[str] = set()
            try:
                for pair in waiting:
                    pair.ask(self._venues, away)
                    self._log(pair)
                waiting = [pair for pair in waiting if pair.unasked]
            except Exception:
                if not self._stop.is_set():  # else the end of the process cut a request short
                    log.exception("listings_not_read", remedy="they are asked again")
            self._asked_once.set()
            rounds += 1
            if waiting:
                self._stop.wait(backoff(rounds, FIRST_PAUSE_S, LONGEST_PAUSE_S))
        self._asked_once.set()

    def _log(self, pair: Pair) -> None:
        if not pair.line or pair.line in self._logged:
            return
        self._logged.add(pair.line)
        fields = {"symbol": pair.symbol, "token": pair.token, "remedy": pair.remedy}
        if pair.contradiction:
            log.error("symbol_contradicted", **fields, reason=pair.contradiction)
        elif self._logs_doubts:
            log.warning("symbol_doubted", **fields, reason=pair.doubt)
