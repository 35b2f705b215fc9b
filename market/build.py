"""The venues that the settings name, built; ``topics``, ``waits`` and errors are those of ``venue_from``."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import structlog

from core.clock import MINUTE_MS, Clock
from core.errors import ConfigError
from core.net.http import is_loopback
from core.settings import Market, Settings
from core.topic import Topic
from market.failover.failover import Failover
from market.quarantine import Quarantine
from market.venue import Venue
from market.venues.registry import VENUES, check_names, urls_of, venue_from

log = structlog.get_logger()


def venues_from(
    settings: Settings, clock: Clock, quarantine: Quarantine, *, topics: Iterable[Topic], **waits: float
) -> list[Venue]:
    """All venues of MARKET_VENUES, best first.

    With MARKET=simulated only those whose hosts are on this machine: the others do not know its prices.

    Raises:
        ConfigError: also if no venue has minutes, or each venue that has them lacks its key.
    """
    check_names(settings)
    names = settings.venues
    if settings.market is Market.SIMULATED:
        names = tuple(name for name in names if _is_here(name, settings)) or names[:1]
    topics = tuple(topics)
    venues = [venue_from(name, settings, clock, quarantine, topics=topics, **waits) for name in names]
    _check_use(venues)
    return venues


def market_from(
    settings: Settings,
    clock: Clock,
    *,
    topics: Iterable[Topic],
    homes: Mapping[str, str] = MappingProxyType({}),
    **waits: float,
) -> Failover:
    """All venues of MARKET_VENUES as one, for serving.

    Args:
        homes: by symbol, the venue at whose price level its series are; of other symbols the first venue that answers.
    """
    quarantine = Quarantine(settings.klines_dir)
    failover = Failover(venues_from(settings, clock, quarantine, topics=topics, **waits), clock, quarantine)
    for symbol, venue in homes.items():
        failover.begin(symbol, venue)
    return failover


def truth_venue_from(
    settings: Settings, clock: Clock, quarantine: Quarantine, *, topics: Iterable[Topic], **waits: float
) -> Venue | None:
    """TRUTH_VENUE; None if it is not set, is the first of MARKET_VENUES, or does not know the simulated prices."""
    name, simulated = settings.truth_venue, settings.market is Market.SIMULATED
    if not name or name == settings.venues[0] or (simulated and not _is_here(name, settings)):
        return None
    truth = venue_from(name, settings, clock, quarantine, topics=topics, **waits)
    if truth.info.key_missing:
        raise ConfigError(f"TRUTH_VENUE={name} needs {truth.info.key}: set it, or leave TRUTH_VENUE empty")
    return truth


def venue_here(
    name: str, settings: Settings, clock: Clock, quarantine: Quarantine, *, topics: Iterable[Topic], **waits: float
) -> Venue:
    """Build one venue by name, whether or not MARKET_VENUES has it, for its minutes.

    Raises:
        ConfigError: not a venue, it has no minutes or lacks its key, or it does not know the simulated prices.
    """
    if name not in VENUES:
        raise ConfigError(f"{name!r} is not a venue; choose of {', '.join(VENUES)}")
    if settings.market is Market.SIMULATED and not _is_here(name, settings):
        raise ConfigError(f"MARKET=simulated: {name} does not know the simulated prices; set MARKET=binance")
    venue = venue_from(name, settings, clock, quarantine, topics=topics, **waits)
    if MINUTE_MS not in venue.info.intervals_ms:
        raise ConfigError(f"{name} has no 1m klines, so it has nothing to compare")
    if venue.info.key_missing:
        raise ConfigError(f"{name} needs {venue.info.key}: set it, or name another venue")
    return venue


def _is_here(name: str, settings: Settings) -> bool:
    """True if all hosts of a venue are on this machine."""
    return all(map(is_loopback, urls_of(name, settings)))


def _check_use(venues: Sequence[Venue]) -> None:
    named = f"MARKET_VENUES={','.join(venue.info.name for venue in venues)}"
    telling = [venue.info for venue in venues if MINUTE_MS in venue.info.intervals_ms]
    if not telling:
        raise ConfigError(f"{named}: has no 1m klines, which every forecast begins with; put another venue before it")
    keyless = [info for info in telling if info.key_missing]
    if len(keyless) == len(telling):
        raise ConfigError(f"{named}: set {' or '.join(info.key for info in keyless)}, or name another venue")
    for info in keyless:
        log.warning("venue_without_key", venue=info.name, remedy=f"set {info.key}, or take it out of MARKET_VENUES")
