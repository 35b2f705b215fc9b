"""The alarms that the chain tells, each provoked by real rows of the ledger, and over when those are mended."""

from collections.abc import Sequence
from dataclasses import replace
from math import log10
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from chain.shapes import Access, HostSeen, TopicSeen, Upgrade
from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.topic import Target, Topic
from ledger.epochs import NETWORK_ITSELF, Arrival, Detail, Epoch, Inferer, Stage
from ledger.schema import answers, scores
from monitor.chain.checks import Checks
from monitor.chain.looks import NO_TOPIC, NetworkLook, TopicLook
from tests.cli.ledger import NETWORK, answer_of, score_row
from tests.fakes.clock import RunningClock
from tests.monitor.desk import CHAIN, Desk, desk

US = "allo1yjy7uan0rtsxz2jm33xfhjawuhvz8pfveqd7l3"
OTHERS = ("allo1n0hsul6c8gydt6hm9hg5nz9a0d4y3rdz79lp78", "allo1mhg2hz0rxjx6g8twtemppx3nhp04aldjq3xyvm", "allo1third")
TOPIC = Topic(
    topic_id=79,
    token="BTC",
    symbol="BTCUSDT",
    target=Target.VOLATILITY,
    horizon_min=15,
    network=NETWORK,
    worker=US,
)
SEEN = TopicSeen(
    topic_id=79,
    metadata="BTC 15min Volatility Prediction",
    loss_method="mse",
    epoch_length=158,
    ground_truth_lag=158,
    window=12,
    allow_negative=False,
)
BLOCK_MS = 5_700.0
LEVELS = (0.0029, 0.0033, 0.0031)  # of the others
TRUTH = 0.003


class Chain:
    """Rows as the monitor's followers write them."""

    def __init__(self, watching: Desk, topic: Topic = TOPIC) -> None:
        self.desk, self.topic = watching, topic

    def saw(self, **changes: object) -> None:
        """Note a look at the network."""
        now_ms = self.desk.clock.now_ms()
        host = HostSeen(
            chain_id=NETWORK, api="v10", release="v0.17.0", height=5_000_000, time_ms=now_ms, catching_up=False
        )
        look = replace(NetworkLook(seen_ms=now_ms, fault="", host=host, block_ms=BLOCK_MS), **changes)  # type: ignore[arg-type]
        self.desk.epochs.note(self.topic.network or "", NETWORK_ITSELF, now_ms, look.body)

    def saw_topic(self, block_ms: float | None = BLOCK_MS, **changes: object) -> None:
        """Note a look at the topic."""
        self.saw(block_ms=block_ms)
        look = TopicLook(seen=replace(SEEN, **changes))  # type: ignore[arg-type]
        self.desk.epochs.note(self.topic.network or "", 79, self.desk.clock.now_ms(), look.body)

    def epochs(
        self,
        arrivals: Sequence[Arrival],
        *,
        value: str = "0.0030",
        others: Sequence[float] = LEVELS,
        first: int = 1_000,
        is_answered: bool = True,
        truth: float = TRUTH,
        target: str = "volatility std_horizon",
    ) -> None:
        """Write epochs, oldest first, with our answers and their scores; the truth that they score against is given."""
        self.saw()
        now_ms = self.desk.clock.now_ms()
        rows, given = [], []
        for number, arrival in enumerate(arrivals):
            nonce, base_ms = first + 158 * number, now_ms - (len(arrivals) - number) * 15 * MINUTE_MS
            values = {US: value} if arrival is Arrival.EQUAL else {}
            values |= {address: repr(one) for address, one in zip(OTHERS, others, strict=False)}
            inferers = tuple(
                Inferer(who, one, loss=repr(2 * log10(abs(float(one) - truth) or 1e-18))) for who, one in values.items()
            )
            rows.append(
                Epoch(
                    NETWORK,
                    79,
                    nonce,
                    base_ms + 4_000,
                    now_ms,
                    Stage.SETTLED.value,
                    worker=self.topic.worker,
                    arrival=arrival.value,
                    value=value if arrival is Arrival.EQUAL else None,
                    active=US in values,
                    combined=repr(sum(others) / len(others)) if others else None,
                    detail=Detail(inferers).packed(),
                )
            )
            given.append(answer_of(79, nonce, base_ms, value=value, target=target))
        self.desk.epochs.write(rows)
        if is_answered:
            engine = sa.create_engine(self.desk.settings.ledger_url)
            with engine.begin() as connection:
                heights = [one.height for one in given]
                for table in (answers, scores):
                    connection.execute(table.delete().where(table.c.height.in_(heights)))
                connection.execute(answers.insert(), [one._asdict() for one in given])
                connection.execute(scores.insert(), [score_row(one, RNG) | {"truth": TRUTH} for one in given])
            engine.dispose()


