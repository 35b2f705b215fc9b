"""``birnn scores`` and ``birnn status`` show what the chain made of the answers: the monitor's own numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from core.clock import HOUR_MS, SystemClock
from ledger.epochs import NETWORK_ITSELF, EpochBook
from monitor.chain.api import EpochShape
from monitor.chain.results import ChainSeen, on_chain, results_of
from monitor.chain.words import NOT_READ, chain_shape
from tests.cli.ledger import NETWORK, Ledger, make_ledger
from tests.fakes.net import free_port
from tests.monitor.economy import epoch_rows, write

KEY = f"{NETWORK}/1"
LCD = {"LCD_URLS": "http://127.0.0.1:9"}


@pytest.fixture
def now_ms() -> int:
    return SystemClock().now_ms()


@pytest.fixture
def ledger(tmp_path: Path, now_ms: int) -> Ledger:
    made = make_ledger(tmp_path, now_ms, days=1, every_min=60)
    write(url_of(made), epoch_rows(1, NETWORK, end_ms=now_ms))
    return made


def url_of(ledger: Ledger) -> str:
    return f"sqlite:///{ledger.folder / 'ledger.sqlite3'}"


def see(ledger: Ledger, seen_ms: int) -> None:
    book = EpochBook(url_of(ledger))
    book.note(NETWORK, NETWORK_ITSELF, seen_ms, {})
    book.close()


def ran(ledger: Ledger, *arguments: str, **more: str) -> str:
    given = {"COLUMNS": "120", "PATH": "/usr/bin:/bin", "PORT": str(free_port()), "HOST": "127.0.0.1"}
    ended = CliRunner().invoke(app, list(arguments), env={**given, **ledger.environment, **more})
    assert ended.exit_code == 0, ended.stderr
    return ended.stdout


def test_both_verbs_say_what_the_page_says(ledger: Ledger, now_ms: int) -> None:
    see(ledger, now_ms)
    rows = epoch_rows(1, NETWORK, end_ms=now_ms)
    seen = ChainSeen(True, {NETWORK: now_ms}, {KEY: on_chain(rows, now_ms)})
    shape = chain_shape(seen, KEY, now_ms)
    assert shape is not None
    expected = shape.model_dump()
    status = {one["topic_id"]: one["chain"] for one in json.loads(ran(ledger, "status", "--json", **LCD))["topics"]}
    assert status[1] == expected
    assert status[79]["won"] == 0
    scores: dict[str, Any] = json.loads(ran(ledger, "scores", "--json", **LCD))
    chain = {one["topic_id"]: one for one in scores["chain"]}
    assert {name: chain[1][name] for name in expected} == expected
    epochs = [one for one in scores["epochs"] if one["topic_id"] == 1]
    names = EpochShape.model_fields
    assert [{name: one[name] for name in names} for one in epochs] == [
        EpochShape.of(result).model_dump(mode="json") for result in results_of(rows)
    ]


def test_the_text_has_the_headline_and_of_a_chosen_topic_where_it_stands(ledger: Ledger, now_ms: int) -> None:
    see(ledger, now_ms)
    headline = "10 of 13 epochs won of epochs open, 7 days"
    assert headline in ran(ledger, "status", **LCD)
    every = ran(ledger, "scores", **LCD)
    assert headline in every
    assert "topic 1: 10 of 13 epochs won" in every
    assert "share of reward" not in every
    one = " ".join(ran(ledger, "scores", "--topic", "1", **LCD).split())
    assert "in the newest 10 settled epochs: loss: -2.156 on average" in one
    assert "rank: 2.4 of 5.0 inferers on average, by reward" in one
    assert "share of reward: 27 % on average; 3.694 ALLO in all" in one
    assert "one place up: would have taken 2.752 ALLO where ours took 2.191 ALLO" in one
    assert "contribution: the network's loss would be 2.52 times as high without our value" in one


def test_a_chain_that_is_not_read_is_one_line(tmp_path: Path, now_ms: int) -> None:
    ledger = make_ledger(tmp_path, now_ms, days=1, every_min=60)
    for verb in ("status", "scores"):
        assert " ".join(ran(ledger, verb).split()).count(NOT_READ) == 1
    assert json.loads(ran(ledger, "scores", "--json"))["chain"] == []


def test_a_chain_that_went_away_is_told(ledger: Ledger, now_ms: int) -> None:
    see(ledger, now_ms - HOUR_MS)
    for verb in ("status", "scores"):
        out = ran(ledger, verb, **LCD)
        assert "Chain not seen since" in out
        assert "10 of 13" in out
