"""Scores in the database: what is due, what replaces what, and what readers see."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from core.clock import MINUTE_MS
from core.topic import Target
from ledger.answers import Answer
from ledger.database import FAULTS
from ledger.schema import answers, make_ready
from ledger.scores import CandleDay, Score, ScoreBook, start_ms_of
from tests.fakes.clock import BASE_MS, FakeClock
from tests.monitor.stand import BLOCK_MS, topic_of

RETURN_10M, PRICE_1H, OTHER = (
    topic_of(1, Target.LOG_RETURN, 10),
    topic_of(2, Target.PRICE, 60),
    topic_of(3, Target.PRICE, 10),
)
END_MS = BASE_MS + 10 * MINUTE_MS


def answer(height: int, topic_id: int = 1, horizon_min: int = 10, base_ms: int = BASE_MS) -> Answer:
    return Answer(
        network="allora-testnet-1",
        topic_id=topic_id,
        height=height,
        value="0.001",
        version="v1",
        symbol="ETHUSDT",
        target=Target.LOG_RETURN,
        horizon_min=horizon_min,
        anchor=2000.0,
        anchor_asof_ms=base_ms,
        asof_ms=base_ms,
        answered_ms=base_ms + height,
        market="BINANCE",
        base_ms=base_ms,
    )


def score(of: Answer, loss: float = 1.0, **more: Any) -> Score:
    start_ms = start_ms_of(of)
    return Score(
        network=of.network,
        topic_id=of.topic_id,
        height=of.height or 0,
        answered_ms=of.answered_ms,
        version=of.version,
        forecast="network",
        start_ms=start_ms,
        end_ms=start_ms + of.horizon_min * MINUTE_MS,
        scored_ms=1,
        venue="binance",
        value=0.001,
        truth=0.002,
        truth_sd=0.0,
        naive=0.0,
        plain_naive=0.0,
        loss=loss,
        naive_loss=2.0,
        plain_naive_loss=3.0,
    )._replace(**more)


class Stand:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "ledger.sqlite3"
        self.engine = sa.create_engine(f"sqlite:///{self.file}")
        make_ready(self.engine, FakeClock())
        self.book = ScoreBook(f"sqlite:///{self.file}")

    def answer(self, *rows: Answer) -> None:
        with self.engine.begin() as connection:
            connection.execute(answers.insert(), [row._asdict() for row in rows])

    def change(self, height: int, **values: object) -> None:
        with self.engine.begin() as connection:
            connection.execute(answers.update().where(answers.c.height == height).values(**values))

    def due(self, now_ms: int = END_MS, limit: int = 100, **more: int) -> list[int | None]:
        return [row.height for row in self.book.due([RETURN_10M, PRICE_1H], now_ms, limit, **more)]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path)
    yield made
    made.book.close()
    made.engine.dispose()


def test_an_answer_is_due_when_its_interval_is_over_and_not_twice(stand: Stand) -> None:
    stand.answer(answer(5), answer(7, horizon_min=60, topic_id=2), answer(9, topic_id=3))
    assert stand.due(END_MS - 1) == []
    assert stand.due() == [5], "the second is not over, the third belongs to no configured topic"
    assert stand.due(END_MS + 50 * MINUTE_MS, horizon_min=60) == [7]
    stand.book.write([score(answer(5))])
    assert stand.due() == []


def test_the_interval_begins_with_the_blocks_minute_once_that_is_known(stand: Stand) -> None:
    stand.answer(answer(5))
    stand.book.write([score(answer(5))])
    stand.change(5, block_ms=BASE_MS + BLOCK_MS)
    assert stand.due() == [], "the block lies in the minute that was guessed"
    stand.change(5, block_ms=BASE_MS - 1)
    (due,) = stand.book.due([RETURN_10M], END_MS, 10)
    assert start_ms_of(due) == BASE_MS - MINUTE_MS
    stand.book.write([score(due)])
    assert stand.due() == []


def test_another_answer_to_the_same_height_is_due(stand: Stand) -> None:
    stand.answer(answer(5))
    stand.book.write([score(answer(5))])
    stand.change(5, answered_ms=BASE_MS + 6)
    assert stand.due() == [5]


def test_due_answers_come_in_the_order_of_their_times_up_to_a_limit(stand: Stand) -> None:
    stand.answer(*(answer(height) for height in (9, 3, 5, 7)))
    assert stand.due(limit=3) == [3, 5, 7]
    assert stand.due(since_ms=BASE_MS + 5, until_ms=BASE_MS + 9) == [5, 7]
    assert stand.book.first_ms(BASE_MS + 4) == BASE_MS + 5
    assert stand.book.first_ms(BASE_MS + 10) is None


def test_a_score_takes_the_place_of_an_earlier_one(stand: Stand) -> None:
    stand.answer(answer(5))
    stand.book.write([score(answer(5), 1.0)], [CandleDay("binance", "ETHUSDT", MINUTE_MS, 7, 1 << 43)])
    stand.book.write([score(answer(5), 0.5)], [CandleDay("binance", "ETHUSDT", MINUTE_MS, 7, 12)])
    assert stand.book.recent(RETURN_10M, 0).loss.tolist() == [0.5]
    assert stand.book.days("binance", "ETHUSDT", MINUTE_MS) == {7: 12}
    assert stand.book.series() == [("binance", "ETHUSDT", MINUTE_MS)]


def test_scores_are_made_again_by_interval_and_venue(stand: Stand) -> None:
    rows = [answer(height, base_ms=BASE_MS + height * MINUTE_MS) for height in range(4)]
    stand.answer(*rows)
    stand.book.write([score(row, venue="kraken" if row.height == 1 else "binance") for row in rows])
    later_ms = END_MS + 60 * MINUTE_MS
    assert stand.book.make_again(RETURN_10M, END_MS, END_MS + 2 * MINUTE_MS, venue="kraken") == rows[1].answered_ms
    assert stand.due(later_ms) == [1]
    assert stand.book.make_again(RETURN_10M, END_MS + 2 * MINUTE_MS, later_ms, but_venue="binance") is None
    assert stand.book.make_again(PRICE_1H, 0, later_ms) is None
    assert stand.book.make_again(RETURN_10M, END_MS + 2 * MINUTE_MS, later_ms) == rows[2].answered_ms
    assert stand.due(later_ms) == [1, 2, 3]
    assert len(stand.book.recent(RETURN_10M, 0)) == 4, "until then the old scores are shown"


def test_columns_have_what_was_scored_and_nothing_else(stand: Stand) -> None:
    rows = [answer(height, base_ms=BASE_MS + height * MINUTE_MS) for height in range(4)]
    stand.book.write(
        [score(rows[2], right_direction=True), score(rows[0]), score(rows[1], reason="a candle is missing")]
    )
    stand.book.write([score(rows[3], right_direction=False)])
    found = stand.book.columns("allora-testnet-1/1", 0)
    assert found.height.tolist() == [0, 2, 3]
    assert found.end_ms.tolist() == [END_MS + minutes * MINUTE_MS for minutes in (0, 2, 3)]
    np.testing.assert_array_equal(found.right_direction, [np.nan, 1, 0])
    np.testing.assert_array_equal(found.error_bp, [np.nan] * 3)
    assert found.version.tolist() == ["v1"] * 3
    assert found.truth.tolist() == [0.002] * 3
    recent = stand.book.recent(RETURN_10M, END_MS + MINUTE_MS, END_MS + 3 * MINUTE_MS)
    assert recent.height.tolist() == [2]
    assert len(stand.book.columns(OTHER, 0)) == 0


def test_answers_come_with_their_scores_newest_first(stand: Stand) -> None:
    rows = [answer(height) for height in range(5)]
    stand.answer(*rows)
    stand.book.write([score(rows[3], right_direction=True)])
    assert stand.book.answers_of(RETURN_10M, 2) == [(rows[4], None), (rows[3], score(rows[3], right_direction=True))]
    assert stand.book.answers_of("allora-testnet-1/1", 9, before_height=2) == [(rows[1], None), (rows[0], None)]


def test_a_stream_has_each_answer_of_a_time_once(stand: Stand) -> None:
    rows = [answer(height) for height in range(7)] + [answer(height, topic_id=2) for height in range(3)]
    stand.answer(*rows)
    stand.book.write([score(rows[3])])
    batches = stand.book.stream([RETURN_10M, "allora-testnet-1/2"], BASE_MS + 1, rows_together=2)
    found = [pair for batch in batches for pair in batch]
    assert found == [(row, score(row) if row is rows[3] else None) for row in rows if row.height]


def test_a_missing_file_is_a_fault_and_stays_missing(tmp_path: Path) -> None:
    book = ScoreBook(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    with pytest.raises(FAULTS):
        book.due([RETURN_10M], END_MS, 1)
    with pytest.raises(FAULTS):
        book.write([score(answer(5))])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_took_the_place_of_another_is_read(stand: Stand) -> None:
    """Inference sets a damaged file aside and begins a new one."""
    stand.answer(answer(5))
    assert stand.due() == [5]
    stand.engine.dispose()
    stand.file.rename(stand.file.with_suffix(".damaged"))
    make_ready(sa.create_engine(f"sqlite:///{stand.file}", poolclass=sa.NullPool), FakeClock())
    assert stand.due() == []


def test_a_locked_database_is_a_fault(stand: Stand) -> None:
    holder = sqlite3.connect(stand.file)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(FAULTS, match="locked"):
        stand.book.write([score(answer(5))])
    holder.rollback()
    holder.close()
    stand.book.write([score(answer(5))])
    assert len(stand.book.recent(RETURN_10M, 0)) == 1
