"""Every answer is scored once, from candles that are there, and again from candles that were repaired."""

import math
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.losses import loss_named
from core.topic import Target, Topic
from klines.returns import trailing_return
from klines.truth import truth_of
from ledger import schema
from ledger.answers import Answer
from ledger.scores import Score, start_ms_of
from market.store.home import write_homes
from monitor.scoring import span_of
from monitor.skills import SkillBook
from tests.fakes.clock import START_MS
from tests.fakes.klines import only, random_walk_klines, times
from tests.monitor.stand import NETWORK, VENUE, Stand, answers_to, topic_of

EPOCH_MS = 5 * MINUTE_MS
DAYS = 6
FIRST_MS = START_MS - 3 * DAY_MS
WALK = random_walk_klines(DAYS * 1440, start_ms=FIRST_MS)
END_MS = FIRST_MS + DAYS * DAY_MS
PRICE, RETURN, VOLATILE = (
    topic_of(1, Target.PRICE, 10),
    topic_of(2, Target.LOG_RETURN, 60, "zptae"),
    topic_of(3, Target.VOLATILITY, 15),
)
TOPICS = (PRICE, RETURN, VOLATILE)


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path, TOPICS)
    yield made
    made.close()


def scores(stand: Stand, topics: Sequence[Topic] = TOPICS) -> dict[tuple[int, int], Score]:
    """The scores by topic and height."""
    pairs = (pair for batch in stand.book.stream(topics) for pair in batch)
    return {(score.topic_id, score.height): score for _, score in pairs if score}


def hour_of(topic: Topic, first_ms: int = START_MS, epochs: int = 12) -> list[Answer]:
    return answers_to(topic, WALK, range(first_ms, first_ms + epochs * EPOCH_MS, EPOCH_MS), seed=topic.topic_id)


def volatility(closes: Sequence[float]) -> float:
    """Of one-minute log-returns over these closes, for the whole of them."""
    returns = np.diff(np.log(closes))
    return float(np.std(returns, ddof=1)) * math.sqrt(len(returns))


def separately(topic: Topic, answer: Answer, close: Mapping[int, float]) -> tuple[float, float, float]:
    """The truth, the naive forecast that knows what the answer knew, and the plain one; from closes by their time.

    The answers of these tests know the first minute of their interval, and the move from there to a newest price.
    """
    start_ms, horizon_ms, minutes = start_ms_of(answer), topic.horizon_ms, topic.horizon_min
    assert MINUTE_MS < answer.elapsed_ms < 2 * MINUTE_MS
    first, second, last = close[start_ms], close[start_ms + MINUTE_MS], close[start_ms + horizon_ms]
    known = np.array([math.log(second / first), math.log(answer.anchor / second)])
    if topic.target is Target.PRICE:
        return last, answer.anchor * answer.truth_ratio, first
    if topic.target is Target.LOG_RETURN:
        return math.log(last / first), float(known.sum()), 0.0

    def closes(end_ms: int) -> list[float]:
        return [close[ms] for ms in range(end_ms - horizon_ms, end_ms + 1, MINUTE_MS)]

    before = volatility(closes(start_ms))
    to_come = (minutes - answer.elapsed_ms / MINUTE_MS) * volatility(closes(answer.asof_ms)) ** 2 / minutes
    squares, square = float(known @ known) + to_come, float(known.sum()) ** 2 + to_come
    whole = math.sqrt((squares - square / minutes) / (minutes - 1) * minutes)
    return volatility(closes(start_ms + horizon_ms)), whole, before


