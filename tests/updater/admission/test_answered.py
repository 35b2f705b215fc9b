"""What inference's ledger tells the updater: the time between blocks, and how late topics are answered."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from core.topic import Topic
from ledger.answer_log import Ledger
from ledger.answers import Answer
from tests.fakes.clock import START_MS, FakeClock, eventually
from tests.updater.folder import BTC, ETH
from updater.admission.answered import ANSWERS, answered_of, block_ms_of

TOPIC = replace(BTC, network="allora-testnet-1", epoch_length_blocks=35)
OTHER = replace(ETH, network="allora-testnet-1", epoch_length_blocks=35)
NOW_MS, BLOCK_MS = START_MS, 8571.0
NOTHING = (None, 0, None)


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.sqlite3'}"


def answers(
    topic: Topic, count: int, source: str = "chain", *, after_ms: int = 95_000, until_ms: int = NOW_MS
) -> list[Answer]:
    """The last questions before a moment, each answered so long after its base."""
    found = []
    for number in range(count):
        height = 7_000_000 - 35 * (number + 1)
        block_ms = round(until_ms - 35 * (number + 1) * BLOCK_MS)
        base_ms = block_ms // MINUTE_MS * MINUTE_MS
        found.append(
            Answer(
                topic_id=topic.topic_id,
                height=height,
                network=topic.network or "",
                value="1",
                version="persistence",
                symbol=topic.symbol,
                target=topic.asked,
                horizon_min=topic.horizon_min,
                anchor=1.0,
                anchor_asof_ms=base_ms,
                asof_ms=base_ms,
                answered_ms=base_ms + after_ms,
                market="BINANCE",
                base_ms=base_ms,
                base_source=source,
                block_ms=block_ms if source in {"chain", "dry_run"} else None,
            )
        )
    return found


def write(folder: Path, kept: Iterable[Answer]) -> Ledger:
    """What inference keeps; it is still running when the updater reads."""
    ledger = Ledger(url_of(folder), [TOPIC, OTHER], "BINANCE", FakeClock(), folder)
    for answer in kept:
        ledger.keep(answer)
    return ledger


def measured(folder: Path, topic: Topic = TOPIC, now_ms: int = NOW_MS) -> tuple[float | None, int, float | None]:
    found = answered_of(url_of(folder), [TOPIC, OTHER], now_ms).get(topic.key)
    return (found.block_ms, found.nonce_ms, found.known_s) if found else NOTHING


def test_the_ledger_is_read_while_inference_writes_it_and_afterwards(tmp_path: Path) -> None:
    kept = answers(TOPIC, 100)
    ledger = write(tmp_path, kept)
    try:
        eventually(lambda: not ledger.unwritten)
        block_ms, nonce_ms, known_s = measured(tmp_path)
        assert block_ms == pytest.approx(BLOCK_MS, rel=1e-4)
        assert (nonce_ms, known_s) == (kept[0].block_ms, 95.0)
        assert measured(tmp_path, OTHER) == (block_ms, 0, None), "the network's blocks, and no answer of its own"
    finally:
        ledger.close()
    assert measured(tmp_path) == (block_ms, nonce_ms, known_s), "when inference has ended"


@pytest.mark.parametrize(
    ("kept", "known_s"),
    [
        pytest.param(answers(TOPIC, ANSWERS), 95.0, id="enough"),
        pytest.param(answers(TOPIC, ANSWERS - 1), None, id="too few"),
        pytest.param(answers(TOPIC, ANSWERS, "dry_run", after_ms=120_004), 120.004, id="the dry-run node's"),
        pytest.param(answers(TOPIC, ANSWERS, "guess"), None, id="guessed bases"),
        pytest.param(answers(TOPIC, ANSWERS, "asked", after_ms=0), None, id="bases of when it was asked"),
        pytest.param(
            [*answers(TOPIC, 100)[2:], *answers(TOPIC, 2, after_ms=3000)], 95.0, id="two of the newest fifty were early"
        ),
        pytest.param(
            [*answers(TOPIC, 100)[3:], *answers(TOPIC, 3, after_ms=3000)],
            3.0,
            id="three of the newest fifty were early",
        ),
        pytest.param(
            [*answers(TOPIC, ANSWERS), *answers(TOPIC, 100, after_ms=3000)[ANSWERS:]],
            95.0,
            id="the older ones were early",
        ),
    ],
)
def test_what_nearly_all_of_the_newest_answers_had_is_guaranteed(
    tmp_path: Path, kept: list[Answer], known_s: float | None
) -> None:
    write(tmp_path, kept).close()
    assert measured(tmp_path)[2] == known_s


def test_what_is_older_than_a_week_counts_no_more(tmp_path: Path) -> None:
    write(tmp_path, answers(TOPIC, 100)).close()
    assert measured(tmp_path, now_ms=NOW_MS + 8 * DAY_MS) == NOTHING


def test_blocks_of_the_dry_run_node_measure_nothing(tmp_path: Path) -> None:
    write(tmp_path, answers(TOPIC, 100, "dry_run")).close()
    assert measured(tmp_path)[:2] == NOTHING[:2]


def test_a_halt_and_a_wrong_time_do_not_move_the_time_between_blocks() -> None:
    heights = 35 * np.arange(500)
    times = np.round(BLOCK_MS * heights + np.random.default_rng(0).uniform(0, 4 * SECOND_MS, 500))
    times[250:] += 6 * HOUR_MS  # it stood still
    times[100] -= 40 * HOUR_MS
    found = block_ms_of(dict(zip(heights.tolist(), times.astype(int).tolist(), strict=True)))
    assert found == pytest.approx(BLOCK_MS, rel=2e-3)


@pytest.mark.parametrize(
    "times",
    [
        pytest.param({}, id="no block"),
        pytest.param({35 * n: 300_000 * n for n in range(20)}, id="an hour and a half"),
        pytest.param({n: 300_000 * n for n in range(500)}, id="five minutes a block"),
        pytest.param({1000 - n: 300_000 * n for n in range(500)}, id="heights that fall"),
        pytest.param({n: 10 * n for n in range(500_000, 0, -999)}, id="ten milliseconds a block"),
    ],
)
def test_what_cannot_be_a_chains_is_not_measured(times: dict[int, int]) -> None:
    assert block_ms_of(times) is None


def test_without_a_ledger_nothing_is_measured_and_none_is_made(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert measured(tmp_path) == NOTHING
    assert (logs, [*tmp_path.iterdir()]) == ([], [])


@pytest.mark.parametrize("content", [b"", b"no database at all, and longer than a header of SQLite's is" * 40])
def test_a_ledger_that_cannot_be_read_is_said_and_nothing_is_measured(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(content)
    with capture_logs() as logs:
        assert measured(tmp_path) == NOTHING
    assert [line["event"] for line in logs] == ["ledger_not_read"]


def test_a_ledger_of_an_earlier_release_is_not_changed(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as connection, connection:
        connection.execute("CREATE TABLE answers (network, topic_id, height, answered_ms)")
    with capture_logs() as logs:
        assert measured(tmp_path) == NOTHING
    assert "base_ms" in logs[0]["reason"]


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "postgresql://127.0.0.1:1/x"])
def test_a_database_that_is_not_there_is_said(url: str) -> None:
    with capture_logs() as logs:
        assert answered_of(url, [TOPIC], NOW_MS) == {}
    assert [line["event"] for line in logs] == ["ledger_not_read"]