RNG = np.random.default_rng(0)
EQUAL, OTHER, ABSENT, UNKNOWN = Arrival.EQUAL, Arrival.OTHER, Arrival.ABSENT, Arrival.UNKNOWN


def what(watching: Desk) -> str:
    """The words of the only alarm that holds."""
    (kept,) = watching.book.standing
    assert kept.remedy
    return kept.what


def test_a_chain_that_is_not_read_raises_none_of_the_alarms(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock, CHAIN, topics=[TOPIC]) as watching:
        assert watching.standing() == set()
        assert watching.look().chain == {}


# --- arrival ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrivals", "lost"),
    [
        pytest.param([EQUAL] * 5, 0, id="all arrived"),
        pytest.param([EQUAL, ABSENT, ABSENT], 2, id="two did not"),
        pytest.param([EQUAL, ABSENT, ABSENT, ABSENT], 3, id="three did not"),
        pytest.param([ABSENT, ABSENT, OTHER], 3, id="another value"),
        pytest.param([ABSENT, ABSENT, ABSENT, EQUAL], 0, id="the newest arrived"),
        pytest.param([ABSENT, UNKNOWN, ABSENT, UNKNOWN, ABSENT, UNKNOWN], 3, id="some were not seen"),
        pytest.param([UNKNOWN] * 9, 0, id="none was seen"),
    ],
)
def test_answers_that_do_not_arrive_in_three_epochs_in_a_row(
    tmp_path: Path, clock: RunningClock, arrivals: Sequence[Arrival], lost: int
) -> None:
    with desk(tmp_path, clock, ["arrival"], topics=[TOPIC]) as watching:
        Chain(watching).epochs(arrivals)
        assert watching.standing() == ({("arrival", TOPIC.key)} if lost >= 3 else set())
        assert watching.look().chain[TOPIC.key].unarrived == lost


def test_arrival_says_why_and_since_when_and_is_over_with_the_next_that_arrives(
    tmp_path: Path, clock: RunningClock
) -> None:
    with desk(tmp_path, clock, ["arrival"], topics=[TOPIC]) as watching:
        chain = Chain(watching)
        chain.epochs([EQUAL, ABSENT, ABSENT, ABSENT])
        before_ms = clock.now_ms()
        assert watching.standing() == {("arrival", TOPIC.key)}
        assert "in 3 epochs in a row no answer of ours arrived" in what(watching)
        assert "(the newest: answered and not submitted)" in what(watching)
        assert abs(watching.book.standing[0].since_ms - (before_ms - 45 * MINUTE_MS)) < MINUTE_MS
        watching.pass_s(2 * HOUR_MS / 1000)
        assert watching.standing() == {("arrival", TOPIC.key)}, "a chain that is not seen any more tells no end"
        chain.epochs([EQUAL], first=2_000)
        watching.calm()
        assert watching.standing() == set()


