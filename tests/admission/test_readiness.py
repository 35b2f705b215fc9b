"""Whether a topic would be admitted and when: equal to the criteria of each record, and said in plain words."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from admission.criteria import NAMES, Record, criteria
from admission.readiness import (
    FILE,
    Days,
    Readiness,
    admitted_after,
    read_admission,
    readiness,
    standing_of,
    write_admission,
)
from admission.replay import Past, answers, epochs_between, past_of
from core.clock import DAY_MS, MINUTE_MS
from core.errors import IncompatibleModel
from core.settings import Objective
from core.topic import Target, Topic
from klines.klines import Floats, Klines
from tests.fakes.klines import random_walk_klines

RETURN = Topic(
    topic_id=1, token="BTC", symbol="BTCUSDT", target=Target.LOG_RETURN, horizon_min=15, epoch_length_blocks=60
)
VOLATILITY = replace(RETURN, topic_id=2, target=Target.VOLATILITY)
FORTNIGHT = random_walk_klines(16 * 1440, seed=4)


def replayed(topic: Topic, known_min: int, klines: Klines = FORTNIGHT) -> tuple[Past, Floats]:
    past = past_of(topic, klines, epochs_between(topic, int(klines.open_time_ms[0]), klines.end_ms))
    return past, answers(past, klines, None, known_min)


def criteria_of(past: Past, said: Floats, first_ms: int, look_ms: int) -> dict[str, bool]:
    """Of one record on its own."""
    mine = (past.epochs.base_ms >= first_ms) & (past.epochs.base_ms + past.topic.horizon_ms <= look_ms)
    there = np.flatnonzero(mine & np.isfinite(past.truth + said))
    if not len(there):
        return {"n_eff": False}
    record = Record(
        truth=past.truth[there],
        forecast=said[there],
        gap=np.diff(there, prepend=there[0] - 1),
        horizon_min=past.topic.horizon_min,
        ratio=past.epochs.ratio,
        submitted=len(there),
        expected=int(mine.sum()),
    )
    return {name: of.passed for name, of in criteria(record).items()}


@pytest.mark.parametrize("known_min", [1, 2])
def test_days_and_holding_are_those_of_each_record_on_its_own(known_min: int) -> None:
    past, said = replayed(RETURN, known_min)
    said = 1.4 * said
    standing = standing_of(past, said, 60 * known_min)
    last_ms = int(past.epochs.base_ms[np.flatnonzero(np.isfinite(past.truth))[-1]]) + past.topic.horizon_ms
    days = [day * DAY_MS for day in range(-(-int(past.epochs.base_ms[0]) // DAY_MS), last_ms // DAY_MS + 1)]
    firsts, held = [], []
    for start in days[: len(days) - 1]:
        looked = [look for look in days if look > start]
        if days[-1] - start < (days[-1] - days[0] + DAY_MS) // 2 // DAY_MS * DAY_MS:
            continue
        passed = [all(criteria_of(past, said, start, look).values()) for look in looked]
        firsts.append(passed.index(True) + 1 if any(passed) else math.inf)
        held += passed[passed.index(True) + 1 :] if any(passed) else []
        assert admitted_after(past, said, past.fitted, start, days[-1]) == firsts[-1]
    assert standing.days.never == pytest.approx(np.mean(np.isinf(firsts)))
    assert standing.days.median == np.quantile(firsts, 0.5, method="higher")
    assert standing.holds == pytest.approx(np.mean(held))
    assert [*standing.criteria] == [*NAMES]


def test_two_known_minutes_are_admitted_and_nothing_known_never_is() -> None:
    found = readiness(RETURN, FORTNIGHT, None, known_s=130, objective=Objective.ADMISSION)
    assert found.standing == found.shown[120]
    assert found.standing.eligible
    assert found.standing.days.never == 0
    assert found.short == "nothing is short"
    assert not found.shown[0].eligible
    assert found.shown[0].days == Days(median=None, p90=None, never=1.0)
    assert found.shown[0].criteria["pearson"].bound is None


@pytest.mark.parametrize(("known_s", "counted_s"), [(0, 0), (59.9, 0), (60, 60), (119, 60), (1000, 120)])
def test_the_verdict_is_of_the_guaranteed_time_rounded_down(known_s: float, counted_s: int) -> None:
    short = FORTNIGHT.tail(3 * 1440)
    assert readiness(RETURN, short, None, known_s=known_s, objective=Objective.LOSS).standing.known_s == counted_s


def test_the_ratio_is_of_the_measured_time_between_blocks() -> None:
    """35 blocks of the testnet's topics are five minutes; 5 s a block would make them three."""
    topic, short = replace(RETURN, epoch_length_blocks=35), FORTNIGHT.tail(3 * 1440)
    found = [
        readiness(topic, short, None, known_s=0, objective=Objective.LOSS, block_ms=block_ms, nonce_ms=nonce_ms)
        for block_ms, nonce_ms in ((None, 0), (5000.0, 0), (8571.0, 0), (8571.0, 1_700_000_123_456))
    ]
    assert [one.block_ms for one in found] == [None, 5000.0, 8571.0, 8571.0]
    n_eff = [one.standing.criteria["n_eff"].value or 0 for one in found]
    assert n_eff[0] == n_eff[1]
    assert found[2].standing != found[3].standing, "the phase moves the bases"


