"""An answer as it was given: what went over the wire, and what it rested on."""

from dataclasses import dataclass

from core.clock import iso
from core.topic import Topic, topic_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer to the node. ``height`` is None where the question named none; such an answer is not kept."""

    topic_id: int
    height: int | None
    network: str  # chain id; empty when the config does not say
    value: str  # the decimal, to the letter
    version: str  # of the network, or "persistence"
    symbol: str
    target: str  # Topic.asked: a volatility with its definition
    horizon_min: int
    anchor: float  # the newest price when it was given: last trade, or last close where no trade price is needed
    anchor_asof_ms: int
    asof_ms: int  # end of the window that the forecast was made from
    answered_ms: int
    market: str  # BINANCE or SIMULATED
    venue: str = ""  # who told the anchor
    forecast: str = ""  # "network", or "naive" for the naive forecast's number; empty: an older release did not say
    asked_ms: int = 0  # when the question came
    base_ms: int = 0  # when the interval begins that was answered for
    base_source: str = "asked"  # a BaseSource
    block_ms: int | None = None  # the nonce block's time; None while the chain has not told it
    elapsed_ms: int = 0  # of the interval that was known, from the base to the newest price used
    truth_ratio: float = 1.0  # of the truth venue's prices to those of the anchor's level; what a price started from

    @property
    def key(self) -> str:
        """``Topic.key`` of the topic it answers."""
        return topic_key(self.network, self.topic_id)

    def anchor_age_ms(self, now_ms: int) -> int:
        """How old the anchor is."""
        return max(0, now_ms - self.anchor_asof_ms)

    def forecast_age_ms(self, now_ms: int) -> int:
        """How long ago the window ended that the forecast was made from."""
        return max(0, now_ms - self.asof_ms)

    def headers(self, now_ms: int) -> list[tuple[bytes, bytes]]:
        """What is said beside the value when it is said at ``now_ms``, the first time or again."""
        said = [
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
            said.append((b"x-forecast", self.forecast.encode("latin-1")))
        if self.venue:
            said.append((b"x-venue", self.venue.encode("latin-1")))
        if self.truth_ratio != 1.0:
            said.append((b"x-truth-ratio", b"%.6f" % self.truth_ratio))
        if self.network:
            said.append((b"x-network", self.network.encode("latin-1")))
        return said

    def answers(self, topic: Topic, market: str) -> bool:
        """Whether it was given to the very question that ``topic`` asks now, and from the same market."""
        return (self.market, self.network, self.symbol, self.target, self.horizon_min) == (
            market,
            topic.network or "",
            topic.symbol,
            topic.asked,
            topic.horizon_min,
        )
