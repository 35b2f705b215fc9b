"""Skills from scores in memory equal those from the database."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, MINUTE_MS
from core.topic import Target
from ledger.scores import Score
from model.judging.skill import skill_of
from monitor.skills import SkillBook
from tests.fakes.clock import START_MS
from tests.monitor.stand import NETWORK, Stand, topic_of

RETURN = topic_of(1, Target.LOG_RETURN, 10)
NOW_MS = START_MS + 40 * DAY_MS
ROWS = 40 * 48  # half-hourly


def scores_of(rows: int = ROWS, seed: int = 0, first: int = 0) -> list[Score]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(first, first + rows):
        end_ms = START_MS + (number + 1) * 30 * MINUTE_MS
        naive_loss = float(rng.chisquare(1))
        made.append(
            Score(
                network=NETWORK,
                topic_id=1,
                height=number,
                answered_ms=end_ms,
                version=f"v{number // 700}",
                forecast="network",
                start_ms=end_ms - 10 * MINUTE_MS,
                end_ms=end_ms,
                scored_ms=end_ms,
                venue="binance",
                value=0.1,
                truth=0.2,
                truth_sd=0.0,
                naive=0.0,
                plain_naive=0.0,
                loss=naive_loss * float(rng.uniform(0.5, 1.2)),
                naive_loss=naive_loss,
                plain_naive_loss=naive_loss,
                right_direction=True,
                error_bp=1.0,
            )
        )
    return made


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path, [RETURN])
    yield made
    made.close()


@pytest.mark.parametrize("days", [1, 7, 30])
def test_the_skill_of_days_is_that_of_their_rows(stand: Stand, days: int) -> None:
    made = scores_of()
    stand.book.write(made)
    skills = SkillBook(stand.book, [RETURN])
    skills.load(NOW_MS)
    rows = [score for score in made if score.end_ms >= NOW_MS - days * DAY_MS]
    losses, naive = np.array([score.loss for score in rows]), np.array([score.naive_loss for score in rows])
    found = skills.skill(RETURN.key, days)
    assert found == skill_of(np.array([score.end_ms // MINUTE_MS for score in rows]), losses, naive, 10)
    assert found.n == days * 48 + 1
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.15 < found.high


def test_scores_added_one_by_one_equal_those_read_at_once(stand: Stand) -> None:
    made = scores_of()
    grown, read = SkillBook(stand.book, [RETURN]), SkillBook(stand.book, [RETURN])
    grown.load(START_MS)
    stand.book.write(made)
    for first in range(0, ROWS, 100):
        grown.add(made[first : first + 100], made[min(first + 99, ROWS - 1)].end_ms)
        assert grown.skill(RETURN.key, 1).n == min(first + 100, 49)
    read.load(NOW_MS)
    assert grown.skill(RETURN.key, 30, NOW_MS) == read.skill(RETURN.key, 30, NOW_MS)
    assert grown.by_version(RETURN.key).keys() == {"v2", "v1", "v0"}
    assert list(read.by_version(RETURN.key)) == ["v2", "v1", "v0"], "newest first"
    assert read.by_day(RETURN.key)[NOW_MS // DAY_MS - 1].n == 48
    assert len(grown.of(RETURN.key)) < 32 * 48, "older ones leave memory"


def test_a_score_that_is_made_again_takes_the_place_of_the_old_one(stand: Stand) -> None:
    first, second = scores_of(2)
    skills = SkillBook(stand.book, [RETURN])
    skills.add([first, second], second.end_ms)
    assert skills.skill(RETURN.key, 1).n == 2
    skills.add([second._replace(loss=9.0)], second.end_ms)
    assert skills.of(RETURN.key).loss.tolist() == [first.loss, 9.0]
    skills.add([second._replace(loss=None, naive_loss=None, reason="a candle is missing")], second.end_ms)
    assert skills.of(RETURN.key).height.tolist() == [0]
    assert skills.skill(RETURN.key, 1).n == 1


def test_no_answers_have_no_skill(stand: Stand) -> None:
    assert stand.skills.skill(RETURN.key, 7).skill is None
    assert stand.skills.by_version(RETURN.key) == {}


def test_a_topic_that_inference_has_and_the_monitor_not_has_no_skill(stand: Stand) -> None:
    """After a change of config.json the two are started again one after the other."""
    assert stand.skills.skill("another/1", 7).n == 0
    assert stand.skills.by_version("another/1") == {}
    assert stand.skills.by_day("another/1") == {}


def test_today_goes_on_when_nothing_is_scored_any_more(stand: Stand) -> None:
    stand.book.write(scores_of())
    assert stand.score_all(NOW_MS) == 0
    assert stand.skills.skill(RETURN.key, 1).n == 49
    assert stand.score_all(NOW_MS + 2 * DAY_MS) == 0
    assert stand.skills.skill(RETURN.key, 1).n == 0
    assert stand.skills.skill(RETURN.key, 30).n == 28 * 48 + 1
