"""What ``birnn status`` says of the way of our answers to the chain."""

from pathlib import Path

import pytest

from cli.status.arrival import arrival_lines, arrival_report
from core.clock import SystemClock
from core.settings import Market, Settings
from ledger.database import Database
from ledger.epochs import Arrival, Epoch, EpochBook, Stage
from monitor.chain.outcome import NOT_SEEN

WORKER = "allo1" + "q" * 38
TOPICS = [{"network": "net-1", "topic_id": 3}, {"network": "net-1", "topic_id": 9}]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a folder with a ledger that has four epochs of one topic."""
    monkeypatch.chdir(tmp_path)
    made = Settings(data_dir=tmp_path, market=Market.BINANCE)
    database = Database(made.ledger_url, SystemClock())
    database.make_ready()
    database.disconnect()
    row = Epoch("net-1", 3, 313, 1, 1, Stage.SETTLED, worker=WORKER, arrival=Arrival.EQUAL, active=True)
    book = EpochBook(made.ledger_url)
    book.write(
        [
            row,
            row._replace(nonce=343, arrival=Arrival.ABSENT, active=False),
            row._replace(nonce=373, arrival=Arrival.UNKNOWN, active=None, stage=Stage.GONE),
            row._replace(nonce=403, stage=Stage.OPEN),
        ]
    )
    book.close()
    return made


def test_a_topic_whose_answers_arrived_is_told_of_with_those_that_did_not(settings: Settings) -> None:
    report = arrival_report(settings, TOPICS)
    assert report == [
        {
            "topic": "net-1/3",
            "arrived": 1,
            "of": 2,
            "not_arrived": {"343": "not asked, or not answered"},
            "not_known": {"373": NOT_SEEN},
        }
    ]
    (line,) = arrival_lines(report)
    assert line == (
        "topic 3: answers to 1 of 2 epochs arrived on chain; epoch 343: not asked, or not answered; "
        "whether answers arrived on chain is not known of epoch 373: the chain was not seen"
    )


def test_without_a_ledger_nothing_is_said(tmp_path: Path) -> None:
    assert arrival_report(Settings(data_dir=tmp_path / "none", market=Market.BINANCE), TOPICS) == []
