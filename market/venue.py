"""What the rest of the project may ask of a venue, what a venue tells by itself, and what may be counted on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from klines.klines import Klines
from klines.spans import Span
from market.http.client import Hosts

UNKNOWN = "unknown"  # of the venue that told a candle: no venue has this name


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The newest trade price of a symbol."""

    price: float  # quote currency per unit of base; finite and above 0
    # By our clock: of a polled price just before the venue was asked, as it is at least as new as that; of one from
    # the stream the venue's own time of the trade.
    asof_ms: int
    venue: str = ""  # whose price it is; empty where there is but one


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How prices went on since a moment: one venue's closes, without a hole."""

    venue: str  # that told all of them; empty where there is but one
    first: float  # the price at that moment
    last: float  # the close of the newest whole minute since; ``first`` where none has closed
    end_ms: int  # when that was
    minutes: int = 0  # that have closed since
    total: float = 0.0  # sum of their log-returns
    squares: float = 0.0  # sum of the squares of these


class MarketData(Protocol):
    """A venue. Implementations are safe to call from several threads."""

    stream_venue: str = ""  # whose prices the stream tells; empty where there is but one venue
    filled: int = 0  # candles that a venue lacked and another one had
    switches: int = 0  # how often a series' candles came from another venue than before

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Closed klines, ``start_ms <= open_time_ms < end_ms``, oldest first; gaps stay gaps.

        Raises:
            MarketUnavailable: no host could be asked, or all refused.
            MalformedKlines: the answer is not klines.
            ConfigError: the venue does not know the symbol.
        """

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        """One archive file: the UTC day that begins at ``day_ms``, or with ``month`` its whole month.

        Returns:
            Its klines, or None when the venue has no such file (yet).
        Raises:
            MarketUnavailable, MalformedKlines: as above; a wrong checksum is MalformedKlines.
        """

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """The newest trade price of each symbol.

        Raises: as ``klines``.
        """

    def clock_ahead_ms(self) -> int:
        """How far the venue's clock is ahead of ours; 0 when the two cannot be told apart, or the venue has none.

        Raises: as ``klines``.
        """
        return 0

    def remember(self, symbol: str, klines: Klines) -> None:
        """Take note of candles that the caller has, by which the level of what it asks for is told."""
        return None

    def retold(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """``klines`` of the series' own venue where it can be asked, whatever is thought of them; no fault is noted."""
        return self.klines(symbol, interval_ms, start_ms, end_ms)

    def forget(self, symbol: str, interval_ms: int, span: Span) -> None:
        """The caller has given up candles that it was told."""
        return None

    def borrowed(self, symbol: str, interval_ms: int) -> Sequence[Span]:
        """Spans that were told lately by another venue than the series' own, to be asked for again."""
        return ()

    def lent(self, symbol: str, interval_ms: int) -> int:
        """How many answers for a series came from another venue than its own."""
        return 0

    def source(self, symbol: str, interval_ms: int) -> str:
        """The venue that told the newest candle of a series; empty where there is but one."""
        return ""

    def teller(self, symbol: str, interval_ms: int, open_ms: int) -> str:
        """The venue that told one of the newest candles; UNKNOWN where that is not known, empty where there is one."""
        return ""

    def remark(self, symbol: str, interval_ms: int) -> str:
        """Why the newest candles of a series are not told although venues answer; empty where they are."""
        return ""

    def refused(self, symbol: str, interval_ms: int) -> Mapping[int, str]:
        """By open time: why a row of a series that was told was not handed on; of this process, and not of all time."""
        return {}

    def stream_factor(self, symbol: str) -> float | None:
        """What a price of the stream is multiplied by to be at the level of the symbol's series; None: not known."""
        return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a venue declares to have."""

    name: str  # as MARKET_VENUES names it: "coinbase"
    quote: str  # currency that its prices are in: "USD"; empty where it is the symbol's own
    intervals_ms: frozenset[int]  # klines it has; empty where it has prices alone
    history_rows: int | None = None  # klines further back than so many are not to be had; None is all of them
    flow: frozenset[str] = frozenset()  # flow columns it has; NaN stands in the others (volume: always there)
    archives: bool = False  # whole days or months in files
    trades: bool = True  # whether ``prices`` are of single trades, seconds old; else they are means, minutes old
    prices_at_once: bool = True  # one request tells all prices that are asked for; else it takes one for each
    tells_time: bool = True  # ``clock_ahead_ms`` asks for ``ping``
    ping: str  # path of something cheap that answers in JSON while it is well
    requests_a_minute: int  # how often it lets itself be asked, all symbols together
    key: str = ""  # environment variable of the key it wants; empty where it wants none
    key_missing: bool = False  # it wants one and has none: it is not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a venue's own list says of a symbol."""

    base: str  # "ETH"
    quote: str  # "USDT"
    trades: bool  # False while it is halted, and for good once it is delisted


class Venue(MarketData, Protocol):
    """A venue that says what it has. Its columns, units, names and errors are known in its own file alone."""

    @property
    def offer(self) -> Offer: ...

    @property
    def hosts(self) -> Hosts:
        """Its REST hosts, for their state."""

    def name_of(self, symbol: str) -> str:
        """What the venue calls a symbol, such as "ETH-USD" for ETHUSDT.

        Raises:
            ConfigError: it cannot have a name there.
        """

    def listing(self, symbol: str) -> Listing | None:
        """What the venue's own list says of a symbol; None where it knows the symbol and has no such list.

        Raises:
            UnknownSymbol: it does not know the symbol. Others: as ``klines``.
        """


class StreamReader(Protocol):
    """Whoever a stream tells what it hears. Called in the stream's thread; none of it may wait."""

    def stream_up(self, host: str) -> None:
        """Data has come over a new connection; what was said before it was open is not told again."""

    def stream_down(self, reason: str) -> None:
        """Nothing comes any more, or no connection could be had; a line that says why."""

    def traded(self, symbol: str, price: float, venue_ms: int) -> None:
        """A price, finite and above 0, and the venue's time of it. May come late, twice or out of order."""

    def candle_closed(self, symbol: str, kline: Klines) -> None:
        """One candle that the venue calls closed. May come late, twice, out of order, or not at all."""


class MarketStream(Protocol):
    """What a venue tells without being asked, kept up by a thread of its own."""

    malformed: int  # messages so far that could not be read

    def start(self, reader: StreamReader) -> None:
        """Begin to listen; returns at once."""

    def stop(self, timeout_s: float) -> None:
        """End the thread; one that does not end in time is left behind."""
