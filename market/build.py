"""The venues that the settings name, built; and the file in which the updater says at whose level each series is."""

import contextlib
import json
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from core.clock import MINUTE_MS, Clock
from core.errors import ConfigError, WorkerError
from core.files import replace_json
from core.settings import Market, Settings, urls_setting
from core.timed_http import is_loopback
from core.topic import Topic
from klines.spans import INTERVALS, Span, interval_name, joined
from market.failover.failover import Failover, Standing
from market.quarantine import Quarantine
from market.venue import Venue
from market.venues.atlas import Atlas
from market.venues.binance.rest import Binance
from market.venues.coinbase import Coinbase
from market.venues.coingecko import CoinGecko
from market.venues.kraken import Kraken
from market.venues.tiingo import Tiingo

log = structlog.get_logger()


def venue_from(
    name: str,
    settings: Settings,
    clock: Clock,
    aside: Quarantine,
    *,
    topics: Iterable[Topic],
    timeout_s: float = 10.0,
    patience_s: float = 60.0,
) -> Venue:
    """One venue.

    Args:
        topics: what the symbols that it is asked for are pairs of, as far as somebody knows.
    Raises:
        ConfigError: a URL is not http(s), or MARKET is simulated and a URL is not this machine's.
    """
    urls = settings.urls_of(name)
    archive = settings.binance_archive_url.strip() if name == "binance" else ""
    named = {urls_setting(name): urls, "BINANCE_ARCHIVE_URL": (archive,) if archive else ()}
    _check(named, settings)
    waits = {"timeout_s": timeout_s, "patience_s": patience_s}
    if name in {"binance", "binanceus"}:
        return Binance(urls, archive, clock, aside=aside, name=name, **waits)
    tokens = {topic.symbol: topic.token for topic in topics}
    if name in KEYLESS:
        return KEYLESS[name](urls, clock, aside, tokens=tokens, **waits)
    return KEYED[name](urls, clock, aside, tokens=tokens, key=settings.key_of(name), **waits)


KEYLESS: Mapping[str, Callable[..., Venue]] = {"coinbase": Coinbase, "kraken": Kraken}
KEYED: Mapping[str, Callable[..., Venue]] = {"coingecko": CoinGecko, "tiingo": Tiingo, "atlas": Atlas}


def market_from(
    settings: Settings,
    clock: Clock,
    *,
    topics: Iterable[Topic],
    timeout_s: float = 10.0,
    patience_s: float = 60.0,
    awaits_life: bool = False,
    writes: bool = False,
) -> Failover:
    """All venues of MARKET_VENUES as one.

    With MARKET=simulated only those whose hosts are on this machine: the others do not know its prices.

    Args:
        topics: as ``venue_from`` has them.
        writes: keep at whose level each stored series is: for whoever alone writes the kline store.
    Raises:
        ConfigError: as ``venue_from``; also when none of them can tell minutes, or each one that can lacks its key.
    """
    names = settings.venues
    if settings.market is Market.SIMULATED:
        names = tuple(name for name in names if all(map(is_loopback, settings.urls_of(name)))) or names[:1]
    aside = Quarantine(settings.klines_dir)
    topics, waits = tuple(topics), {"timeout_s": timeout_s, "patience_s": patience_s}
    venues = [venue_from(name, settings, clock, aside, topics=topics, **waits) for name in names]
    _check_use(venues)
    failover = Failover(venues, clock, aside, awaits_life=awaits_life)
    _read_standing(settings.klines_dir, failover)
    if writes:
        failover.on_standing = partial(_write_ahead, settings.klines_dir, failover, threading.Lock())
    return failover


