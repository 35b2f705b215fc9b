"""Epochs of a real local chain, as the monitor's tables keep them, and our answers to them.

``tests/data/chain_epochs.jsonl.gz`` is a cut of what the chain answered on 2026-11-30: topic 1 (price, 13 epochs, of
which 297 was lost to a 503), topic 2 (two reputers) and topic 3 (343 was lost to a refused connection).
"""

import gzip
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from core.clock import MINUTE_MS
from ledger.answers import Answer
from ledger.epochs import Arrival, Detail, Epoch, EpochBook, Inferer, Stage
from ledger.schema import answers
from monitor.chain.filled import EpochRow

OURS = "allo1yjy7uan0rtsxz2jm33xfhjawuhvz8pfveqd7l3"
NETWORK = "localnet"
BLOCK_MS = 2_032  # mean of the recorded blocks
FILE = Path(__file__).parents[1] / "data" / "chain_epochs.jsonl.gz"


@cache
def recorded() -> Sequence[dict[str, Any]]:
    """The epochs of the cut by topic and nonce: values, losses, scores and rewards as the chain wrote them."""
    return [orjson.loads(line) for line in gzip.decompress(FILE.read_bytes()).splitlines()]


def epoch_rows(topic_id: int, network: str = NETWORK, *, as_id: int | None = None, end_ms: int = 0) -> list[EpochRow]:
    """Return a recorded topic's epochs, newest first, as a follower that saw everything leaves them.

    Args:
        as_id: topic id in the rows, if another one.
        end_ms: time of the newest nonce block; 0 is the recorded time. The others follow at BLOCK_MS for each block.
    """
    found = [one for one in recorded() if one["topic"] == topic_id]
    newest = found[-1]
    end_ms = end_ms or _ms(newest["time"])
    return [
        _row(one, network, as_id or topic_id, end_ms - BLOCK_MS * (newest["nonce"] - one["nonce"]))
        for one in reversed(found)
    ]


def write(url: str, rows: Sequence[EpochRow]) -> None:
    """Write epochs and answers into a ledger that is ready."""
    book = EpochBook(url)
    book.write([epoch for epoch, _ in rows])
    book.close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(answers.insert(), [answer._asdict() for _, answer in rows if answer])
    engine.dispose()


def _ms(text: str) -> int:
    return round(1000 * datetime.fromisoformat(f"{text[:23]}+00:00").timestamp())


def _row(one: dict[str, Any], network: str, topic_id: int, block_ms: int) -> EpochRow:
    nonce, values, losses, seen = one["nonce"], one["inferences"], one["losses"], one["network"]
    epoch = Epoch(
        network=network,
        topic_id=topic_id,
        nonce=nonce,
        block_ms=block_ms,
        seen_ms=block_ms + 2 * MINUTE_MS,
        stage=(Stage.SETTLED if losses else Stage.GONE).value,
        worker=OURS,
        arrival=(Arrival.EQUAL if one["ours"] else Arrival.ABSENT).value,
        value=one["ours"],
        active=OURS in values,
        missing="" if losses else "losses",
        detail=Detail(
            tuple(
                Inferer(
                    address,
                    value,
                    losses["inferers"].get(address) if losses else None,
                    one["scores"].get(address),
                    one["rewards"].get(address),
                    seen["one_out"].get(address) if seen else None,
                )
                for address, value in values.items()
            )
        ).packed(),
    )
    if seen:
        epoch = epoch._replace(
            combined=seen["combined"], combined_without=seen["one_out"].get(OURS), naive=seen["naive"]
        )
    if losses:
        epoch = epoch._replace(
            combined_loss=losses["combined"],
            combined_loss_without=losses["one_out"].get(OURS),
            naive_loss=losses["naive"],
            loss=losses["inferers"].get(OURS),
            score=one["scores"].get(OURS),
            reward=one["rewards"].get(OURS),
            settled_height=one["settled"],
        )
    return epoch, _answer(network, topic_id, nonce, one["ours"], block_ms) if one["ours"] else None


def _answer(network: str, topic_id: int, nonce: int, value: str, block_ms: int) -> Answer:
    return Answer(
        network,
        topic_id,
        nonce,
        value,
        "persistence",
        "BTCUSDT",
        "price",
        10,
        float(value),
        block_ms,
        block_ms,
        block_ms + 3_000,
        "SIMULATED",
        venue="binance",
        forecast="naive",
        asked_ms=block_ms + 2_800,
        base_ms=block_ms // MINUTE_MS * MINUTE_MS,
        base_source="chain",
        block_ms=block_ms,
    )
