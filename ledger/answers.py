"""An answer as it was given: the value that was sent, and the prices and forecast behind it."""

from typing import NamedTuple

from core.clock import iso
from core.topic import Topic, topic_key


class Answer(NamedTuple):  # made in half the time of a dataclass, and a row of the ledger as it is
    """One answer to the node. The fields are in the order of the ledger's columns."""

    network: str  # chain id; empty when the config does not say
    topic_id: int
    height: int | None  # None if the question named no height; such an answer is not kept
    value: str  # the decimal, to the letter
    version: str  # of the network, or "persistence"
    symbol: str
    target: str  # Topic.asked: a volatility with its definition
    horizon_min: int
    anchor: float  # the newest price: the last trade, or the last close if no trade price is needed
    anchor_asof_ms: int
    asof_ms: int  # end of the window that the forecast was made from
    answered_ms: int
    market: str  # BINANCE or SIMULATED
    venue: str = ""  # of the anchor
    truth_ratio: float = 1.0  # factor on the anchor, to the truth venue's price level
    forecast: str = ""  # "network", or "naive"; empty in rows of older releases
    asked_ms: int = 0  # when the question came
    base_ms: int = 0  # when the answer's interval begins
    base_source: str = "asked"  # a BaseSource
    block_ms: int | None = None  # time of the nonce's block; None while it is not known
    elapsed_ms: int = 0  # from the base to the newest price used

    @property
    def key(self) -> str:
        """``Topic.key`` of the answered topic."""
        return topic_key(self.network, self.topic_id)

    def anchor_age_ms(self, now_ms: int) -> int:
        """Return the age of the anchor."""
        return max(0, now_ms - self.anchor_asof_ms)

    def forecast_age_ms(self, now_ms: int) -> int:
        """Return the time since the end of the window that the forecast was made from."""
        return max(0, now_ms - self.asof_ms)

    def headers(self, now_ms: int) -> list[tuple[bytes, bytes]]:
        """Return the response headers of the answer when it is sent at ``now_ms``, the first time or again."""
        headers = [
            (b"x-topic", b"%d" % self.topic_id),
            (b"x-model-version", self.version.encode("latin-1")),
            (b"x-anchor-age-ms", b"%d" % self.anchor_age_ms(now_ms)),
            (b"x-forecast-age-ms", b"%d" % self.forecast_age_ms(now_ms)),
            (b"x-as-of", iso(self.asof_ms).encode()),
            (b"x-answered", iso(self.answered_ms).encode()),
            (b"x-base", iso(self.base_ms).encode()),
            (b"x-elapsed-ms", b"%d" % self.elapsed_ms),
            (b"x-base-source", self.base_source.encode()),
        ]
        if self.forecast:
            headers.append((b"x-forecast", self.forecast.encode("latin-1")))
        if self.venue:
            headers.append((b"x-venue", self.venue.encode("latin-1")))
        if self.truth_ratio != 1.0:
            headers.append((b"x-truth-ratio", b"%.6f" % self.truth_ratio))
        if self.network:
            headers.append((b"x-network", self.network.encode("latin-1")))
        return headers

    def answers(self, topic: Topic, market: str) -> bool:
        """True if the answer is to the question that ``topic`` asks now, and from the same market."""
        return (self.market, self.network, self.symbol, self.target, self.horizon_min) == (
            market,
            topic.network or "",
            topic.symbol,
            topic.asked,
            topic.horizon_min,
        )