@pytest.mark.parametrize(
    ("access", "why"),
    [
        (Access(registered=False), "the chain knows no registration of WORKER_ADDRESS"),
        (Access(registered=True, whitelisted=False), "not on the topic's whitelist"),
        (Access(registered=True, can_submit=False), "the chain takes no submission"),
    ],
)
def test_an_address_that_may_not_submit_is_named_as_the_cause(
    tmp_path: Path, clock: RunningClock, access: Access, why: str
) -> None:
    with desk(tmp_path, clock, ["arrival"], topics=[TOPIC]) as watching:
        Chain(watching).epochs([ABSENT] * 4)
        watching.epochs.note(NETWORK, 79, clock.now_ms(), TopicLook(seen=SEEN, access=access).body)
        assert watching.standing() == {("arrival", TOPIC.key)}
        assert why in what(watching)


def test_a_topic_that_is_not_on_the_chain_is_a_fault_of_the_contract(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock, ["contract"], topics=[TOPIC]) as watching:
        chain = Chain(watching)
        chain.saw()
        watching.epochs.note(NETWORK, 79, clock.now_ms(), NO_TOPIC)
        assert watching.standing() == {("contract", TOPIC.key)}
        assert "the chain has no such topic" in what(watching)
        chain.saw_topic()
        watching.calm()
        assert watching.standing() == set()


def test_epochs_that_were_not_asked_say_so_and_a_worker_without_address_is_not_judged(
    tmp_path: Path, clock: RunningClock
) -> None:
    with desk(tmp_path, clock, ["arrival"], topics=[TOPIC]) as watching:
        Chain(watching).epochs([ABSENT] * 4, is_answered=False)
        assert watching.standing() == {("arrival", TOPIC.key)}
        assert "(the newest: not asked, or not answered)" in what(watching)
    nobody = replace(TOPIC, worker="")
    with desk(tmp_path, clock, ["arrival"], topics=[nobody]) as watching:
        Chain(watching, nobody).epochs([ABSENT] * 4)
        watching.calm()
        assert watching.standing() == set()


def test_values_that_the_wallet_submitted_before_our_first_answer_are_passed(
    tmp_path: Path, clock: RunningClock
) -> None:
    with desk(tmp_path, clock, ["arrival"], topics=[TOPIC]) as watching:
        chain = Chain(watching)
        chain.epochs([OTHER] * 9, is_answered=False)
        assert watching.standing() == set()
        chain.epochs([ABSENT] * 2, first=3_000)
        assert watching.look().chain[TOPIC.key].unarrived == 2
        chain.epochs([OTHER] * 3, first=5_000, is_answered=False)
        assert watching.standing() == {("arrival", TOPIC.key)}
        assert "in 5 epochs in a row" in what(watching)


# --- contract ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"ground_truth_lag": 105}, "we answer for 15m"),
        ({"loss_method": "mae"}, "scores by mae"),
        ({"is_multi": True}, "several labelled values"),
        ({"loss_method": "focal"}, ""),
        ({"ground_truth_lag": 900, "in_seconds": True}, ""),
        ({"ground_truth_lag": 158, "in_seconds": True}, "158 s"),
    ],
)
def test_a_contract_that_is_broken_and_mended(
    tmp_path: Path, clock: RunningClock, changes: dict[str, object], says: str
) -> None:
    with desk(tmp_path, clock, ["contract"], topics=[TOPIC]) as watching:
        chain = Chain(watching)
        chain.saw_topic(BLOCK_MS, **changes)
        assert watching.standing() == ({("contract", TOPIC.key)} if says else set())
        if says:
            assert says in what(watching)
            chain.saw_topic()
            watching.calm()
            assert watching.standing() == set()


def test_a_contract_is_not_mended_while_the_time_of_a_block_is_not_measured(
    tmp_path: Path, clock: RunningClock
) -> None:
    with desk(tmp_path, clock, ["contract"], topics=[TOPIC]) as watching:
        chain = Chain(watching)
        chain.saw_topic(ground_truth_lag=105)
        assert watching.standing() == {("contract", TOPIC.key)}
        chain.saw_topic(None, ground_truth_lag=105)
        watching.calm()
        assert watching.standing() == {("contract", TOPIC.key)}
        chain.saw_topic()
        watching.calm()
        assert watching.standing() == set()


