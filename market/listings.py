"""Whether the venues list the pairs that topics are answered from: asked at a start, off the path of any answer.

A venue whose own list has the symbol as another pair contradicts it, and its topics are not answered from then on. That
no venue lists a symbol, or trades it now, is a doubt: answers go on while there are fresh prices.
"""

import threading
import time
from collections.abc import Iterable, Sequence

import structlog

from core.errors import MarketUnavailable, UnknownSymbol, WorkerError
from core.topic import DOLLARS, Topic, bases_of
from market.venue import Listing, Venue

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 3600.0  # before venues that could not be asked are asked again

log = structlog.get_logger()


class Pair:
    """A symbol that answers for a token, and what the venues' own lists say of it. Asked by one thread at a time.

    Attributes:
        contradiction: which venue lists the symbol as a pair of something else or in something else than a dollar;
            empty while none does. It stays.
        asked_of_all: every venue that could contradict has been heard.
    """

    def __init__(self, symbol: str, token: str) -> None:
        self.symbol = symbol
        self.token = token
        self.contradiction = ""
        self.asked_of_all = False
        self._said: dict[str, str] = {}  # by venue: why it does not vouch for the pair; empty where it does
        self._unasked: list[str] = []

    @property
    def doubt(self) -> str:
        """Why its topics may never be answered; empty where a venue lists the pair, or none could be asked."""
        if not self._said or "" in self._said.values():
            return ""
        return ", ".join([*self._said.values(), *(f"{name} could not be asked" for name in self._unasked)])

    @property
    def refusal(self) -> str:
        """Why no topic of the token is answered from the symbol, and what to do; empty while no venue contradicts."""
        return f"cannot answer for {self.token}: {self.contradiction}; {self.remedy}" if self.contradiction else ""

    @property
    def line(self) -> str:
        """What is wrong with the symbol and what to do; empty while nothing is."""
        if self.contradiction:
            return f"{self.symbol} {self.refusal}"
        return f"{self.symbol}: {self.doubt}; {self.remedy}" if self.doubt else ""

    @property
    def remedy(self) -> str:
        """What to do about a symbol that is contradicted or doubted."""
        again = " and start again" if self.contradiction else ""
        return (
            f"correct Token or Symbol in config.json{again}; birnn doctor --market --symbol {self.symbol} asks every "
            "venue"
        )

    def ask(self, venues: Sequence[Venue], away: set[str]) -> None:
        """Ask each venue that has not said anything yet.

        Args:
            away: venues that could not be asked for another pair just now, and are not waited for again; added to.
        """
        unasked = []
        for venue in venues:
            name = venue.offer.name
            # A venue of one currency makes the pair's name of the token itself: it vouches, and cannot contradict.
            needless = venue.offer.quote and "" in self._said.values()
            if self.contradiction or needless or name in self._said or venue.offer.key_missing:
                continue
            try:
                if name in away:
                    raise MarketUnavailable(name)
                listing, lacks = lack(venue, self.symbol)
            except WorkerError as error:
                unasked.append(name)
                if isinstance(error, MarketUnavailable):
                    away.add(name)
                continue
            if listing and (listing.base not in bases_of(self.token) or listing.quote not in DOLLARS):
                wanted = f"{' or '.join(bases_of(self.token))} in dollars"
                self.contradiction = f"{name} lists it as {listing.base} in {listing.quote}, not {wanted}"
            self._said[name] = lacks
        self._unasked = unasked
        self.asked_of_all = not unasked or bool(self.contradiction)


def lack(venue: Venue, symbol: str) -> tuple[Listing | None, str]:
    """What a venue's own list says of a symbol, and in words why it does not trade there; empty where it does.

    Raises:
        WorkerError: the venue could not be asked.
    """
    name = venue.offer.name
    try:
        listing = venue.listing(symbol)
    except UnknownSymbol:
        return None, f"{name} does not list it"
    return listing, f"{name} has halted or delisted it" if listing and not listing.trades else ""


def pairs_of(topics: Iterable[Topic]) -> list[Pair]:
    """The pairs of some topics, each once."""
    return [Pair(*pair) for pair in dict.fromkeys((topic.symbol, topic.token) for topic in topics)]


def asked_pairs(venues: Sequence[Venue], topics: Iterable[Topic], timeout_s: float) -> list[Pair]:
    """The pairs of some topics, asked side by side; what is not told in time is not known of them."""
    pairs = pairs_of(topics)
    threads = [threading.Thread(target=pair.ask, args=(venues, set()), daemon=True) for pair in pairs]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return pairs


class Listings:
    """Holds each topic's symbol against the venues' own lists while the process runs. Safe to use from several threads.

    Nothing waits for a venue that cannot be asked: its topics are answered meanwhile, and it is asked again, ever more
    seldom.

    Args:
        stop: set when the process is to end.
        logs_doubts: whether a symbol that no venue trades is logged; beside inference the updater need not say so too.
    """

    def __init__(
        self, venues: Sequence[Venue], topics: Iterable[Topic], stop: threading.Event, *, logs_doubts: bool = True
    ) -> None:
        self._logs_doubts = logs_doubts
        self._venues = tuple(venues)
        self._pairs = {(pair.symbol, pair.token): pair for pair in pairs_of(topics)}
        self._said: set[str] = set()
        self._stop = stop
        self._asked_once = threading.Event()

    def refusal(self, topic: Topic) -> str:
        """Why a topic's symbol must not answer it, nor be trained on; empty while no venue contradicts it."""
        pair = self._pairs.get((topic.symbol, topic.token))
        return pair.refusal if pair else ""

    def start(self) -> None:
        """Ask in a thread of its own, at once and until every venue has been heard."""
        threading.Thread(target=self._run, name="listings", daemon=True).start()

    def wait(self, timeout_s: float) -> None:
        """Wait until each venue was asked once, whether it answered or not, but no longer than so."""
        self._asked_once.wait(timeout_s)

    def stop(self) -> None:
        """Ask no more; a request that is under way is left behind."""
        self._stop.set()

    def _ask(self) -> bool:
        """Ask the venues that have not been heard yet, and log what is found; True when all have been heard."""
        waiting = [pair for pair in self._pairs.values() if not pair.asked_of_all]
        away: set[str] = set()
        for pair in waiting:
            pair.ask(self._venues, away)
            if pair.line and pair.line not in self._said:
                self._said.add(pair.line)
                why, told = pair.contradiction or pair.doubt, {"symbol": pair.symbol, "token": pair.token}
                if pair.contradiction:
                    log.error("symbol_contradicted", **told, reason=why, remedy=pair.remedy)
                elif self._logs_doubts:
                    log.warning("symbol_doubted", **told, reason=why, remedy=pair.remedy)
        return all(pair.asked_of_all for pair in waiting)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stop.is_set():
            try:
                if self._ask():
                    return
            except Exception:
                if self._stop.is_set():  # a request that is cut short at the end
                    return
                log.exception("listings_not_read", remedy="they are asked again")
            finally:
                self._asked_once.set()
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
