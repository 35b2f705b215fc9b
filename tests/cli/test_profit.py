"""``birnn profit``: epochs of a real local chain and the balances of a wallet in, rewards less fees out."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.profit.wallet import LATE_MS, steps_of
from core.clock import DAY_MS, MINUTE_MS, SystemClock
from ledger.epochs import Epoch, EpochBook
from monitor.chain.filled import EpochRow
from tests.cli.ledger import write_config, write_ledger
from tests.monitor.economy import BLOCK_MS, NETWORK, OURS, epoch_rows, write

FEE = 1_000  # uallo, of a submission
LOOK_MS = 4 * MINUTE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A ledger with the epochs of topics 1 and 3, the newest just now."""

    folder: Path
    rows: Sequence[EpochRow]

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'ledger.sqlite3'}"

    def run(self, *arguments: str, **more: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        environment = {"DATA_DIR": str(self.folder), "CONFIG_FILE": str(self.folder / "config.json"), "COLUMNS": "140"}
        ended = CliRunner().invoke(app, ["profit", *arguments], env={"MARKET": "binance", **environment, **more})
        return ended.exit_code, ended.stdout, ended.stderr

    def document(self, *arguments: str) -> dict[str, Any]:
        code, out, err = self.run("--json", *arguments)
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def write(self, rows: Sequence[EpochRow]) -> None:
        book = EpochBook(self.url)
        book.write([epoch for epoch, _ in rows])
        book.close()

    def read(self, balances: Sequence[tuple[int, int]]) -> None:
        """Keep readings of the wallet's balance."""
        book = EpochBook(self.url)
        for read_ms, amount in balances:
            book.note_balance(NETWORK, OURS, read_ms, str(amount))
        book.close()

    def follow(self, *, sent_after: int = -1, sent: int = 0) -> list[tuple[int, int]]:
        """Keep the readings of a wallet that pays FEE a submission; a transfer after one of the readings."""
        first = min(epoch.block_ms or 0 for epoch, _ in self.rows) - MINUTE_MS
        last = (
            max(epoch.seen_ms for epoch, _ in self.rows) + LOOK_MS
        )  # more often than the monitor, as the epochs are a minute long
        paid = [(paid_ms(epoch), int(Decimal(epoch.reward))) for epoch, _ in self.rows if epoch.reward is not None]
        fees = [(epoch.block_ms or 0, -FEE) for epoch, _ in self.rows if epoch.value is not None]
        readings = []
        for number, read_ms in enumerate(range(first, last, MINUTE_MS)):
            moved = sum(amount for at_ms, amount in [*paid, *fees] if at_ms < read_ms)
            readings.append((read_ms, 10**12 + moved - (sent if number > sent_after >= 0 else 0)))
        self.read(readings)
        return readings


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    write_ledger(tmp_path / "ledger.sqlite3", [], [])
    write_config(tmp_path)
    noon_ms = (SystemClock().now_ms() // DAY_MS - 1) * DAY_MS + DAY_MS // 2  # no midnight lies between the epochs
    rows = [row for topic_id in (1, 3) for row in epoch_rows(topic_id, end_ms=noon_ms)]
    made = Desk(folder=tmp_path, rows=rows)
    write(made.url, rows)
    return made


def paid_ms(epoch: Epoch) -> int:
    """The time of the settling block."""
    assert epoch.block_ms is not None
    assert epoch.settled_height is not None
    return epoch.block_ms + BLOCK_MS * (epoch.settled_height - epoch.nonce)


def rewards_of(rows: Sequence[EpochRow]) -> Decimal:
    return sum((Decimal(epoch.reward) for epoch, _ in rows if epoch.reward is not None), Decimal(0))


def submissions_of(rows: Sequence[EpochRow]) -> int:
    return sum(epoch.value is not None for epoch, _ in rows)


def test_rewards_are_the_chains_and_fees_what_left_the_wallet(desk: Desk) -> None:
    desk.follow()
    found = desk.document()
    lines = {line["topic_id"]: line for line in found["lines"]}
    assert list(lines) == [1, 3]
    for topic_id, line in lines.items():
        rows = [row for row in desk.rows if row[0].topic_id == topic_id]
        assert line["rewards"] == f"{rewards_of(rows):.0f}"
        assert (line["wallet"], line["submitted"]) == (OURS, submissions_of(rows))
    fees = sum(int(line["fees"]) for line in lines.values())
    assert abs(fees - FEE * submissions_of(desk.rows)) <= len(desk.rows)  # the chain pays whole uallo
    assert all(
        int(line["net"]) == pytest.approx(int(line["rewards"]) - int(line["fees"]), abs=1) for line in lines.values()
    )
    assert found["transfers"] == []


def test_what_was_not_seen_is_never_zero(desk: Desk) -> None:
    unseen = [(epoch._replace(reward=None), answer) for epoch, answer in desk.rows if epoch.reward is not None]
    desk.write(unseen)
    line = next(line for line in desk.document()["lines"] if line["topic_id"] == 1)
    assert line["rewards_not_seen"] > 0
    assert line["fees"] is None
    assert line["net"] is None
    only_won = [row for row in unseen if row[0].topic_id == 1]
    lost = [row for row in desk.rows if row[0].topic_id == 1 and row[0].reward is None]
    desk.write([(epoch._replace(worker=""), answer) for epoch, answer in lost])  # only won epochs of ours are left
    assert next(line for line in desk.document()["lines"] if line["topic_id"] == 1)["rewards"] is None
    _, out, _ = desk.run("--topic", "1")
    assert f"of {len(only_won)} won epochs the reward was not seen" in out
    assert f"wallet {OURS} of {NETWORK}: its balance was never read, so fees are not known" in out
    assert "0 ALLO" not in out


def test_epochs_that_nobody_saw_are_counted(desk: Desk) -> None:
    rows = [row for row in desk.rows if row[0].topic_id == 1]
    (before,) = desk.document("--topic", "1")["lines"]
    desk.write([(rows[4][0]._replace(worker=""), None)])
    (after,) = desk.document("--topic", "1")["lines"]
    assert after["not_seen"] == before["not_seen"] + 1
    assert after["epochs"] == before["epochs"]
    _, out, _ = desk.run("--topic", "1")
    assert "not seen on the chain: what they paid is not known" in out


def test_a_transfer_is_no_fee(desk: Desk) -> None:
    sent = 10**9
    desk.follow(sent_after=2, sent=sent)
    found = desk.document()
    assert [abs(int(one["amount"]) + sent) < 5 * FEE for one in found["transfers"]] == [True]
    fees = sum(int(line["fees"]) for line in found["lines"])
    assert fees < 2 * FEE * submissions_of(desk.rows)
    _, out, _ = desk.run()
    assert "left, by its size a transfer or a registration; it is not in the fees" in out


def test_money_that_came_in_is_no_reward(desk: Desk) -> None:
    desk.follow(sent_after=2, sent=-(10**18) * 5)
    found = desk.document()
    assert sum(int(one["amount"]) for one in found["transfers"]) == pytest.approx(5 * 10**18, rel=1e-6)
    assert "came in, a transfer or rewards that were not seen" in desk.run()[1]


def test_fees_before_the_first_reading_are_not_known(desk: Desk) -> None:
    earlier = [
        (epoch._replace(nonce=epoch.nonce - 600, seen_ms=epoch.seen_ms - DAY_MS, settled_height=None), None)
        for epoch, _ in desk.rows
    ]
    desk.write(earlier)
    desk.follow()
    days = {line["day"]: line["fees"] for line in desk.document("--topic", "1")["lines"]}
    assert [fees is None for _, fees in sorted(days.items())] == [True, False]
    assert "fees before that are not known" in desk.run()[1]


def test_the_table_and_the_file(desk: Desk, tmp_path: Path) -> None:
    desk.follow()
    code, out, _ = desk.run()
    assert code == 0
    assert f"{NETWORK}, wallet {OURS}" in out
    assert "rewards less fees" in out
    path = tmp_path / "profit.csv"
    assert desk.run("--export", str(path))[0] == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["topic_id"] for row in rows] == ["1", "3"]
    assert [row["rewards"] for row in rows] == [line["rewards"] for line in desk.document()["lines"]]


def test_what_cannot_be_accounted_for_is_said(desk: Desk, tmp_path: Path) -> None:
    assert "ends in .csv" in desk.run("--export", "x.parquet")[2]
    assert "there is no folder" in desk.run("--export", str(tmp_path / "none" / "x.csv"))[2]
    code, _, err = desk.run("--topic", "99", WORKER_ADDRESS=OURS, LCD_URLS="http://127.0.0.1:9")
    assert code == 1
    assert "No epoch of these topics was seen in that span" in err
    assert "set LCD_URLS" in desk.run("--topic", "99")[2]


def test_a_reward_that_is_seen_late_belongs_to_the_change_that_it_made() -> None:
    balances = [(0, "1000"), (LOOK_MS, "1095"), (2 * LOOK_MS, "1090"), (3 * LOOK_MS, "1085")]
    steps = steps_of(balances, [(LOOK_MS + LATE_MS, "100")])
    assert [step.fees for step in steps] == [5, 5, 5]
    assert all(not step.came and not step.sent for step in steps)


def test_a_reward_below_the_fee_raises_the_fee() -> None:
    balances = [(0, "1000"), (LOOK_MS, "995"), (2 * LOOK_MS, "990")]
    steps = steps_of(balances, [(LOOK_MS + MINUTE_MS, "2")])
    assert sum(step.fees for step in steps) == 12
