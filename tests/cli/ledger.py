"""A data folder with a config of three topics, and a ledger with answers and scores on disk, for the verbs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from core.clock import DAY_MS, MINUTE_MS
from ledger.answers import Answer
from ledger.schema import answers, make_tables, scores

NETWORK = "allora-testnet-1"
FIRST, SECOND = "minute-20261122T084500Z-1a2b3c", "minute-20261124T084500Z-4d5e6f"
MISSING = "binance: the candle of 2026-11-25T00:00:00.000Z to 2026-11-25T00:01:00.000Z is missing"
HORIZONS_MIN = {79: 15, 64: 480, 1: 10}
LOSSES = {79: "mse", 64: "czar", 1: "mse"}
SYMBOLS = {79: ("BTCUSDT", "volatility std_horizon"), 64: ("BTCUSDT", "log_return"), 1: ("ETHUSDT", "price")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The folder, and the rows that were written into its ledger, as plain values by column."""

    folder: Path
    rows: Sequence[Mapping[str, Any]]
    environment: Mapping[str, str]

    def of(self, topic_id: int, since_ms: int, until_ms: int) -> list[Mapping[str, Any]]:
        """The rows of a topic whose interval ended in ``[since_ms, until_ms)``."""
        return [row for row in self.rows if row["topic_id"] == topic_id and since_ms <= row["end_ms"] < until_ms]


def write_config(folder: Path, topic_ids: Iterable[int] = HORIZONS_MIN) -> Path:
    """Write a config.json with some topics of the example."""
    config = json.loads(Path("config.example.json").read_text())
    config["worker"] = [one for one in config["worker"] if one["topicId"] in topic_ids]
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def answer_of(topic_id: int, height: int, base_ms: int, **changes: Any) -> Answer:
    """An answer to one of the three topics, given a minute after its base."""
    symbol, target = SYMBOLS[topic_id]
    given = Answer(
        network=NETWORK,
        topic_id=topic_id,
        height=height,
        value="0.001",
        version=FIRST,
        symbol=symbol,
        target=target,
        horizon_min=HORIZONS_MIN[topic_id],
        anchor=2000.0,
        anchor_asof_ms=base_ms + MINUTE_MS,
        asof_ms=base_ms + MINUTE_MS,
        answered_ms=base_ms + MINUTE_MS,
        market="BINANCE",
        venue="binance",
        forecast="network",
        asked_ms=base_ms + 5000,
        base_ms=base_ms,
        base_source="chain",
        block_ms=base_ms + 4000,
        elapsed_ms=MINUTE_MS,
    )
    return given._replace(**changes)


def score_row(answer: Answer, rng: np.random.Generator) -> dict[str, Any]:
    """A row of scores for an answer, of invented losses."""
    loss, naive_loss = (float(number) for number in rng.exponential((0.8e-5, 1e-5)))
    right = None if rng.random() < 0.1 else bool(rng.random() < 0.55)
    return {
        "network": answer.network,
        "topic_id": answer.topic_id,
        "height": answer.height,
        "answered_ms": answer.answered_ms,
        "version": answer.version,
        "forecast": answer.forecast,
        "start_ms": answer.base_ms,
        "end_ms": answer.base_ms + answer.horizon_min * MINUTE_MS,
        "scored_ms": answer.base_ms + answer.horizon_min * MINUTE_MS + 90_000,
        "reason": "",
        "venue": "binance",
        "value": float(answer.value),
        "truth": float(rng.normal(0, 0.001)),
        "truth_sd": 1e-6,
        "naive": 0.0,
        "plain_naive": 0.0,
        "loss": loss,
        "naive_loss": naive_loss,
        "plain_naive_loss": naive_loss * 1.1,
        "right_direction": right,
        "error_bp": float(rng.normal(0, 12)),
        "loss_name": LOSSES[answer.topic_id],
    }


NOT_SCORED = ("truth", "truth_sd", "naive", "plain_naive", "loss", "naive_loss", "plain_naive_loss", "error_bp")


def not_scorable(row: dict[str, Any], reason: str = MISSING) -> dict[str, Any]:
    """The same row of an answer that cannot be scored."""
    return row | dict.fromkeys((*NOT_SCORED, "right_direction")) | {"reason": reason, "loss_name": ""}


def make_ledger(
    folder: Path,
    now_ms: int,
    *,
    days: int = 5,
    every_min: int = 5,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row,
) -> Ledger:
    """Write a ledger with an answer of each topic every ``every_min`` minutes and a score of each that is over.

    Every 97th cannot be scored, the second half is of another version, and every tenth is the naive forecast's.

    Args:
        change: is called for each row of scores before it is written.
    """
    rng = np.random.default_rng(0)
    given, scored = [], []
    first_ms = (now_ms - days * DAY_MS) // MINUTE_MS * MINUTE_MS
    for topic_id, horizon_min in HORIZONS_MIN.items():
        for number, base_ms in enumerate(range(first_ms, now_ms - 2 * MINUTE_MS, every_min * MINUTE_MS)):
            version = FIRST if base_ms < now_ms - days * DAY_MS / 2 else SECOND
            version, forecast = ("persistence", "naive") if number % 10 == 3 else (version, "network")
            answer = answer_of(topic_id, 1000 + 60 * number, base_ms, version=version, forecast=forecast)
            given.append(answer)
            if base_ms + horizon_min * MINUTE_MS <= now_ms:
                row = score_row(answer, rng)
                scored.append(change(not_scorable(row) if number % 97 == 50 else row))
    write_ledger(folder / "ledger.sqlite3", given, scored)
    environment = {"DATA_DIR": str(folder), "CONFIG_FILE": str(write_config(folder)), "COLUMNS": "80"}
    return Ledger(folder=folder, rows=scored, environment=environment)


def write_ledger(path: Path, given: Sequence[Answer], scored: Sequence[Mapping[str, Any]]) -> None:
    """Write a ledger of this release's schema, as the processes leave it."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        make_tables(connection)
    with engine.begin() as connection:
        if given:
            connection.execute(answers.insert(), [answer._asdict() for answer in given])
        if scored:
            connection.execute(scores.insert(), list(scored))
    engine.dispose()
