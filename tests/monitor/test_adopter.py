"""Who adopts what, and when: agreement of the topics that share a setting, once, and told."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.clock import HOUR_MS, MINUTE_MS
from core.errors import WorkerError
from core.topic import Topic
from ledger.epochs import EpochBook
from monitor.adopter import NOTHING, Adopter, Proof, sharing
from tests.fakes.clock import FakeClock
from tests.inference.stand import BTC_8H, ETH_10M, ETH_24H, SOL_15M
from tests.truth.test_adopted import settings_on, write
from truth.adopted import BASE_RULE, TRUTH_VENUE

OWN_BASE = replace(SOL_15M, base="asked")
TOPICS = (ETH_10M, ETH_24H, BTC_8H, OWN_BASE)
BOTH = frozenset({TRUTH_VENUE, BASE_RULE})


class Stand:
    """An adopter whose topics prove what a test says."""

    def __init__(self, folder: Path) -> None:
        settings = settings_on(folder)
        write(settings)
        self.book, self.clock = EpochBook(settings.ledger_url), FakeClock()
        self.proofs: dict[str, Proof | WorkerError] = {}
        self.judged: list[str] = []
        self.waiting = BOTH
        self.adopter = Adopter(self.book, settings, TOPICS, self.judge, lambda: self.waiting, self.clock)

    def judge(self, topic: Topic) -> Proof:
        self.judged.append(topic.key)
        proof = self.proofs.get(topic.key, NOTHING)
        if isinstance(proof, WorkerError):
            raise proof
        return proof

    def hour(self) -> None:
        """A step each minute."""
        for _ in range(60):
            with suppress(WorkerError):
                self.adopter.step()
            self.clock.time_ms += MINUTE_MS

    def adopted(self) -> dict[str, str]:
        return {name: adoption.value for name, adoption in self.book.adoptions().items()}


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path)
    yield made
    made.book.close()


def test_topics_that_share_a_setting() -> None:
    assert sharing(TRUTH_VENUE, TOPICS) == [ETH_10M, ETH_24H]
    assert sharing(BASE_RULE, TOPICS) == [ETH_10M, ETH_24H, BTC_8H]


def test_each_topic_is_judged_once_an_hour_one_at_a_step(stand: Stand) -> None:
    stand.adopter.step()
    assert len(stand.judged) == 1
    stand.hour()
    assert sorted(stand.judged) == sorted(topic.key for topic in (ETH_10M, ETH_24H, BTC_8H))
    stand.hour()
    assert len(stand.judged) == 6


def test_a_value_is_adopted_once_all_were_judged_and_none_contradicts(stand: Stand) -> None:
    stand.proofs[ETH_10M.key] = Proof({TRUTH_VENUE: "kraken", BASE_RULE: "minute"}, "fits 38 of 40 epochs")
    stand.adopter.step()
    assert stand.adopted() == {}, "the other topics were not judged yet"
    with capture_logs() as lines:
        stand.hour()
    assert stand.adopted() == {TRUTH_VENUE: "kraken", BASE_RULE: "minute"}
    adoption = stand.book.adoptions()[TRUTH_VENUE]
    assert adoption.evidence == (f"proven by 1 of 2 topics, contradicted by none: {ETH_10M.key}: fits 38 of 40 epochs")
    told = [line for line in lines if line["event"] == "adoption_written"]
    assert {(line["setting"], line["value"]) for line in told} == {(BASE_RULE, "minute"), (TRUTH_VENUE, "kraken")}
    assert len(told) == 2


def test_topics_that_prove_different_values_adopt_nothing_and_it_is_told(stand: Stand) -> None:
    stand.proofs[ETH_10M.key] = Proof({TRUTH_VENUE: "kraken", BASE_RULE: "asked"}, "fits 38 of 40 epochs")
    stand.proofs[ETH_24H.key] = Proof({TRUTH_VENUE: "coinbase", BASE_RULE: "asked"}, "fits 20 of 20 epochs")
    with capture_logs() as lines:
        stand.hour()
    assert stand.adopted() == {BASE_RULE: "asked"}
    (line,) = (line for line in lines if line["event"] == "adoption_not_possible")
    assert line["by_topic"] == {ETH_10M.key: "kraken", ETH_24H.key: "coinbase"}
    assert "set TRUTH_VENUE" in line["remedy"]


def test_a_venue_that_cannot_be_used_here_is_not_adopted_and_told(stand: Stand) -> None:
    stand.proofs[ETH_10M.key] = Proof({TRUTH_VENUE: "atlas"}, "fits 38 of 40 epochs")
    with capture_logs() as lines:
        stand.hour()
    assert stand.adopted() == {}
    (line,) = (line for line in lines if line["event"] == "adoption_not_possible")
    assert "needs VENUE_KEYS" in line["reason"]


def test_what_was_adopted_stays_whatever_is_proven_later(stand: Stand) -> None:
    stand.proofs[ETH_10M.key] = Proof({BASE_RULE: "asked"}, "fits 38 of 40 epochs")
    stand.hour()
    before = stand.book.adoptions()
    stand.proofs[ETH_10M.key] = Proof({BASE_RULE: "minute"}, "fits 40 of 40 epochs")
    stand.hour()
    assert stand.book.adoptions() == before


def test_a_topic_that_cannot_be_judged_holds_back_the_adoption_and_no_other_topic(stand: Stand) -> None:
    stand.proofs[ETH_10M.key] = WorkerError("the store cannot be read")
    stand.proofs[ETH_24H.key] = Proof({TRUTH_VENUE: "kraken"}, "fits 20 of 20 epochs")
    stand.hour()
    assert stand.adopted() == {}
    assert sorted(stand.judged) == sorted(topic.key for topic in (ETH_10M, ETH_24H, BTC_8H))
    stand.proofs[ETH_10M.key] = NOTHING
    stand.hour()
    assert stand.adopted() == {TRUTH_VENUE: "kraken"}


def test_nothing_is_judged_while_no_setting_waits(stand: Stand) -> None:
    stand.waiting = frozenset()
    stand.hour()
    assert stand.judged == []
    stand.waiting = frozenset({TRUTH_VENUE})
    stand.hour()
    assert set(stand.judged) == {ETH_10M.key, ETH_24H.key}


def test_a_clock_set_back_judges_again(stand: Stand) -> None:
    stand.hour()
    stand.clock.time_ms -= 10 * HOUR_MS
    stand.hour()
    assert len(stand.judged) == 6
