"""Who adopts what, and when: agreement of the topics that share a setting, once, and told."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from core.clock import HOUR_MS, MINUTE_MS
from core.errors import WorkerError
from core.topic import Target, Topic
from ledger.answers import Answer
from ledger.epochs import Detail, Epoch, EpochBook, Inferer, Stage
from monitor.adopter import Adopter, Told, Verdict, judge, sharing
from monitor.candles import Candles
from tests.fakes.clock import START_MS, FakeClock, eventually
from tests.fakes.klines import random_walk_klines, times
from tests.inference.stand import BTC_8H, ETH_10M, ETH_24H, SOL_15M
from tests.monitor.stand import Stand as LedgerStand
from tests.monitor.stand import answers_to, topic_of
from tests.monitor.test_main import monitoring, surroundings
from tests.truth.test_adopted import settings_on, write
from truth.adopted import BASE_RULE, TRUTH_VENUE

OWN_BASE = replace(SOL_15M, base="asked")
TOPICS = (ETH_10M, ETH_24H, BTC_8H, OWN_BASE)
BOTH = frozenset({TRUTH_VENUE, BASE_RULE})


class Stand:
    """An adopter whose topics tell what a test says."""

    def __init__(self, folder: Path) -> None:
        settings = settings_on(folder)
        write(settings)
        self.book, self.clock = EpochBook(settings.ledger_url), FakeClock()
        self.told: dict[str, Verdict | WorkerError] = {}
        self.judged: list[str] = []
        self.waiting = BOTH
        self.adopter = Adopter(self.book, settings, TOPICS, self.judge, lambda: self.waiting, self.clock)

    def judge(self, topic: Topic) -> Verdict:
        self.judged.append(topic.key)
        told = self.told.get(topic.key, {})
        if isinstance(told, WorkerError):
            raise told
        return told

    def hour(self) -> None:
        """A step each minute."""
        for _ in range(60):
            with suppress(WorkerError):
                self.adopter.step()
            self.clock.time_ms += MINUTE_MS

    def adopted(self) -> dict[str, str]:
        return {name: adoption.value for name, adoption in self.book.adoptions().items()}


def both(venue: str, rule: str) -> Verdict:
    """A venue and a base rule that are proven."""
    evidence = "fits 38 of 40 epochs"
    return {TRUTH_VENUE: Told(venue, True, evidence), BASE_RULE: Told(rule, True, evidence)}


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
    stand.told[ETH_10M.key] = {
        TRUTH_VENUE: Told("kraken", True, "fits 38 of 40 epochs"),
        BASE_RULE: Told("minute", True, "fits 38 of 40 epochs"),
    }
    stand.adopter.step()
    assert stand.adopted() == {}, "the other topics were not judged yet"
    with capture_logs() as lines:
        stand.hour()
    assert stand.adopted() == {TRUTH_VENUE: "kraken", BASE_RULE: "minute"}
    adoption = stand.book.adoptions()[TRUTH_VENUE]
    assert adoption.evidence == (f"proven by 1 of 2 topics, contradicted by none: {ETH_10M.key} fits 38 of 40 epochs")
    told = [line for line in lines if line["event"] == "adoption_written"]
    assert {(line["setting"], line["value"]) for line in told} == {(BASE_RULE, "minute"), (TRUTH_VENUE, "kraken")}
    assert len(told) == 2


def test_topics_that_prove_different_values_adopt_nothing_and_it_is_told(stand: Stand) -> None:
    stand.told[ETH_10M.key] = {
        TRUTH_VENUE: Told("kraken", True, "fits 38 of 40 epochs"),
        BASE_RULE: Told("asked", True, "fits 38 of 40 epochs"),
    }
    stand.told[ETH_24H.key] = {
        TRUTH_VENUE: Told("coinbase", True, "fits 20 of 20 epochs"),
        BASE_RULE: Told("asked", True, "fits 20 of 20 epochs"),
    }
    with capture_logs() as lines:
        stand.hour()
    assert stand.adopted() == {BASE_RULE: "asked"}
    (line,) = (line for line in lines if line["event"] == "adoption_not_possible")
    assert line["by_topic"] == {ETH_10M.key: "kraken", ETH_24H.key: "coinbase"}
    assert "set TRUTH_VENUE" in line["remedy"]


def test_what_is_told_and_not_proven_is_not_adopted_and_contradicts(stand: Stand) -> None:
    stand.told[ETH_10M.key] = {TRUTH_VENUE: Told("kraken", False, "fits 20 of 40 epochs")}
    stand.hour()
    assert stand.adopted() == {}
    stand.told[ETH_24H.key] = {TRUTH_VENUE: Told("coinbase", True, "fits 38 of 40 epochs")}
    with capture_logs() as lines:
        stand.hour()
    assert stand.adopted() == {}
    assert [line["event"] for line in lines] == ["adoption_not_possible"]
    stand.told[ETH_10M.key] = {TRUTH_VENUE: Told("coinbase", False, "fits 22 of 40 epochs")}
    stand.hour()
    assert stand.adopted() == {TRUTH_VENUE: "coinbase"}


def test_a_venue_that_cannot_be_used_here_is_not_adopted_and_told(stand: Stand) -> None:
    stand.told[ETH_10M.key] = {TRUTH_VENUE: Told("atlas", True, "fits 38 of 40 epochs")}
    with capture_logs() as lines:
        stand.hour()
    assert stand.adopted() == {}
    (line,) = (line for line in lines if line["event"] == "adoption_not_possible")
    assert "needs VENUE_KEYS" in line["reason"]


def test_what_was_adopted_stays_whatever_is_proven_later(stand: Stand) -> None:
    stand.told[ETH_10M.key] = {BASE_RULE: Told("asked", True, "fits 38 of 40 epochs")}
    stand.hour()
    before = stand.book.adoptions()
    stand.told[ETH_10M.key] = {BASE_RULE: Told("minute", True, "fits 40 of 40 epochs")}
    stand.hour()
    assert stand.book.adoptions() == before


def test_a_topic_that_cannot_be_judged_holds_back_the_adoption_and_no_other_topic(stand: Stand) -> None:
    stand.told[ETH_10M.key] = WorkerError("the store cannot be read")
    stand.told[ETH_24H.key] = {TRUTH_VENUE: Told("kraken", True, "fits 20 of 20 epochs")}
    stand.hour()
    assert stand.adopted() == {}
    assert sorted(stand.judged) == sorted(topic.key for topic in (ETH_10M, ETH_24H, BTC_8H))
    stand.told[ETH_10M.key] = {}
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


def epoch_of(topic: Topic, answer: Answer, truth: float, rng: np.random.Generator) -> Epoch:
    """A settled epoch of five inferers whom the reputers scored against ``truth``."""
    values = [truth * (1 + float(one)) for one in rng.normal(0, 1e-3, 5)]
    inferers = tuple(
        Inferer(f"allo{number}", repr(value), str((Decimal(repr(value)) - Decimal(repr(truth))) ** 2))
        for number, value in enumerate(values)
    )
    return Epoch(
        network=topic.network or "",
        topic_id=topic.topic_id,
        nonce=answer.height or 0,
        block_ms=answer.block_ms,
        seen_ms=START_MS,
        stage=Stage.SETTLED.value,
        detail=Detail(inferers).packed(),
    )


def scored_at_kraken(folder: Path, topic: Topic, epochs: int, every_min: int = 45) -> LedgerStand:
    """A folder with two venues' candles, and epochs that were scored at the last trade before the minute at kraken.

    The answers were given a minute after the nonce's block, so the base rules differ.
    """
    rng = np.random.default_rng(3)
    walk = random_walk_klines(34 * 60, start_ms=START_MS)
    truths = times(walk, np.exp(rng.normal(0, 2e-4, len(walk))))
    stand = LedgerStand(folder, [topic])
    stand.store("ETHUSDT", walk)
    stand.store("ETHUSDT", truths, "kraken")
    bases = [START_MS + HOUR_MS + number * every_min * MINUTE_MS for number in range(epochs)]
    given = answers_to(topic, walk, bases)
    stand.answer(given)
    book = EpochBook(stand.url)
    rows = [(answer.base_ms + topic.horizon_ms - START_MS) // MINUTE_MS - 1 for answer in given]
    book.write([epoch_of(topic, one, float(truths.close[row]), rng) for one, row in zip(given, rows, strict=True)])
    book.close()
    return stand


@pytest.mark.parametrize(
    ("epochs", "every_min", "judged", "is_proven"),
    [
        pytest.param(40, 45, 40, True, id="beyond doubt"),
        pytest.param(20, 90, 20, False, id="too few"),
        pytest.param(40, 10, 40, False, id="of some hours alone"),
        pytest.param(150, 10, 50, True, id="each third of many"),
    ],
)
def test_the_venue_and_the_rule_that_reputers_use_are_told(
    tmp_path: Path, epochs: int, every_min: int, judged: int, is_proven: bool
) -> None:
    topic = topic_of(1, Target.PRICE, 10)
    stand = scored_at_kraken(tmp_path, topic, epochs, every_min)
    book = EpochBook(stand.url)
    told = judge(topic, book, stand.homes, Candles(stand.homes))
    assert {name: (one.value, one.is_proven) for name, one in told.items()} == {
        TRUTH_VENUE: ("kraken", is_proven),
        BASE_RULE: ("minute", is_proven),
    }
    assert told[TRUTH_VENUE].evidence.startswith(f"fits {judged} of {judged} epochs")
    assert judge(topic_of(2, Target.PRICE, 10), book, stand.homes, Candles(stand.homes)) == {}
    book.close()
    stand.close()


def test_a_running_monitor_adopts_what_its_ledger_proves(tmp_path: Path) -> None:
    """And ends, to be started anew with it; the second adoption, of the default, ends nothing."""
    more = {"TRUTH_VENUE": "auto", "BASE_RULE": "auto", "VENUE_URLS": "kraken=http://127.0.0.1:9"}
    given, log = surroundings(tmp_path, "http://127.0.0.1:9", **more), tmp_path / "log"
    (tmp_path / "data").mkdir()
    stand = scored_at_kraken(tmp_path / "data", topic_of(1, Target.PRICE, 10), 40)
    book = EpochBook(stand.url)
    with monitoring(given, log) as monitor:
        eventually(lambda: book.adoptions().keys() == {TRUTH_VENUE, BASE_RULE}, 30, "both adoptions")
        assert monitor.popen.wait(60) == 0
    assert {name: one.value for name, one in book.adoptions().items()} == {TRUTH_VENUE: "kraken", BASE_RULE: "minute"}
    evidence = book.adoptions()[TRUTH_VENUE].evidence
    assert evidence.startswith("proven by 1 of 1 topics, contradicted by none: allora-testnet-1/1 fits 40 of 40 epochs")
    with monitoring(given, log) as monitor:
        eventually(monitor.is_well, 30, "the first look of the next")
        assert monitor.end() == 0
    lines = log.read_text()
    assert (lines.count('"adoption_written"'), lines.count('"ending_to_be_started_anew"')) == (2, 1)
    assert lines.count('"event":"adopted"') == 4, "each of both processes tells both"
    book.close()
    stand.close()
