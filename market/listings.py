"""Whether the venues list the pairs that topics are answered from: asked at a start, off the path of any answer."""

import threading
import time
from collections.abc import Mapping, Sequence

import structlog

from core.errors import UnknownSymbol, WorkerError
from core.topic import DOLLARS, PROXIES, Topic
from market.provider import Listing, Venue

log = structlog.get_logger()


def doubt(venues: Sequence[Venue], symbol: str, token: str) -> str:
    """Why a topic may never be answered from a symbol, or in the wrong currency; empty where a venue lists the pair.

    The first venue that can be asked and lists the symbol decides. Its own base and quote count, not the symbol's end.
    """
    lacking, unasked = [], []
    for venue in venues:
        name = venue.offer.name
        if venue.offer.key_missing:
            continue
        try:
            listing, lacks = lack(venue, symbol)
        except WorkerError:
            unasked.append(f"{name} could not be asked")
            continue
        if lacks:
            lacking.append(lacks)
            continue
        if listing is None:
            return ""
        if listing.base not in (token.upper(), *PROXIES.get(token.upper(), ())) or listing.quote not in DOLLARS:
            return f"{name} lists it as {listing.base} in {listing.quote}, and Token is {token}"
        return ""
    return ", ".join([*lacking, *unasked]) if lacking else ""


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


def doubts(venues: Sequence[Venue], topics: Sequence[Topic], timeout_s: float) -> dict[str, str]:
    """The same of every topic's symbol, asked side by side; what is not told in time is left out."""
    tokens = {topic.symbol: topic.token for topic in topics}
    found: dict[str, str] = {}

    def look(symbol: str, token: str) -> None:
        if why := doubt(venues, symbol, token):
            found[symbol] = why

    threads = [threading.Thread(target=look, args=pair, daemon=True) for pair in tokens.items()]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return {symbol: found[symbol] for symbol in tokens if symbol in found}


def remedy(symbol: str) -> str:
    """What to do about a symbol that is doubted."""
    return f"correct Token or Symbol in config.json; birnn doctor --market --symbol {symbol} asks every venue"


def log_doubts(venues: Sequence[Venue], topics: Sequence[Topic]) -> None:
    """Ask in a thread of its own, which nothing waits for, and log a line for each symbol that is doubted."""
    tokens = {topic.symbol: topic.token for topic in topics}
    threading.Thread(target=_log_each, args=(venues, tokens), name="listings", daemon=True).start()


def _log_each(venues: Sequence[Venue], tokens: Mapping[str, str]) -> None:
    for symbol, token in tokens.items():
        if why := doubt(venues, symbol, token):
            log.warning("symbol_doubted", symbol=symbol, token=token, reason=why, remedy=remedy(symbol))