def test_errors_are_of_the_days_that_the_network_answered() -> None:
    """A network that knows the rest of each interval in the newest five days, and no other."""
    ahead = np.full(len(FORTNIGHT), np.nan)
    ahead[:-15] = np.log(FORTNIGHT.close[15:] / FORTNIGHT.close[:-15])
    ahead[: -5 * 1440] = np.nan
    with_network = readiness(RETURN, FORTNIGHT, ahead, known_s=60, objective=Objective.LOSS)
    alone = readiness(RETURN, FORTNIGHT, None, known_s=60, objective=Objective.LOSS)
    assert (with_network.replayed_days, alone.replayed_days, alone.network_days) == (16, 16, 0)
    assert with_network.network_days == pytest.approx(5 - 15 / 1440)
    errors = with_network.errors[60]
    assert errors.over_knowing is not None
    assert errors.over_plain is not None
    assert errors.over_plain < errors.over_knowing < 0.2, "in the other eleven days it said nothing"
    assert [one.over_knowing for one in alone.errors.values()] == [1, 1, 1]
    assert alone.errors[0].over_plain == 1
    plain = [one.over_plain or 0 for one in alone.errors.values()]
    assert plain == sorted(plain, reverse=True), "each known minute takes error away"
    assert plain[2] < 0.95


def test_a_line_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    found = readiness(RETURN, FORTNIGHT.tail(1440), None, known_s=60, objective=Objective.LOSS)
    entry = found.to_json()
    for name in ("block_ms", "replayed_days", "network_days", "errors"):
        del entry[name]
    (tmp_path / FILE).write_text(json.dumps({"made_ms": 7, "topics": {RETURN.key: entry}}))
    (read,) = read_admission(tmp_path)[1].values()
    assert (read.block_ms, read.replayed_days, read.errors) == (None, 0, {})


def test_what_is_short_is_said() -> None:
    def short(topic: Topic, known_s: float, objective: Objective = Objective.ADMISSION) -> str:
        return readiness(topic, FORTNIGHT, None, known_s=known_s, objective=objective).short

    assert "more wait would help: ANSWER_WAIT=60" in short(RETURN, 0)
    assert (
        short(replace(RETURN, horizon_min=1440, epoch_length_blocks=720), 120)
        == "neither a longer wait nor more days would help"
    )
    spread = short(replace(RETURN, horizon_min=30), 120, Objective.LOSS)
    assert spread == "more spread would help: OBJECTIVE=admission"


def test_volatility_has_to_pass_beside_both_baselines() -> None:
    past, said = replayed(VOLATILITY, 2)
    both = standing_of(past, said, 120)
    eased = replace(past, fitted=past.back)  # the day's mean alone
    assert standing_of(eased, said, 120).days.never <= both.days.never
    assert (both.days.median or math.inf) >= (standing_of(eased, said, 120).days.median or math.inf)
    useless = replace(past, truth=past.fitted + np.random.default_rng(0).normal(0, 0.1, len(said)))
    assert standing_of(useless, said, 120).days.never == 1


def test_too_few_days_are_said_to_be() -> None:
    for klines in (Klines.empty(MINUTE_MS), FORTNIGHT.tail(100)):
        found = readiness(VOLATILITY, klines, None, known_s=60, objective=Objective.ADMISSION)
        assert not found.standing.eligible
        assert "too few days of klines" in found.short


def test_admission_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = {
        topic.key: readiness(topic, FORTNIGHT, None, known_s=60, objective=Objective.ADMISSION)
        for topic in (RETURN, VOLATILITY)
    }
    assert read_admission(tmp_path) == (0, {})
    write_admission(tmp_path, 7, found)
    assert read_admission(tmp_path) == (7, found)
    entry = json.loads((tmp_path / FILE).read_text())["topics"][RETURN.key]
    assert entry["shown"]["0"]["days"] == {"median": None, "p90": None, "never": 1.0}
    (tmp_path / FILE).write_text('{"made_ms": 7, "topics": {"1": {}}}')
    with pytest.raises(IncompatibleModel, match="train again"):
        read_admission(tmp_path)
    with pytest.raises(IncompatibleModel, match="train again"):
        Readiness.from_json(None)
