"""The table of venues; a venue or a stream built from the settings. A new venue is its own file and one line here."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from core.clock import Clock
from core.env_file import nearest
from core.errors import ConfigError
from core.net.http import is_loopback
from core.settings import Market, Settings, urls_setting, where_set
from core.topic import Topic
from market.quarantine import Quarantine
from market.venue import Venue
from market.venues.atlas import Atlas
from market.venues.binance.rest import Binance
from market.venues.coinbase import Coinbase
from market.venues.kraken import Kraken
from market.venues.tiingo import Tiingo

if TYPE_CHECKING:
    from market.venues.binance.stream import BinanceStream


class Entry(NamedTuple):
    """A line of the table."""

    client: Callable[..., Venue]
    url: str  # default host


VENUES: Mapping[str, Entry] = {
    "binance": Entry(Binance, ""),  # its hosts are in BINANCE_REST_URLS and BINANCE_ARCHIVE_URL
    "binanceus": Entry(Binance, "https://api.binance.us"),
    "coinbase": Entry(Coinbase, "https://api.exchange.coinbase.com"),
    "kraken": Entry(Kraken, "https://api.kraken.com"),
    "tiingo": Entry(Tiingo, "https://api.tiingo.com"),
    "atlas": Entry(Atlas, "https://forge-data.allora.run"),
}


# Why a known name cannot be chosen.
_ELSEWHERE: Mapping[str, str] = {
    "binance": "has its hosts in BINANCE_REST_URLS and BINANCE_WS_URLS",
    "coingecko": "is no longer a venue: take it out",
    "(not shown)": "cannot stand there: each part must be VENUE=KEY",
}


def check_names(settings: Settings) -> None:
    """Raise ConfigError if a setting names a venue that is not in the table."""
    for setting, names in settings.venues_set.items():
        known = [name for name in VENUES if (setting, name) != ("VENUE_URLS", "binance")]
        if setting == "VENUE_KEYS":  # a name that is not even like a venue may be a key
            upper = [name.upper() for name in known]
            names = tuple(name if nearest(name, upper) else "(not shown)" for name in names)  # noqa: PLW2901
        for name in names:
            if name not in known:
                why = _ELSEWHERE.get(name, "cannot stand there")
                raise ConfigError(
                    f"{where_set(setting)}: {setting}={','.join(names)!r}: {name!r} {why}; choose of {', '.join(known)}"
                )


def urls_of(venue: str, settings: Settings) -> tuple[str, ...]:
    """REST hosts of a venue in the order they are tried."""
    return settings.urls_of(venue) or (VENUES[venue].url,)


def venue_from(
    name: str,
    settings: Settings,
    clock: Clock,
    quarantine: Quarantine,
    *,
    topics: Iterable[Topic],
    timeout_s: float = 10.0,
    patience_s: float = 60.0,
) -> Venue:
    """Build a venue; the topics say what the symbols are pairs of, as far as the caller knows.

    Raises:
        ConfigError: an unknown venue, a URL is not http(s), or MARKET is simulated and a URL is not this machine's.
    """
    check_names(settings)
    urls = urls_of(name, settings)
    archive = settings.binance_archive_url.strip() if name == "binance" else ""
    _check_urls(urls_setting(name), urls, settings)
    _check_urls("BINANCE_ARCHIVE_URL", filter(None, [archive]), settings)
    waits = {"timeout_s": timeout_s, "patience_s": patience_s}
    client = VENUES[name].client
    if client is Binance:
        return Binance(urls, archive, clock, quarantine=quarantine, name=name, **waits)
    tokens = {topic.symbol: topic.token for topic in topics}
    return client(urls, clock, quarantine, tokens=tokens, key=settings.key_of(name), **waits)


def stream_from(settings: Settings, series: Iterable[tuple[str, int]]) -> "BinanceStream | None":
    """Build the stream if the first venue is Binance; else return None: the prices of a stand-in are another market's.

    The simulated exchange has streams and REST routes at one URL, unless BINANCE_WS_URLS says otherwise. Raises as
    ``venue_from``, for URLs that are not ws(s).
    """
    from market.venues.binance.stream import BinanceStream  # noqa: PLC0415 -- uvloop and websockets, for serving alone

    if settings.venues[0] != "binance":
        return None
    urls = settings.ws_urls
    if settings.market is Market.SIMULATED and "binance_ws_urls" not in settings.model_fields_set:
        urls = tuple(f"ws{url.removeprefix('http')}" for url in settings.urls_of("binance"))
    _check_urls("BINANCE_WS_URLS", urls, settings, scheme="ws")
    return BinanceStream(urls, series)


def _check_urls(setting: str, urls: Iterable[str], settings: Settings, *, scheme: str = "http") -> None:
    for url in urls:
        if urlsplit(url).scheme not in {scheme, f"{scheme}s"}:
            raise ConfigError(f"{setting} must begin with {scheme}:// or {scheme}s://, was {url!r}")
        if settings.market is Market.SIMULATED and not is_loopback(url):
            raise ConfigError(
                f"MARKET=simulated needs {setting} on this machine, was {url!r}: start `python -m exchange` and set "
                "BINANCE_REST_URLS and BINANCE_ARCHIVE_URL to the URL it prints, BINANCE_WS_URLS to nothing"
            )