def test_a_local_chain_and_simulated_prices_raise_no_contract_alarm(tmp_path: Path, clock: RunningClock) -> None:
    local = replace(TOPIC, network="localnet")
    for topic, market in ((local, "binance"), (TOPIC, "simulated")):
        with desk(tmp_path, clock, ["contract"], topics=[topic], market=market) as watching:
            Chain(watching, topic).saw_topic(ground_truth_lag=30)
            assert watching.standing() == set()
            assert [fault.name for fault in watching.look().chain[topic.key].contract or ()] == ["horizon"]


def test_the_threshold_of_the_contract_is_a_setting(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock, ["contract"], topics=[TOPIC], alarm_contract="0.5") as watching:
        chain = Chain(watching)
        chain.saw_topic(ground_truth_lag=105)
        assert watching.standing() == set()
        chain.saw_topic(ground_truth_lag=70)
        assert watching.standing() == {("contract", TOPIC.key)}


# --- unit -------------------------------------------------------------------------------------------------------------


def test_answers_in_another_unit_are_told_and_over_when_they_are_right(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock, ["unit"], topics=[TOPIC]) as watching:
        chain = Chain(watching)
        chain.epochs([EQUAL] * 5)
        assert watching.standing() == set()
        chain.epochs([EQUAL] * 20, value="0.5616", first=10_000)  # 187.2 times
        assert watching.standing() == {("unit", TOPIC.key)}
        assert "annualised (the square root of the horizons in a year), theirs over the horizon" in what(watching)
        chain.epochs([EQUAL] * 20, first=20_000)
        watching.calm()
        assert watching.standing() == set()


def test_answers_of_before_a_setting_was_corrected_are_not_held_against_it(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock, ["unit"], topics=[TOPIC]) as watching:
        chain = Chain(watching)
        chain.epochs([EQUAL] * 5, value="0.5616")
        assert watching.standing() == {("unit", TOPIC.key)}
        chain.epochs([EQUAL] * 5, value="0.5616", target="volatility std_annual")
        watching.calm()
        assert watching.standing() == {("unit", TOPIC.key)}, "nothing is compared yet: not over"
        chain.epochs([EQUAL] * 3, first=10_000)
        watching.calm()
        assert watching.standing() == set()


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ((), "no other inferer answered"),
        ((0.5,), "a single other inferer answered"),
        ((0.0, 0.0), "nothing but 0"),
        ((1e-18, 1e-18), "who all answered the same"),
        ((1e12, 1e12), "who all answered the same"),
    ],
)
def test_epochs_of_few_or_odd_inferers_are_a_line(
    tmp_path: Path, clock: RunningClock, others: Sequence[float], says: str
) -> None:
    with desk(tmp_path, clock, ["unit"], topics=[TOPIC]) as watching:
        Chain(watching).epochs([EQUAL] * 5, others=others)
        unit = watching.look().chain[TOPIC.key].unit
        assert unit
        assert says in unit.line


# --- truth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("truth", "told"), [(TRUTH, False), (1.001 * TRUTH, False), (1.01 * TRUTH, True)])
def test_a_truth_that_is_not_ours_is_told(tmp_path: Path, clock: RunningClock, truth: float, told: bool) -> None:
    with desk(tmp_path, clock, ["truth"], topics=[TOPIC]) as watching:
        Chain(watching).epochs([EQUAL] * 8, truth=truth)
        for _ in range(3):
            watching.look()
        gap = watching.look().chain[TOPIC.key].truth
        assert gap
        assert gap.epochs == 8
        assert gap.bp == pytest.approx(1e4 * (1 - TRUTH / truth), abs=1e-6)
        assert watching.standing() == ({("truth", TOPIC.key)} if told else set())
        if told:
            assert "99 basis points off" in what(watching)
            Chain(watching).epochs([EQUAL] * 20, first=10_000)
            for _ in range(7):
                watching.look()
            watching.calm()
            assert watching.standing() == set()


