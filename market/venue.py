"""The port of market data: candles and prices that are asked for, and a stream that sends them by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from klines.klines import Klines
from market.http.client import HostPool

UNKNOWN = "unknown"  # in place of a venue's name, where a candle's venue is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The newest trade price of a symbol."""

    price: float  # quote currency per unit of base; finite and above 0
    # A polled price: our clock just before the venue was asked. A streamed price: the venue's own time of the trade.
    asof_ms: int
    venue: str = ""  # empty if there is but one venue


class Verdict(StrEnum):
    """The price guard's decision about a price."""

    BELIEVED = "believed"
    OLDER = "older"  # than the believed price
    FAR = "far"  # from the believed price or the newest candle, and not confirmed
    FROZEN = "frozen"  # repeated while the candles have left it


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The moves of a price since a moment, by one venue's closes without a hole."""

    venue: str  # of all these closes; empty if there is but one venue
    first: float  # the price at that moment
    last: float  # the close of the newest whole minute since; ``first`` if no minute has closed
    end_ms: int  # the time of ``last``
    minutes: int = 0  # closed since that moment
    total: float = 0.0  # sum of the minutes' log-returns
    squares: float = 0.0  # sum of the squares of the log-returns


class MarketData(Protocol):
    """Candles and prices, of one venue or of several as one. Implementations are safe to call from several threads.

    What has a default here means something only where several venues serve as one.

    Raises:
        MarketUnavailable: no host could be asked, or all refused.
        MalformedKlines: the answer is not klines.
        ConfigError: the venue does not know the symbol.
    """

    stream_venue: str = ""  # the venue whose prices the stream sends
    filled: int = 0  # candles that a venue lacked and another venue had
    switches: int = 0  # how often a series' candles came from another venue than before

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Closed klines, ``start_ms <= open_time_ms < end_ms``, oldest first; gaps stay gaps."""

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """The newest trade price of each symbol."""

    def judge_price(self, symbol: str, venue: str, verdict: Verdict) -> None:
        """Learn what the price guard decided about a venue's price."""
        return None

    def clock_ahead_ms(self) -> int:
        """The lead of the venue's clock over ours; 0 if it is too small to see, or the venue has no clock."""
        return 0

    def remember(self, symbol: str, klines: Klines) -> None:
        """Learn a series' price level from candles that the caller already has."""
        return None

    def home(self, symbol: str) -> str:
        """The venue at whose price level a symbol's series are; empty before the first candle."""
        return ""

    def source(self, symbol: str, interval_ms: int) -> str:
        """The venue of a series' newest candle."""
        return ""

    def teller(self, symbol: str, interval_ms: int, open_ms: int) -> str:
        """The venue of one of the newest candles; UNKNOWN if that is not known."""
        return ""

    def remark(self, symbol: str, interval_ms: int) -> str:
        """Why a series has no newer candles although venues answer; empty if the series has newer candles."""
        return ""

    def stream_factor(self, symbol: str) -> float | None:
        """The multiplier from the stream's prices to the level of the symbol's series, or None if it is not known."""
        return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueInfo:
    """A venue's data, limits and needs."""

    name: str  # as MARKET_VENUES names it: "coinbase"
    quote: str  # currency of its prices: "USD"; empty if it is the symbol's own
    intervals_ms: frozenset[int]  # of its klines; empty if it has prices alone
    history_rows: int | None = None  # how many klines back it has; None is all of them
    flow: frozenset[str] = frozenset()  # flow columns it has; NaN stands in the others (volume: always there)
    archives: bool = False  # True if it has whole days or months in files
    prices_at_once: bool = True  # True if one request has the prices of all symbols; else each symbol takes a request
    tells_time: bool = True  # True if the answer to ``ping`` has the venue's time
    ping: str  # path of something cheap that answers in JSON while the venue is well
    requests_a_minute: int  # the most it may be asked, all symbols together
    key: str = ""  # environment variable of the key that it needs; empty if it needs none
    key_missing: bool = False  # True if the needed key is not set; the venue is then not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A symbol's entry in a venue's own list."""

    base: str  # "ETH"
    quote: str  # "USDT"
    trades: bool  # False while it is halted, and for good once it is delisted


class Venue(MarketData, Protocol):
    """One venue. Its columns, units, names and errors are known in its own file alone."""

    @property
    def info(self) -> VenueInfo:
        """The venue's data, limits and needs."""

    @property
    def hosts(self) -> HostPool:
        """The venue's REST hosts, for their state."""

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        """One archive file: the UTC day that begins at ``day_ms``, or with ``month`` its whole month.

        Returns:
            Its klines, or None when the venue has no such file (yet). A wrong checksum is MalformedKlines.
        """

    def name_of(self, symbol: str) -> str:
        """The venue's own name of a symbol, such as "ETH-USD" for ETHUSDT; ConfigError if it cannot have one."""

    def listing(self, symbol: str) -> Listing | None:
        """The symbol's entry in the venue's own list; None if the venue has no such list.

        Raises:
            UnknownSymbol: the venue does not know the symbol.
        """


class StreamReader(Protocol):
    """Takes the events of a stream. Called in the stream's thread; no call may wait."""

    def stream_up(self, host: str) -> None:
        """Data has come over a new connection; what was sent before it was open is lost."""

    def stream_down(self, reason: str) -> None:
        """Nothing comes any more, or no connection could be had; ``reason`` is one line."""

    def traded(self, symbol: str, price: float, venue_ms: int) -> None:
        """A price, finite and above 0, and the venue's time of it. May come late, twice or out of order."""

    def candle_closed(self, symbol: str, kline: Klines) -> None:
        """One candle that the venue calls closed. May come late, twice, out of order, or not at all."""


class MarketStream(Protocol):
    """Prices and candles that a venue sends without being asked, read by a thread of its own."""

    malformed: int  # messages so far that could not be read

    def start(self, reader: StreamReader) -> None:
        """Begin to listen; returns at once."""

    def stop(self, timeout_s: float) -> None:
        """End the thread; a thread that does not end in time is left behind."""