def _check_use(venues: Sequence[Venue]) -> None:
    named = f"MARKET_VENUES={','.join(venue.offer.name for venue in venues)}"
    telling = [venue.offer for venue in venues if MINUTE_MS in venue.offer.intervals_ms]
    if not telling:
        raise ConfigError(f"{named}: has no 1m klines, which every forecast begins with; put another venue before it")
    keyless = [offer for offer in telling if offer.key_missing]
    if len(keyless) == len(telling):
        raise ConfigError(f"{named}: set {' or '.join(offer.key for offer in keyless)}, or name another venue")
    for offer in keyless:
        log.warning("venue_without_key", venue=offer.name, remedy=f"set {offer.key}, or take it out of MARKET_VENUES")


STANDING = "venues.json"
_INTERVALS_MS = {name: ms for ms, name in INTERVALS.items()}


def write_standing(folder: Path, failover: Failover, failed: Collection[tuple[str, int]]) -> None:
    """Keep at whose level each stored series is, and since when it has candles of another venue; after they are stored.

    Args:
        failed: symbol and interval of each series whose sync has a failure: candles may have come and not been stored,
            and what the file said of them before stays.
    Raises:
        WorkerError: it cannot be written.
    """
    for symbol, interval_ms, level, borrowed in _series_in(_standing_in(folder)):
        if (symbol, interval_ms) in failed and level == failover.level(symbol):
            failover.owe(symbol, interval_ms, borrowed)
    _write(folder, failover.standing)


def _write_ahead(folder: Path, failover: Failover, writing: threading.Lock) -> None:
    """The same before candles are stored: what they took off the list stays on it, should they not arrive there."""
    with writing:
        ahead = failover.standing
        for symbol, interval_ms, level, borrowed in _series_in(_standing_in(folder)):
            now = ahead.get(f"{symbol}-{interval_name(interval_ms)}")
            if now and now["level"] == level:
                spans = joined([*borrowed, *((start, end) for start, end in now["borrowed"])])
                now["borrowed"] = [list(span) for span in spans]
        _write(folder, ahead)


def _write(folder: Path, standing: Standing) -> None:
    if _standing_in(folder) == standing:
        return
    path = folder / STANDING
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_json(path, standing)
    except OSError as error:
        raise WorkerError(f"{path}: {error.strerror}; check the space, owner and mode of DATA_DIR") from error


def _standing_in(folder: Path) -> dict[str, Any]:
    """What the file says; nothing where it is no such file, which is written anew then."""
    with contextlib.suppress(OSError, ValueError):
        said = json.loads((folder / STANDING).read_bytes())
        if isinstance(said, dict):
            return said
    return {}


def _series_in(said: Mapping[str, Any]) -> Iterator[tuple[str, int, str, list[Span]]]:
    """Symbol, interval, level and borrowed spans of each series; what is damaged is left out."""
    for key, series in said.items():
        with contextlib.suppress(KeyError, TypeError, ValueError):
            symbol, _, interval = key.rpartition("-")
            borrowed = [(int(start), int(end)) for start, end in series["borrowed"]]
            yield symbol, _INTERVALS_MS[interval], str(series["level"]), borrowed


def _read_standing(folder: Path, failover: Failover) -> None:
    path = folder / STANDING
    try:
        for key, said in json.loads(path.read_bytes()).items():
            symbol, _, interval = key.rpartition("-")
            borrowed = [(int(start), int(end)) for start, end in said["borrowed"]]
            failover.stand(symbol, _INTERVALS_MS[interval], str(said["level"]), borrowed)
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("venues_file_skipped", file=str(path), why=repr(error), remedy="levels are told anew")


def _check(urls: Mapping[str, tuple[str, ...]], settings: Settings) -> None:
    for name, url in chain.from_iterable(((name, url) for url in group) for name, group in urls.items()):
        if urlsplit(url).scheme not in {"http", "https"}:
            raise ConfigError(f"{name} must begin with http:// or https://, was {url!r}")
        if settings.market is Market.SIMULATED and not is_loopback(url):
            raise ConfigError(
                f"MARKET=simulated needs {name} on this machine, was {url!r}: start `python -m exchange` and "
                "set BINANCE_REST_URLS and BINANCE_ARCHIVE_URL to the URL it prints"
            )
