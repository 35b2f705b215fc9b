"""What the page, the API and the monitor's own steps show of the chain."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from markupsafe import escape

from core.net.http_get import http_get
from ledger.database import Database
from ledger.epochs import NETWORK_ITSELF, Detail, EpochBook
from monitor.chain.filled import EpochRow
from monitor.chain.words import NOT_READ, contribution_words
from monitor.parts import Ground, build
from monitor.watched import Checked, TruthGap, Watched
from tests.fakes.clock import FakeClock, RunningClock
from tests.inference.stand import ETH_10M
from tests.ledger.test_answer_log import answer as answer_to
from tests.monitor.desk import desk
from tests.monitor.economy import OURS, epoch_rows, recorded, write
from tests.monitor.samples import NET, Sample, sample, served, serving, topic_entry, usual
from tests.monitor.stand import Stand
from truth.contract import Fault
from truth.unit import Unit

NOW_MS = 1_796_057_664_000
FIRST = f"{NET}/1"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(usual(NOW_MS), FakeClock(NOW_MS)) as url:
        yield url


def text(url: str) -> str:
    answer = http_get(url, 10.0)
    assert answer.status == 200, answer.body
    return answer.body.decode()


def got(url: str) -> Any:
    return json.loads(text(url))


def with_chain(**changes: Any) -> Sample:
    rows = epoch_rows(1, NET, end_ms=NOW_MS)
    known: dict[str, Any] = {"epochs": {FIRST: rows}, "reads_chain": True} | changes
    return sample(NOW_MS, [topic_entry(1, NOW_MS)], **known)


def test_the_headline_is_the_epochs_won_of_the_epochs_open(url: str) -> None:
    page = text(url)
    assert '<b class="big">12 of 16</b> epochs won of epochs open, 7 days; the end of 2 epochs was not seen' in page


def test_the_topics_say_where_each_stands(url: str) -> None:
    chain = {topic["topic_id"]: topic["chain"] for topic in got(f"{url}/api/topics")}
    assert (chain[1]["won"], chain[1]["lost"]) == (10, 1)
    assert chain[1]["worker"] == OURS
    assert chain[1]["logarithms"] is True
    assert (chain[1]["epochs"], chain[1]["rank"], chain[1]["ranked"]) == (10, 2.4, 5.0)
    assert chain[1]["reward"] == "3693607774335185879.3575657853002309"
    assert (chain[1]["seen"], chain[1]["note"]) == ("2026-11-30T16:54:04.000Z", "")
    assert (chain[79]["won"], chain[79]["epochs"], chain[79]["worker"]) == (0, 0, "")


def test_each_epoch_has_the_chain_s_own_numbers(url: str) -> None:
    epochs = {one["nonce"]: one for one in got(f"{url}/api/topics/{NET}/1/epochs?limit=1000")}
    for there in recorded():
        if there["topic"] != 1:
            continue
        one = epochs[there["nonce"]]
        assert one["score"] == there["scores"].get(OURS)
        assert one["reward"] == there["rewards"].get(OURS)
        assert one["answer"] == one["value"] == there["ours"]
        losses = there["losses"]
        assert one["combined_loss"] == (losses["combined"] if losses else None)
        assert one["combined_loss_without"] == (losses["one_out"][OURS] if losses else None)
    lost = epochs[297]
    assert (lost["won"], lost["reason"], lost["answer"], lost["value"]) == (
        False,
        "not asked, or not answered",
        None,
        None,
    )
    assert epochs[267]["missing"] == ["losses"]
    assert epochs[597]["above"]["score"].startswith("0.7734")


def test_the_limit_cuts_the_oldest(url: str) -> None:
    assert [one["nonce"] for one in got(f"{url}/api/topics/{NET}/1/epochs?limit=2")] == [597, 567]
    wrong = http_get(f"{url}/api/topics/{NET}/1/epochs?limit=0", 10.0)
    assert (wrong.status, wrong.body.decode().count("\n")) == (422, 0)
    assert http_get(f"{url}/api/topics/{NET}/999/epochs", 10.0).status == 404


def test_a_topic_s_page_has_losses_reward_and_contribution_in_words_without_script(url: str) -> None:
    page = text(f"{url}/topics/{NET}/1")
    assert "<b>10 of 13</b> epochs won of epochs open, 7 days; the end of 2 epochs was not seen." in page
    assert "-2.156 on average (median inferer 2.184, network 1.851, naive 1.851); log10 of the loss" in page
    assert "<dt>rank</dt><dd>2.4 of 5.0 inferers on average, by reward</dd>" in page
    assert "<dt>share of reward</dt><dd>27 % on average; 3.694 ALLO in all</dd>" in page
    assert "<dt>one place up</dt><dd>would have taken 2.752 ALLO where ours took 2.191 ALLO</dd>" in page
    assert "would be 2.52 times as high without our value</dd>" in page
    assert '<td class="l bad">lost</td><td class="l">not asked, or not answered</td>' in page
    for name in ("forecast", "median", "network", "naive"):
        assert f'<polyline class="{name}"' in page
    assert "<script" not in page


def test_without_rewards_the_rank_is_by_score_and_says_so() -> None:
    rows = []
    for epoch, answer in epoch_rows(1, NET, end_ms=NOW_MS):
        unpaid = Detail(tuple(one._replace(reward=None) for one in epoch.inside.inferers))
        rows.append((epoch._replace(reward=None, detail=unpaid.packed()), answer))
    with served(with_chain(epochs={FIRST: rows}), FakeClock(NOW_MS)) as url:
        page = text(f"{url}/topics/{NET}/1")
    assert "inferers on average, by score: no reward was seen</dd>" in page
    assert "<dt>share of reward</dt>" not in page


def test_without_a_chain_one_line_says_how_to_read_it() -> None:
    with served(sample(NOW_MS, [topic_entry(79, NOW_MS), topic_entry(1, NOW_MS)]), FakeClock(NOW_MS)) as url:
        assert [text(f"{url}{path}").count(escape(NOT_READ)) for path in ("/", f"/topics/{NET}/79")] == [1, 1]
        assert [topic["chain"] for topic in got(f"{url}/api/topics")] == [None, None]
        assert got(f"{url}/api/topics/{NET}/79/epochs") == []


def test_contract_unit_and_truth_are_told_and_hostile_text_is_escaped() -> None:
    fault = Fault(name="loss", what="the chain scores by <b>focal</b>", remedy="set Loss", is_sure=False)
    checked = Checked(contract=[fault], unit=Unit(line="0.4 robust deviations"), truth=TruthGap(0.25, 20))
    with served(with_chain(chain={FIRST: checked}), FakeClock(NOW_MS)) as url:
        page = text(f"{url}/topics/{NET}/1")
    assert "<dt>Contract</dt><dd>the chain scores by &lt;b&gt;focal&lt;/b&gt; (set Loss)</dd>" in page
    assert "<dt>Unit</dt><dd>0.4 robust deviations</dd>" in page
    assert "is 0.25 basis points from ours (median of 20 epochs)</dd>" in page
    with served(with_chain(chain={FIRST: Checked(contract=[])}), FakeClock(NOW_MS)) as url:
        page = text(f"{url}/topics/{NET}/1")
    assert "<dt>Contract</dt><dd>horizon, loss and form of the answer are those of the chain</dd>" in page
    assert "<dt>Unit</dt>" not in page


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chain_seen_ms": {NET: NOW_MS - 3_600_000}}, "Chain not seen since 2026-11-30 15:54 UTC: birnn doctor"),
        ({"chain_seen_ms": {NET: NOW_MS - 60_000}, "reads_chain": False}, "16:53 UTC: LCD_URLS is no longer set"),
        ({}, "The chain has not been seen yet"),
    ],
)
def test_a_chain_out_of_sight_is_told_and_the_old_numbers_stay(changes: dict[str, Any], said: str) -> None:
    with served(with_chain(**changes), FakeClock(NOW_MS)) as url:
        for path in ("/", f"/topics/{NET}/1"):
            assert said in text(f"{url}{path}")
        (topic,) = got(f"{url}/api/topics")
        assert said in topic["chain"]["note"]
        assert topic["chain"]["won"] == 10


def test_epochs_that_cannot_be_read_are_one_line_and_the_page_stays() -> None:
    def locked(_: str, __: int) -> list[EpochRow]:
        raise sa.exc.OperationalError("SELECT", None, Exception("database is locked"))

    with served(usual(NOW_MS), FakeClock(NOW_MS), epochs=locked) as url:
        answer = http_get(f"{url}/api/topics/{NET}/1/epochs", 10.0)
        assert (answer.status, answer.body) == (503, b"the ledger cannot be read: database is locked; ask again later")
        assert "cannot be read: database is locked" in text(f"{url}/topics/{NET}/1")


def test_epochs_of_the_ledger_come_back_as_they_were_written(tmp_path: Path) -> None:
    stand = Stand(tmp_path, ())
    rows = epoch_rows(1, NET, end_ms=NOW_MS)
    write(stand.url, rows)
    book = EpochBook(stand.url)
    try:
        assert book.epochs_of(FIRST, 100) == rows
    finally:
        book.close()
        stand.close()


def test_a_value_that_moves_nothing_is_said_to_earn_nothing() -> None:
    assert "earns nothing" in contribution_words("0", True)
    assert contribution_words(None, True) == "not known"
    assert contribution_words("-0.5", None) == (
        "the network's loss would be 0.5 lower without our value: it would do better"
    )


def test_the_last_answer_is_the_ledger_s_while_inference_was_never_seen(tmp_path: Path) -> None:
    clock = RunningClock()
    with desk(tmp_path, clock, topics=[ETH_10M]) as running:
        Database(running.settings.ledger_url, clock).write([answer_to(height, str(height)) for height in (7, 9, 8)])
        ground = Ground(
            settings=running.settings, topics=[ETH_10M], clock=clock, alarms=running.book, newest=lambda: None
        )
        parts = build(ground)
        try:
            next(step for step in parts.steps if step.name == "record").run()
            parts.seen(running.watch.look())
            with serving(parts.app) as url:
                (topic,) = got(f"{url}/api/topics")
        finally:
            parts.end()
    assert (topic["state"], topic["last_answer"]["height"], topic["last_answer"]["value"]) == ("unknown", 9, "9")


@pytest.mark.parametrize("lcd_urls", ["", "http://127.0.0.1:9"])
def test_the_monitor_reads_its_ledger_one_topic_at_a_time(tmp_path: Path, lcd_urls: str) -> None:
    topics = (ETH_10M, replace(ETH_10M, topic_id=2))
    clock = RunningClock()
    now_ms = clock.now_ms()
    with desk(tmp_path, clock, topics=topics, lcd_urls=lcd_urls) as running:
        write(running.settings.ledger_url, epoch_rows(1, NET, end_ms=now_ms))
        book = EpochBook(running.settings.ledger_url)
        book.note(NET, NETWORK_ITSELF, now_ms, {})
        book.close()
        looks: list[Watched] = []
        ground = Ground(
            settings=running.settings,
            topics=topics,
            clock=clock,
            alarms=running.book,
            newest=lambda: looks[-1] if looks else None,
        )
        parts = build(ground)
        try:
            step = next(step for step in parts.steps if step.name == "epochs")
            for _ in topics:
                step.run()
            parts.seen(running.watch.look())
            with serving(parts.app) as url:
                chain = {topic["topic_id"]: topic["chain"] for topic in got(f"{url}/api/topics")}
                newest = got(f"{url}/api/topics/{NET}/1/epochs?limit=1")
                metrics = text(f"{url}/metrics")
            checked = parts.checked()
        finally:
            parts.end()
    assert (chain[1]["won"], chain[1]["lost"], chain[1]["rank"]) == (10, 1, 2.4)
    assert chain[2]["epochs"] == 0
    assert ("LCD_URLS is no longer set" in chain[1]["note"]) is not bool(lcd_urls)
    assert [one["nonce"] for one in newest] == [597]
    assert f'birnn_chain_epochs_won{{network="{NET}",topic="1"}} 10.0' in metrics
    assert f'birnn_chain_epochs_lost{{network="{NET}",topic="1"}} 1.0' in metrics
    assert f'birnn_chain_epochs_won{{network="{NET}",topic="2"}}' not in metrics  # no epoch was seen
    assert set(checked) == {topic.key for topic in topics}