def test_too_few_recovered_truths_are_no_evidence(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock, ["truth"], topics=[TOPIC]) as watching:
        Chain(watching).epochs([EQUAL] * 4, truth=2 * TRUTH)
        for _ in range(3):
            watching.look()
        assert watching.standing() == set()


# --- upgrade ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "told"), [(3, True), (6.9, True), (7.1, False), (30, False), (-0.1, True)])
def test_an_upgrade_is_told_days_ahead(tmp_path: Path, clock: RunningClock, days: float, told: bool) -> None:
    with desk(tmp_path, clock, ["upgrade"], topics=[TOPIC], node_version="v0.12.0") as watching:
        chain = Chain(watching)
        chain.saw(upgrade=Upgrade(name="v0.18.0", height=5_000_000 + round(days * DAY_MS / BLOCK_MS)))
        assert watching.standing() == ({("upgrade", NETWORK)} if told else set())
        if told:
            assert "allora-testnet-1 is upgraded to v0.18.0 at height" in what(watching)
            assert (f"in {days:.1f} days" if days > 0 else "now due") in what(watching)
            chain.saw()
            watching.calm()
            assert watching.standing() == set()


@pytest.mark.parametrize(
    ("node", "told"), [("v0.12.0", False), ("v0.9.1", True), ("v0.5.0", True), ("", False), ("latest", False)]
)
def test_an_api_that_the_node_does_not_speak(tmp_path: Path, clock: RunningClock, node: str, told: bool) -> None:
    with desk(tmp_path, clock, ["upgrade"], topics=[TOPIC], node_version=node) as watching:
        Chain(watching).saw()
        assert watching.standing() == ({("upgrade", NETWORK)} if told else set())
        if told:
            assert f"speaks API v10, and node {node} is built for" in what(watching)


def test_an_upgrade_to_an_api_that_the_node_does_not_speak_says_so(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock, ["upgrade"], topics=[TOPIC], node_version="v0.9.1") as watching:
        host = HostSeen(
            chain_id=NETWORK, api="v8", release="v0.9.0", height=100, time_ms=clock.now_ms(), catching_up=False
        )
        chain = Chain(watching)
        chain.saw(host=host, upgrade=Upgrade(name="v0.17.0", height=1_100))
        assert watching.standing() == {("upgrade", NETWORK)}
        assert "that release speaks API v10, and node v0.9.1 is built for v8" in what(watching)


def test_one_upgrade_of_a_network_is_one_alarm(tmp_path: Path, clock: RunningClock) -> None:
    topics = [TOPIC, replace(TOPIC, topic_id=64)]
    with desk(tmp_path, clock, CHAIN, topics=topics) as watching:
        Chain(watching).saw(upgrade=Upgrade(name="v0.18.0", height=5_001_000))
        assert watching.standing() == {("upgrade", NETWORK)}


def test_truths_that_take_long_to_solve_for_are_solved_for_little_by_little(
    tmp_path: Path, clock: RunningClock
) -> None:
    with desk(tmp_path, clock, ["truth"], topics=[TOPIC]) as watching:
        Chain(watching).epochs([EQUAL] * 9)
        rows = watching.epochs.epochs_of(TOPIC, 9)
        for solve_s, solved in ((0.0, None), (1e-9, 1), (60.0, 9)):
            checks = Checks(watching.settings, watching.scores, {}, solve_s=solve_s, share=1e-6)
            for _ in range(2):  # the second check rests
                checks.check(TOPIC, rows, {})
            gap = checks.seen[TOPIC.key].truth
            assert (gap and gap.epochs) == solved
        checks = Checks(watching.settings, watching.scores, {}, solve_s=1e-9, share=1)
        for _ in rows:
            checks.check(TOPIC, rows, {})
        gap = checks.seen[TOPIC.key].truth
        assert gap is not None
        assert (gap.epochs, gap.is_log) == (9, True)
