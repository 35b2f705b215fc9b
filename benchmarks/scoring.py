"""Measure how long scoring takes, beside the required figure.

    python -m benchmarks.scoring [--ledger-days 0]

Fifty topics of ten symbols, every target, horizons of 5 minutes to 24 hours, every kind of loss; the store holds forty
days of minutes and 260 of hours. One day of answers at 5-minute epochs, 14,400 rows, is scored from nothing. With
--ledger-days so many more days of answers lie in the ledger, already scored: the sweep goes through them too.
Wall clock, CPU time, and the memory of the process, of which numpy, polars and the rest take a part before.
"""

import argparse
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
    before_mb = psutil.Process().memory_info().rss / 1e6
    with tempfile.TemporaryDirectory() as name:
        stand = Stand(Path(name), topics())
        day_ms = 20_000 * DAY_MS
        for number, symbol in enumerate(SYMBOLS):
            for interval_ms, days in ((MINUTE_MS, STORED_DAYS), (HOUR_MS, STORED_HOURS_DAYS)):
                start_ms = day_ms - (days - 3) * DAY_MS
                walk = random_walk_klines(days * DAY_MS // interval_ms, interval_ms, number, start_ms)
                stand.store(symbol, walk)
        stored = {symbol: stand.homes.read(symbol, MINUTE_MS, day_ms, day_ms + DAY_MS) for symbol in SYMBOLS}
        bases = range(day_ms, day_ms + DAY_MS, EPOCH_MS)
        for topic in stand.topics:
            rows = answers_to(topic, stored[topic.symbol], bases, seed=topic.topic_id)
            stand.answer(rows)
            for back in range(1, options.ledger_days + 1):
                earlier(stand, rows, back * DAY_MS)
        built_mb = psutil.Process().memory_info().rss / 1e6
        with stand.engine.connect() as connection:
            answered = connection.execute(sa.text("SELECT count(*) FROM answers")).scalar_one()
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        made = stand.score_all(day_ms + 3 * DAY_MS)
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        idle_s = time.perf_counter()
        stand.scorer.step(day_ms + 3 * DAY_MS)
        idle_s = time.perf_counter() - idle_s
        with stand.engine.connect() as connection:
            bad = connection.execute(sa.select(sa.func.count()).where(scores.c.reason != "")).scalar_one()
        after_mb = psutil.Process().memory_info().rss / 1e6
        stand.close()
    rows_a_day = len(bases) * len(topics())
    show_goals(
        [
            Goal(
                what=f"scoring {made:,} of {answered:,} rows, wall clock",
                measured=f"{wall_s:.2f} s (CPU {cpu_s:.2f} s)",
                must=f"< {MOST_S:g} s",
                reached=wall_s < MOST_S and made == rows_a_day and not bad,
            ),
            Goal(what="a step when nothing is due", measured=f"{1000 * idle_s:.0f} ms"),
            Goal(
                what="memory: after imports, with the store written, after scoring",
                measured=f"{before_mb:.0f}, {built_mb:.0f}, {after_mb:.0f} MB",
            ),
        ]
    )


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
