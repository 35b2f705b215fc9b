"""``kill -9`` of each process while answers are asked, scored and shown."""

from pathlib import Path

import pytest

from tests.e2e.kills import VICTIMS, run


@pytest.mark.timeout(300)
def test_kills_lose_no_answer_and_score_each_once(tmp_path: Path) -> None:
    outcome = run(tmp_path, least_answers=100, rounds=1, seed=18)
    assert not outcome.faults, "\n".join(outcome.faults[:20])
    assert len(outcome.sent) >= 100
    assert set(outcome.kills) == set(VICTIMS)
