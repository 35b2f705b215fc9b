"""Measure how long scoring takes, beside the required figure.

    python -m benchmarks.scoring [--ledger-days 0]

Fifty topics of ten symbols, every target, horizons of 5 minutes to 24 hours, every kind of loss; the store holds forty
days of minutes and 260 of hours. One day of answers at 5-minute epochs, 14,400 rows, is scored from nothing, in a
process of its own. With --ledger-days so many more days of answers lie in the ledger, already scored, so that the sweep
goes through them too. Wall clock, CPU time, and the memory of that process before the first and after the last score.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import sqlalchemy as sa

from benchmarks.tools.goals import Goal, show_goals
from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.topic import Target, Topic
from ledger.answers import Answer
from ledger.schema import scores
from ledger.scores import Score, start_ms_of
from tests.fakes.klines import random_walk_klines
from tests.monitor.stand import Stand, answers_to, topic_of

SYMBOLS = [f"{token}USDT" for token in ("BTC", "ETH", "SOL", "BNB", "ARB", "XRP", "ADA", "DOGE", "AVAX", "LINK")]
MIX = (
    (Target.PRICE, 5, "mse"), (Target.LOG_RETURN, 60, "czar"), (Target.VOLATILITY, 15, "mse"),
    (Target.PRICE, 1440, "mae"), (Target.VOLATILITY, 1440, "mse"), (Target.PRICE, 10, "ztae"),
    (Target.LOG_RETURN, 480, "zptae"), (Target.VOLATILITY, 60, "mae"), (Target.LOG_RETURN, 1440, "czar"),
    (Target.PRICE, 20, "mse"),
)  # fmt: skip
SCORED_DAY_MS = 20_000 * DAY_MS
EPOCH_MS, STORED_DAYS, STORED_HOURS_DAYS = 5 * MINUTE_MS, 40, 260
MOST_S = 5.0


def topics() -> list[Topic]:
    """Return fifty topics."""
    asked = [
        (symbol, *MIX[(number * 5 + place) % len(MIX)]) for number, symbol in enumerate(SYMBOLS) for place in range(5)
    ]
    return [
        topic_of(number, target, horizon_min, loss, symbol)
        for number, (symbol, target, horizon_min, loss) in enumerate(asked, 1)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger-days", type=int, default=0, help="of answers that have their scores")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        stand = Stand(Path(name), topics())
        answered = build(stand, options.ledger_days)
        stand.close()
        child = subprocess.run(
            [sys.executable, "-c", f"import monitor; from benchmarks.scoring import score; score({name!r})"],
            stdout=subprocess.PIPE,
            check=True,
        )
    found = json.loads(child.stdout)
    is_all = found["made"] == DAY_MS // EPOCH_MS * len(topics()) and not found["unscored"]
    show_goals(
        [
            Goal(
                what=f"scoring {found['made']:,} of {answered:,} rows, wall clock",
                measured=f"{found['wall_s']:.2f} s (CPU {found['cpu_s']:.2f} s)",
                must=f"< {MOST_S:g} s",
                reached=found["wall_s"] < MOST_S and is_all,
            ),
            Goal(what="until the sweep has gone through all answers", measured=f"{found['swept_s']:.2f} s"),
            Goal(what="a step when nothing is due", measured=f"{1000 * found['idle_s']:.0f} ms"),
            Goal(
                what="memory of the process, before the first score and after the last",
                measured=f"{found['before_mb']:.0f}, {found['after_mb']:.0f} MB",
            ),
        ]
    )


def build(stand: Stand, ledger_days: int) -> int:
    """Fill store and ledger; returns the number of answers."""
    for number, symbol in enumerate(SYMBOLS):
        for interval_ms, days in ((MINUTE_MS, STORED_DAYS), (HOUR_MS, STORED_HOURS_DAYS)):
            start_ms = SCORED_DAY_MS - (days - 3) * DAY_MS
            stand.store(symbol, random_walk_klines(days * DAY_MS // interval_ms, interval_ms, number, start_ms))
    end_ms = SCORED_DAY_MS + DAY_MS
    stored = {symbol: stand.homes.read(symbol, MINUTE_MS, SCORED_DAY_MS, end_ms) for symbol in SYMBOLS}
    rows = [
        answers_to(topic, stored[topic.symbol], range(SCORED_DAY_MS, end_ms, EPOCH_MS), seed=topic.topic_id)
        for topic in stand.topics
    ]
    for back in range(ledger_days, 0, -1):
        for of_topic in rows:
            earlier(stand, of_topic, back * DAY_MS)
    for of_topic in rows:
        stand.answer(of_topic)
    return len(rows) * len(rows[0]) * (1 + ledger_days)


def score(folder: str) -> None:
    """Score what is due, and print what it took as JSON."""
    now_ms, process = SCORED_DAY_MS + 3 * DAY_MS, psutil.Process()
    stand = Stand(Path(folder), topics())
    before = process.memory_info().rss
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    made = stand.score_all(now_ms)
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    while stand.scorer.is_sweeping:
        stand.scorer.step(now_ms)
    swept_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    stand.scorer.step(now_ms)
    idle_s = time.perf_counter() - began_s
    with stand.engine.connect() as connection:
        unscored = connection.execute(sa.select(sa.func.count()).where(scores.c.reason != "")).scalar_one()
    stand.close()
    found = {"made": made, "unscored": unscored, "wall_s": wall_s, "cpu_s": cpu_s, "idle_s": idle_s}
    memory = {"before_mb": before / 1e6, "after_mb": process.memory_info().rss / 1e6}
    print(json.dumps(found | memory | {"swept_s": swept_s}))


def earlier(stand: Stand, rows: list[Answer], back_ms: int) -> None:
    """Write answers of earlier days with their scores."""
    moved = [
        row._replace(
            height=(row.height or 0) - back_ms // MINUTE_MS,
            answered_ms=row.answered_ms - back_ms,
            base_ms=row.base_ms - back_ms,
            block_ms=(row.block_ms or 0) - back_ms,
        )
        for row in rows
    ]
    stand.answer(moved)
    numbers = np.random.default_rng(back_ms // DAY_MS).random((len(moved), 3)).tolist()
    stand.book.write(
        [
            Score(
                network=row.network,
                topic_id=row.topic_id,
                height=row.height or 0,
                answered_ms=row.answered_ms,
                version=row.version,
                forecast=row.forecast,
                start_ms=start_ms_of(row),
                end_ms=start_ms_of(row) + row.horizon_min * MINUTE_MS,
                scored_ms=1,
                venue=row.venue,
                loss=loss,
                naive_loss=naive_loss,
                plain_naive_loss=plain_naive_loss,
            )
            for row, (loss, naive_loss, plain_naive_loss) in zip(moved, numbers, strict=True)
        ]
    )


if __name__ == "__main__":
    main()
