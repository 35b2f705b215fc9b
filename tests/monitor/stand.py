"""A kline store and a ledger as the updater and inference leave them, for tests of the monitor."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from core.clock import MINUTE_MS
from core.topic import Target, Topic, Volatility
from klines.klines import Klines
from ledger.answers import Answer
from ledger.database import open_engine
from ledger.schema import answers, make_ready
from ledger.scores import ScoreBook
from market.store.home_store import HomeStore
from monitor.scorer import Scorer
from monitor.skills import SkillBook
from tests.fakes.clock import FakeClock

NETWORK, VENUE, MARKET = "allora-testnet-1", "binance", "BINANCE"
BLOCK_MS = 17_000  # of a nonce's block after the base
ELAPSED_MS = 73_000  # of the newest price after the base: the first minute has closed


def topic_of(
    topic_id: int,
    target: Target,
    horizon_min: int,
    loss: str = "mse",
    symbol: str = "ETHUSDT",
    volatility: Volatility = Volatility.STD_HORIZON,
) -> Topic:
    return Topic(
        network=NETWORK,
        topic_id=topic_id,
        token=symbol.removesuffix("USDT"),
        symbol=symbol,
        target=target,
        horizon_min=horizon_min,
        loss=loss,
        volatility=volatility,
    )


def answers_to(
    topic: Topic, klines: Klines, base_ms: Iterable[int], *, seed: int = 0, version: str = "v1"
) -> list[Answer]:
    """Return an answer for each base, as inference would have given it from these minutes."""
    rng = np.random.default_rng(seed)
    found = []
    for base in base_ms:
        row = int(np.searchsorted(klines.open_time_ms, base))
        anchor = float(klines.close[row]) * math.exp(float(rng.normal(0, 1e-4)))
        number = {
            Target.PRICE: anchor * math.exp(float(rng.normal(0, 1e-3))),
            Target.LOG_RETURN: float(rng.normal(0, 1e-3)),
            Target.VOLATILITY: 6e-4 * topic.unit * math.exp(float(rng.normal(0, 0.3))),
        }[topic.target]
        found.append(
            Answer(
                network=NETWORK,
                topic_id=topic.topic_id,
                height=base // MINUTE_MS,
                value=repr(number),
                version=version,
                symbol=topic.symbol,
                target=topic.asked,
                horizon_min=topic.horizon_min,
                anchor=anchor,
                anchor_asof_ms=base + ELAPSED_MS,
                asof_ms=base,
                answered_ms=base + ELAPSED_MS + 100,
                market=MARKET,
                venue=VENUE,
                truth_ratio=1.0002 if topic.target is Target.PRICE else 1.0,
                forecast="network",
                asked_ms=base + BLOCK_MS + 4_000,
                base_ms=base,
                base_source="chain",
                block_ms=base + BLOCK_MS,
                elapsed_ms=ELAPSED_MS,
            )
        )
    return found


class Stand:
    """A data folder with a store and a ledger, and the scorer over them.

    Args:
        url: of another ledger than SQLite's in the folder.
    """

    def __init__(self, folder: Path, topics: Sequence[Topic], url: str = "") -> None:
        self.folder = folder
        self.topics = tuple(topics)
        self.url = url or f"sqlite:///{folder / 'ledger.sqlite3'}"
        self.homes = HomeStore(folder / "klines", (VENUE,))
        self.book = ScoreBook(self.url)
        self.engine = open_engine(self.url)
        make_ready(self.engine, FakeClock())
        self.skills = SkillBook(self.book, self.topics)
        self.scorer = self.restarted()

    def restarted(self, **more: str) -> Scorer:
        """Return a scorer as a new process has it."""
        return Scorer(self.book, self.homes, self.topics, MARKET, self.skills, **more)

    def store(self, symbol: str, klines: Klines, venue: str = VENUE) -> None:
        self.homes.of(venue).append(symbol, klines)

    def answer(self, rows: Sequence[Answer]) -> None:
        with self.engine.begin() as connection:
            connection.execute(answers.insert(), [row._asdict() for row in rows])

    def score_all(self, now_ms: int) -> int:
        """Step until nothing is due any more, and return how many scores were written."""
        made = self.scorer.step(now_ms)
        while (some := self.scorer.step(now_ms)) or self.scorer.is_sweeping:
            made += some
            assert not self.scorer.fault
        assert not self.scorer.fault
        return made

    def close(self) -> None:
        self.book.close()
        self.engine.dispose()