def test_every_score_equals_a_separate_calculation_from_the_store(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    answers = [answer for topic in TOPICS for answer in hour_of(topic, epochs=100)]
    stand.answer(answers)
    assert stand.score_all(END_MS) == 300
    found = scores(stand)
    past = trailing_return(WALK.between(0, START_MS), 60)
    std = float(past[np.isfinite(past)].std())
    stored = stand.homes.read("ETHUSDT", MINUTE_MS, FIRST_MS, END_MS)
    close = dict(zip((stored.open_time_ms + MINUTE_MS).tolist(), stored.close.tolist(), strict=True))
    for answer in answers:
        topic, score = TOPICS[answer.topic_id - 1], found[answer.topic_id, answer.height or 0]
        start_ms, value = start_ms_of(answer), float(answer.value)
        truth, naive, plain = separately(topic, answer, close)
        judged = truth_of(topic, stored.between(*span_of(topic, start_ms, MINUTE_MS)), start_ms, VENUE)
        assert (score.reason, score.venue, score.value) == ("", VENUE, value)
        assert (score.truth, score.truth_sd) == (judged.value, judged.sd)
        if topic.target is not Target.PRICE:  # sums of logarithms are rounded in another order here
            assert (score.truth, score.naive, score.plain_naive) == pytest.approx((truth, naive, plain), rel=1e-12)
            truth, naive, plain = judged.value, score.naive or 0.0, score.plain_naive or 0.0
        assert (score.truth, score.naive, score.plain_naive) == (truth, naive, plain)
        loss = loss_named(topic.loss)
        losses = tuple(float(loss(np, np.float64(truth), np.float64(one), std)) for one in (value, naive, plain))
        assert (score.loss, score.naive_loss, score.plain_naive_loss) == losses


def test_nothing_is_scored_twice_also_after_a_restart(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    stand.answer(hour_of(PRICE))
    assert stand.score_all(END_MS) == 12
    before = scores(stand)
    stand.scorer = stand.restarted()
    assert stand.score_all(END_MS + HOUR_MS) == 0
    assert scores(stand) == before


def test_an_answer_is_scored_when_the_candle_after_its_interval_is_stored(stand: Stand) -> None:
    """That candle says how sure the truth is; no score is made of a candle that has not come."""
    stand.answer(hour_of(PRICE, epochs=1))
    end_ms = START_MS + 10 * MINUTE_MS
    stand.store("ETHUSDT", WALK.between(0, end_ms))
    assert stand.score_all(END_MS) == 0
    stand.store("ETHUSDT", WALK.between(0, end_ms + MINUTE_MS))
    assert stand.scorer.step(end_ms - 1) == 0, "the interval is not over"
    assert stand.score_all(end_ms + MINUTE_MS) == 1


def test_scores_follow_the_answers_as_they_come(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    for epoch in range(30):
        base_ms = START_MS + epoch * EPOCH_MS
        stand.answer(answers_to(PRICE, WALK, [base_ms]))
        made = stand.score_all(base_ms + 2 * MINUTE_MS)
        assert made == (1 if epoch >= 2 else 0), "that of two epochs before is over"


def test_a_row_that_a_journal_brings_in_late_is_found_within_a_day(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    stand.answer(hour_of(PRICE, START_MS + DAY_MS))
    assert stand.score_all(END_MS) == 12
    stand.answer(hour_of(PRICE, START_MS))
    assert stand.score_all(END_MS + HOUR_MS) == 0
    assert stand.score_all(END_MS + DAY_MS) == 12


def test_a_row_that_was_answered_while_the_clock_ran_ahead_is_scored(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    first, *others = hour_of(PRICE)
    stand.answer([first._replace(answered_ms=END_MS + 40 * DAY_MS), *others])
    assert stand.score_all(END_MS) == 12
    assert stand.score_all(END_MS) == 0


def test_the_times_of_blocks_that_come_late_move_the_interval(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    stand.answer([answer._replace(block_ms=None) for answer in hour_of(PRICE, epochs=3)])
    now_ms = START_MS + HOUR_MS
    assert stand.score_all(now_ms) == 3
    with stand.engine.begin() as connection:
        moved = schema.answers.update().where(schema.answers.c.height == START_MS // MINUTE_MS)
        connection.execute(moved.values(block_ms=START_MS - 1))
    assert stand.score_all(now_ms + HOUR_MS) == 1
    assert scores(stand)[1, START_MS // MINUTE_MS].start_ms == START_MS - MINUTE_MS


def test_months_away_are_caught_up_with(tmp_path: Path) -> None:
    stand = Stand(tmp_path, [PRICE])
    days = 90
    walk = random_walk_klines(days * 1440, start_ms=FIRST_MS)
    stand.store("ETHUSDT", walk)
    bases = range(FIRST_MS + DAY_MS, FIRST_MS + (days - 1) * DAY_MS, HOUR_MS)
    stand.answer(answers_to(PRICE, walk, bases))
    assert stand.score_all(FIRST_MS + days * DAY_MS) == len(bases)
    assert not [score for score in scores(stand, [PRICE]).values() if score.reason]
    stand.close()


def test_a_missing_candle_is_waited_for_a_day_and_then_the_reason_is_kept(stand: Stand) -> None:
    hole_ms = START_MS + 9 * MINUTE_MS  # the candle that closes at the end of the first interval
    holed = only(WALK, np.flatnonzero(WALK.open_time_ms != hole_ms))
    stand.answer([*hour_of(PRICE), *hour_of(VOLATILE)])
    stand.store("ETHUSDT", holed.between(0, hole_ms + DAY_MS))
    stand.score_all(hole_ms + DAY_MS)
    assert (1, START_MS // MINUTE_MS) not in scores(stand)
    stand.store("ETHUSDT", holed)
    assert stand.score_all(END_MS) == 8, "two prices and six volatilities read it, before the base or after"
    bad = {key: score for key, score in scores(stand).items() if score.reason}
    assert len(bad) == 8
    assert "2023-11-15T00:09" in bad[1, START_MS // MINUTE_MS].reason
    assert all(score.loss is None and score.truth is None for score in bad.values())
    stand.store("ETHUSDT", WALK)
    assert stand.score_all(END_MS + 2 * HOUR_MS) > 0
    assert not [score for score in scores(stand).values() if score.reason], "the hole was filled"


def test_a_candle_that_the_venue_says_it_lacks_is_not_waited_for(stand: Stand) -> None:
    hole_ms = START_MS + 9 * MINUTE_MS
    holed = only(WALK, np.flatnonzero(WALK.open_time_ms != hole_ms))
    stand.answer(hour_of(PRICE, epochs=1))
    now_ms = hole_ms + 90 * MINUTE_MS
    stand.store("ETHUSDT", holed.between(0, now_ms))
    assert stand.score_all(now_ms) == 0
    stand.homes.of(VENUE).remember_absent("ETHUSDT", MINUTE_MS, [(hole_ms, hole_ms + MINUTE_MS)], now_ms)
    assert stand.score_all(now_ms + MINUTE_MS) == 1
    assert "missing" in scores(stand)[1, START_MS // MINUTE_MS].reason


def test_a_symbol_that_waits_holds_up_no_other(tmp_path: Path) -> None:
    other = topic_of(9, Target.PRICE, 10, symbol="BTCUSDT")
    stand = Stand(tmp_path, [PRICE, other])
    stand.store("ETHUSDT", WALK.between(0, START_MS))
    stand.store("BTCUSDT", WALK)
    stand.answer([*hour_of(PRICE, epochs=200), *hour_of(other, epochs=200)])
    assert stand.score_all(END_MS) == 200
    stand.store("ETHUSDT", WALK)
    assert stand.score_all(END_MS) == 200
    stand.close()


def test_a_symbol_that_waits_holds_up_no_repair_of_another(tmp_path: Path) -> None:
    other = topic_of(9, Target.PRICE, 10, symbol="BTCUSDT")
    stand = Stand(tmp_path, [PRICE, other])
    stand.store("ETHUSDT", WALK.between(0, START_MS - DAY_MS))
    stand.store("BTCUSDT", WALK)
    stand.answer(hour_of(other))
    assert stand.score_all(END_MS) == 12
    stand.store("BTCUSDT", times(WALK.between(START_MS + 9 * MINUTE_MS, START_MS + 10 * MINUTE_MS), 1.01))
    assert stand.score_all(END_MS + 2 * HOUR_MS) == 12
    stand.close()


def test_a_sweep_makes_no_score_before_the_candle_after_the_interval(tmp_path: Path) -> None:
    other = topic_of(9, Target.PRICE, 10, symbol="BTCUSDT")
    stand = Stand(tmp_path, [PRICE, other])
    end_ms = START_MS + 10 * MINUTE_MS
    stand.store("ETHUSDT", WALK.between(0, end_ms))
    stand.store("BTCUSDT", WALK)
    stand.answer([*hour_of(PRICE, epochs=1), *hour_of(other)])
    assert stand.score_all(END_MS) == 12
    stand.store("ETHUSDT", WALK)
    assert stand.score_all(END_MS) == 1
    stand.close()


def test_a_store_that_is_gone_ends_a_sweep_until_it_is_back(stand: Stand) -> None:
    """Else the scorer would be called again at once, without end."""
    stand.store("ETHUSDT", WALK)
    (answer,) = hour_of(PRICE, epochs=1)
    days = range(FIRST_MS - 45 * DAY_MS, FIRST_MS, DAY_MS)
    stand.answer([answer._replace(height=day, answered_ms=day, base_ms=day, block_ms=day) for day in days])
    made = stand.scorer.step(END_MS)
    assert made < 45
    klines = stand.folder / "klines"
    klines.rename(klines.with_suffix(".away"))
    assert stand.scorer.step(END_MS) == 0
    assert not stand.scorer.is_sweeping
    klines.with_suffix(".away").rename(klines)
    assert made + stand.score_all(END_MS) == 45


def test_repaired_candles_make_their_scores_again_and_no_others(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    stand.answer([*hour_of(PRICE, START_MS), *hour_of(PRICE, START_MS + 2 * DAY_MS)])
    assert stand.score_all(END_MS) == 24
    before = scores(stand)
    wrong = WALK.between(START_MS + 9 * MINUTE_MS, START_MS + 10 * MINUTE_MS)
    stand.store("ETHUSDT", times(wrong, 1.01))
    assert stand.score_all(END_MS + 2 * HOUR_MS) == 12, "those of that day"
    after = scores(stand)
    changed = [key for key in after if after[key].truth != before[key].truth]
    assert changed == [(1, START_MS // MINUTE_MS)]
    assert after[changed[0]].truth == pytest.approx(1.01 * (before[changed[0]].truth or 0), rel=1e-12)


def test_candles_before_the_first_stored_are_noticed_when_they_come(stand: Stand) -> None:
    """A series that is begun anew has its newest candles first."""
    stand.store("ETHUSDT", WALK.between(START_MS + DAY_MS, END_MS))
    stand.answer(hour_of(PRICE))
    assert stand.score_all(END_MS) == 12
    assert all("is missing" in score.reason for score in scores(stand).values())
    stand.homes.of(VENUE).append("ETHUSDT", WALK)
    assert stand.score_all(END_MS + 2 * HOUR_MS) == 12
    assert not any(score.reason for score in scores(stand).values())


def test_after_a_repair_every_score_is_as_from_the_repaired_store(stand: Stand, tmp_path: Path) -> None:
    """The loss of a return is measured by the returns of the thirty days before, so a repair reaches far."""
    answers = [answer for topic in TOPICS for day in range(3) for answer in hour_of(topic, START_MS + day * DAY_MS)]
    stand.store("ETHUSDT", WALK)
    stand.answer(answers)
    stand.score_all(END_MS)
    stand.store("ETHUSDT", times(WALK.between(START_MS + 9 * MINUTE_MS, START_MS + 10 * MINUTE_MS), 1.01))
    stand.score_all(END_MS + 2 * HOUR_MS)
    (tmp_path / "anew").mkdir()
    anew = Stand(tmp_path / "anew", TOPICS)
    anew.homes = stand.homes
    anew.scorer = anew.restarted()
    anew.answer(answers)
    anew.score_all(END_MS)
    made = {key: score._replace(scored_ms=1) for key, score in scores(stand).items()}
    assert made == {key: score._replace(scored_ms=1) for key, score in scores(anew).items()}
    anew.close()


def test_a_repair_is_seen_after_a_restart_too(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    stand.answer(hour_of(VOLATILE))
    assert stand.score_all(END_MS) == 12
    stand.store("ETHUSDT", times(WALK.between(START_MS, START_MS + MINUTE_MS), 1.01))
    stand.scorer = stand.restarted()
    assert stand.score_all(END_MS) == 12


def test_candles_that_retention_deleted_cost_no_score(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    later = random_walk_klines(80 * 1440, start_ms=END_MS, first=float(WALK.close[-1]))
    stand.store("ETHUSDT", later)
    stand.answer(hour_of(PRICE))
    stand.score_all(END_MS)
    before = scores(stand)
    assert stand.homes.of(VENUE).trim("ETHUSDT", MINUTE_MS, later.end_ms - 40 * DAY_MS)
    stand.scorer = stand.restarted()
    assert stand.score_all(later.end_ms) == 0
    assert scores(stand) == before


def test_a_topic_whose_loss_changed_is_scored_again_and_losses_are_never_mixed(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    stand.answer([*hour_of(RETURN), *hour_of(PRICE)])
    assert stand.score_all(END_MS) == 24
    before = scores(stand)
    assert {score.loss_name for score in before.values()} == {"zptae", "mse"}
    changed = replace(RETURN, loss="mse")
    stand.topics = (PRICE, changed, VOLATILE)
    assert len(stand.book.recent(RETURN, 0)) == 12
    assert len(stand.book.recent(changed, 0)) == len(stand.book.columns(changed, 0)) == 0, "until they are made again"
    stand.skills = SkillBook(stand.book, stand.topics)
    stand.scorer = stand.restarted()
    assert stand.score_all(END_MS + HOUR_MS) == 12, "of that topic alone"
    after = scores(stand)
    for (topic_id, height), score in after.items():
        if topic_id == PRICE.topic_id:
            assert score == before[topic_id, height]
        else:
            assert score.loss_name == "mse"
            assert score.loss == pytest.approx(((score.truth or 0) - (score.value or 0)) ** 2)
    assert len(stand.book.recent(changed, 0)) == stand.skills.skill(changed.key, 30, END_MS).n == 12
    stand.scorer = stand.restarted()
    assert stand.score_all(END_MS + HOUR_MS) == 0


def test_a_new_home_venue_scores_again(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    stand.answer([*hour_of(PRICE), *hour_of(RETURN)])
    stand.score_all(END_MS)
    before = scores(stand)
    stand.store("ETHUSDT", times(WALK, 1.001), "kraken")
    write_homes(stand.folder / "klines", {"ETHUSDT": "kraken"})
    assert stand.score_all(END_MS) == 24
    after = scores(stand)
    assert {score.venue for score in after.values()} == {"kraken"}
    for key, score in after.items():
        factor = 1.001 if key[0] == 1 else 1
        assert score.truth == pytest.approx(factor * (before[key].truth or 0), abs=1e-12, rel=1e-12)
    assert stand.score_all(END_MS) == 0


def test_prices_are_scored_at_the_truth_venue(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    stand.store("ETHUSDT", times(WALK, 1.001), "kraken")
    stand.answer([*hour_of(PRICE), *hour_of(RETURN)])
    stand.scorer = stand.restarted(truth_venue="kraken")
    stand.score_all(END_MS)
    assert {(topic_id, score.venue) for (topic_id, _), score in scores(stand).items()} == {(1, "kraken"), (2, VENUE)}


def test_hours_tell_what_no_minutes_tell(tmp_path: Path) -> None:
    topic = topic_of(4, Target.LOG_RETURN, 480)
    stand = Stand(tmp_path, [topic])
    stand.answer(hour_of(topic))
    stand.store("ETHUSDT", random_walk_klines(24 * 30, HOUR_MS, start_ms=START_MS - 20 * DAY_MS))
    assert stand.score_all(END_MS) == 12
    sure = [score.start_ms for score in scores(stand, [topic]).values() if not score.truth_sd]
    assert sure == [START_MS], "only this one begins with an hour"
    stand.close()


def test_what_cannot_be_scored_says_why(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    first, second, third, fourth = hour_of(PRICE, epochs=4)
    strange = hour_of(topic_of(99, Target.PRICE, 10), epochs=1)
    answers = [first._replace(market="SIMULATED"), second._replace(symbol="BTCUSDT"), third._replace(value="?"), fourth]
    stand.answer([*answers, *strange])
    assert stand.score_all(END_MS) == 4, "a topic that is not configured is left alone"
    reasons = [score.reason for _, score in sorted(scores(stand).items())]
    assert "SIMULATED" in reasons[0]
    assert "BTCUSDT" in reasons[1]
    assert "float" in reasons[2]
    assert reasons[3] == ""


def test_no_failure_leaves_a_step_and_nothing_is_lost(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.store("ETHUSDT", WALK)
    stand.answer(hour_of(PRICE))
    ledger, klines = stand.folder / "ledger.sqlite3", stand.folder / "klines"
    stand.engine.dispose()  # takes the write-ahead log into the file
    ledger.rename(ledger.with_suffix(".away"))
    for _ in range(3):
        assert stand.scorer.step(END_MS) == 0
    assert "unable to open database file" in stand.scorer.fault
    assert capsys.readouterr().out.count("scores_not_made") == 1
    ledger.write_bytes(b"no database" * 1000)
    assert stand.scorer.step(END_MS) == 0
    assert "not a database" in stand.scorer.fault
    ledger.with_suffix(".away").rename(ledger)
    klines.rename(klines.with_suffix(".away"))
    klines.write_text("a file where the store was")
    assert stand.scorer.step(END_MS) == 0
    klines.unlink()
    klines.with_suffix(".away").rename(klines)
    with closing(sqlite3.connect(ledger)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert stand.scorer.step(END_MS) == 0
        assert "locked" in stand.scorer.fault
        holder.rollback()
    assert stand.score_all(END_MS) == 12


def test_a_damaged_month_is_scored_again_when_it_is_whole(stand: Stand) -> None:
    stand.store("ETHUSDT", WALK)
    stand.store("ETHUSDT", random_walk_klines(1440, start_ms=FIRST_MS - 40 * DAY_MS))
    stand.answer(hour_of(PRICE))
    stand.score_all(END_MS)
    before = scores(stand)
    month = stand.folder / "klines" / VENUE / "ETHUSDT-1m" / "2023-11.parquet"
    content = month.read_bytes()
    month.write_bytes(content[: len(content) // 2])
    stand.score_all(END_MS + 2 * HOUR_MS)
    month.write_bytes(content)
    stand.score_all(END_MS + 4 * HOUR_MS)
    after = scores(stand)
    assert {key: score._replace(scored_ms=0) for key, score in after.items()} == {
        key: score._replace(scored_ms=0) for key, score in before.items()
    }


CHILD = """
import sys
from pathlib import Path
from tests.monitor.stand import Stand
from tests.monitor.test_scorer import END_MS, TOPICS
stand = Stand(Path(sys.argv[1]), TOPICS)
print("ready", flush=True)
while stand.scorer.step(END_MS):
    pass
print("done" if not stand.scorer.fault else stand.scorer.fault, flush=True)
"""


def run_child(folder: Path, until: Callable[[], None]) -> bool:
    """Run a scorer in a process that is killed when ``until`` returns; True if it was done before."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.readline() == "ready\n"
        until()
        child.send_signal(signal.SIGKILL)
        return child.stdout.read() == "done\n"


def test_kills_at_any_moment_lose_no_score_and_make_none_twice(tmp_path: Path) -> None:
    stand = Stand(tmp_path, TOPICS)
    stand.store("ETHUSDT", WALK)
    stand.answer([answer for topic in TOPICS for answer in hour_of(topic, epochs=700)])
    chance = random.Random(0)
    counts, kills = [0], 0
    while not run_child(tmp_path, lambda: time.sleep(chance.uniform(0, 0.4))):
        kills += 1
        counts.append(len(scores(stand)))
        assert kills < 200
    found = scores(stand)
    assert len(found) == 2100
    assert counts == sorted(counts)
    with stand.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM scores")
        connection.exec_driver_sql("DELETE FROM candle_days")
    stand.scorer = stand.restarted()
    assert stand.score_all(END_MS) == 2100
    assert scores(stand) == found, "as if nobody had been killed"
    assert {score.network for score in found.values()} == {NETWORK}
    stand.close()
