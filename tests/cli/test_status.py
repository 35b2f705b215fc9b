"""``birnn status`` on terminals of 80, 120 and 200 columns: a sentence, tables that fit, and the same whole in JSON."""

import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from admission.readiness import Readiness, write_admission
from admission.words import ONE_NAIVE
from cli.main import app
from cli.status.report import status_report
from cli.status.tables import headline, status_tables
from core.clock import DAY_MS, MINUTE_MS, SystemClock
from core.settings import BaseRule, load_settings
from tests.answering import Answer, answering
from tests.cli.ledger import make_ledger, write_ledger
from tests.cli.test_ready import topic_entry
from tests.terminal import on_terminal
from tests.truth.test_adopted import ASKED, KRAKEN, write
from updater.state import Outcome, SeriesState, StateFile, Verdict

NETWORK = "allora-testnet-1"
VERSION = "minute-20261122T084500Z-1a2b3c"
EQUAL = "naive: the network adds nothing: an edge was taken out (no better than the naive forecast)"


def topic(topic_id: int, token: str, target: str, horizon: str, forecast: str) -> dict[str, Any]:
    """One topic as ``/topics`` has it."""
    return {
        "topic_id": topic_id,
        "token": token,
        "symbol": f"{token}USDT",
        "proxy": None,
        "target": target,
        "horizon": horizon,
        "loss": "mse",
        "network": NETWORK,
        "market": "SIMULATED",
        "ready": True,
        "reason": "",
        "champion": VERSION if forecast != "none" else None,
        "persistence": "" if forecast != "none" else "no champion yet",
        "forecast": {"none": "naive"}.get(forecast, forecast),
        "naive_because": {"naive": "the network adds nothing", "none": "no champion yet"}.get(forecast, ""),
        "anchor_age_ms": 412,
        "forecast_age_ms": 12_345,
        "stream": "",
        "last_answer": {
            "value": "101018.30123456789",
            "forecast": {"none": "naive"}.get(forecast, forecast),
            "version": VERSION,
            "answered_ms": SystemClock().now_ms(),
        },
    }


SIX = [
    topic(79, "BTC", "volatility", "15m", "network"),
    topic(1, "ETH", "price", "10m", "naive"),
    topic(14, "BTC", "price", "5m", "naive"),
    topic(2, "ETH", "price", "24h", "none"),
    topic(64, "BTC", "log_return", "8h", "naive"),
    topic(82, "SOL", "volatility", "15m", "network"),
]


@contextmanager
def endpoint(topics: list[dict[str, Any]]) -> Iterator[int]:
    """A server that answers ``/topics`` and ``/readyz``, and ``/healthz`` as the monitor; yields its port."""
    ready = all(topic["ready"] for topic in topics)
    known = {"/topics": (200, json.dumps(topics)), "/readyz": (200, "ready") if ready else (503, "not yet")}
    known["/healthz"] = (200, "ok")

    def answer(path: str) -> Answer:
        status, text = known.get(path, (404, ""))
        return status, text.encode(), {}

    with answering(answer) as url:
        yield int(url.rpartition(":")[2])


def verdict(topic_id: int, head: str, reason: str, *, promoted: bool) -> Verdict:
    losses = {"challenger": 0.9, "naive": 1.0, "p": 0.0123} if not reason.startswith("naive") else {}
    return Verdict.model_validate(
        {"challenger": 1.0, "naive": 1.0, "topic": f"{NETWORK}/{topic_id}", "symbol": "ETHUSDT", "head": head}
        | {"loss": "mse", "rows": 12_960, "promoted": promoted, "reason": reason}
        | losses
    )


REFUSED = "2 rows rejected, the first of 2023-11-15 16:40Z: low is above open or close"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of an updater that is alive, trains one panel, waits with another and tries a third again."""
    now_ms = SystemClock().now_ms()
    state = StateFile(tmp_path, SystemClock(), ["minute", "hour", "other"])
    verdicts = (
        verdict(14, "return-5m", EQUAL, promoted=True),
        verdict(2, "return-24h", "better than the naive forecast in only 3 of 8 blocks of time", promoted=False),
        verdict(1, "return-10m", "better than the naive forecast; there was no champion", promoted=True),
    )
    done = {"ok": True, "finished_ms": now_ms, "took_s": 93.0}
    state.finish(Outcome.model_validate({"panel": "minute", "version": VERSION, "verdicts": verdicts} | done))
    state.update_panel(
        "minute", running_since_ms=now_ms, progress="epoch 5 of 12, loss 0.71", per_cent=41.6, left_s=200.0
    )
    state.update_panel("hour", next_run_ms=now_ms + 60 * MINUTE_MS)
    state.finish(Outcome(panel="other", ok=False, reason="TrainingFailed: no klines", finished_ms=now_ms, took_s=1.0))
    newest_ms = now_ms // MINUTE_MS * MINUTE_MS - MINUTE_MS
    known = {"synced_ms": now_ms, "fetched_rows": 3, "gaps": 0, "newest_ms": newest_ms, "rejected": REFUSED}
    state.replace_series({"1000BONKUSDT-1m": SeriesState.model_validate(known)})
    return tmp_path


def shown(folder: Path, port: int, columns: int) -> list[str]:
    environment = {"DATA_DIR": str(folder), "PORT": str(port), "HOST": "127.0.0.1", "NO_COLOR": "1"}
    with on_terminal([sys.executable, "-m", "cli.main", "status"], columns, environment) as (terminal, process):
        assert process.wait(60) == 0
    return terminal.lines


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_it_fits_the_terminal_and_says_first_what_matters(folder: Path, columns: int) -> None:
    with endpoint(SIX) as port:
        lines = shown(folder, port, columns)
    assert lines[0] == "6 of 6 answered: 2 by a network with skill, 4 naive"
    assert str(folder) in "".join(lines[1:4])
    assert max(map(len, lines)) <= columns
    answers = [line.split() for line in lines if re.match(r" ?\d+ +[A-Z]{3} (price|log_return|volatility)", line)]
    assert [int(cells[0]) for cells in answers] == [1, 2, 14, 64, 79, 82]
    text = " ".join(" ".join(lines).split())
    version = VERSION if columns >= 140 else "minute-1a2b3c"
    for words in (
        "naive: the network adds nothing",
        "naive: no champion yet",
        f"network {version}",
        "training, 42 %, about 3 min left (epoch 5 of 12, loss 0.71)",
        "by RETRAIN_CRON (17 */6 * * *)",
        "the last training failed at",
        "TrainingFailed: no klines",
        "a new try, because the last training failed or left a symbol out",
        "1000BONKUSDT-1m",
    ):
        assert words in text, words


def test_a_network_that_adds_nothing_is_called_naive_and_not_green(folder: Path) -> None:
    with endpoint(SIX) as port:
        environment = {"DATA_DIR": str(folder), "PORT": str(port), "HOST": "127.0.0.1"}
        with on_terminal([sys.executable, "-m", "cli.main", "status"], 120, environment) as (terminal, process):
            assert process.wait(60) == 0
    green = re.findall(r"\x1b\[32m([^\x1b]*)\x1b", terminal.written)
    assert [text.strip() for text in green[:2]] == ["network minute-1a2b3c"] * 2
    said = " ".join(" ".join(green[2:]).split())
    assert said == "promoted: better than the naive forecast; there was no champion", "and nothing else is green"
    judged = next(line for line in terminal.lines if "return-5m" in line)
    assert "naive: the network adds nothing" in judged
    assert "promoted" not in judged
    assert ONE_NAIVE in " ".join(" ".join(terminal.lines).split())


def test_rows_that_go_on_with_a_line_are_indented_and_the_folder_is_named_once(folder: Path) -> None:
    with endpoint([topic | {"last_answer": None} for topic in SIX]) as port:
        lines = shown(folder, port, 80)
    assert "".join(line.strip() for line in lines).count(str(folder)) == 1
    begins = ("updater ", "minute panel: ", "hour panel: ", "other panel: ", "  next: ")
    first = next(number for number, line in enumerate(lines) if line.startswith("updater "))
    last = next(number for number, line in enumerate(lines) if line.startswith("judged in"))
    assert max(map(len, lines)) <= 80
    for line in lines[first:last]:
        assert not line.strip() or line.startswith((*begins, "    ")), line
    assert sum(line.startswith("    ") for line in lines[first:last]) > 1
    assert sum("none yet" in line for line in lines) == len(SIX), "nothing was answered since the start"


def test_no_cell_of_a_table_is_broken_inside_a_word(folder: Path) -> None:
    topics = [topic | {"ready": False, "reason": "no fresh 1m candles of ETHUSDT yet"} for topic in SIX]
    with endpoint(topics) as port:
        lines = shown(folder, port, 80)
    words = set(" ".join(lines).split())
    for reason in (
        "no fresh 1m candles of ETHUSDT yet",
        "better than the naive forecast in only 3 of 8 blocks of time",
        REFUSED,
    ):
        assert set(reason.split()) <= words
    assert lines[0] == "0 of 6 answered; not answered: 1, 2, 14, 64, 79, 82"


def test_what_is_shortened_is_whole_in_json_and_nothing_else_is_said(folder: Path) -> None:
    with endpoint(SIX) as port:
        command = [sys.executable, "-m", "cli.main", "status", "--json", "--data-dir", str(folder)]
        given = {"PORT": str(port), "HOST": "127.0.0.1", "PATH": "/usr/bin:/bin"}
        ended = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=True)
    report = json.loads(ended.stdout)
    assert [topic["topic_id"] for topic in report["endpoint"]["topics"]] == [topic["topic_id"] for topic in SIX]
    panels = report["folders"][0]["updater"]["panels"]
    assert panels["minute"]["outcome"]["version"] == VERSION
    assert (panels["minute"]["per_cent"], panels["minute"]["left_s"]) == (41.6, 200.0)


def test_each_topic_has_its_skill_and_its_admission(folder: Path) -> None:
    """Of 1, 7 and 30 days, as ``birnn scores`` has them; by the names of the monitor's API."""
    now_ms = SystemClock().now_ms()
    ledger = make_ledger(folder, now_ms, days=9, every_min=15)
    write_admission(folder, now_ms, {f"{NETWORK}/79": Readiness.from_json(topic_entry(79, 3))})
    environment = {**ledger.environment, "PATH": "/usr/bin:/bin"}
    with endpoint([SIX[0], SIX[1], SIX[3]]) as port:
        given = {**environment, "PORT": str(port), "HOST": "127.0.0.1"}
        ran = CliRunner().invoke(app, ["status", "--json"], env=given)
        scored = CliRunner().invoke(app, ["scores", "--json", "--days", "7"], env=given)
        lines = shown(folder, port, 80)
    topics = {topic["topic_id"]: topic for topic in json.loads(ran.stdout)["topics"]}
    assert list(topics) == [1, 2, 79]
    assert set(topics[1]) == {"network", "topic_id", "token", "target", "horizon", "skill", "admission", "chain"}
    nothing = {"n": 0, "skill": None, "low": None, "high": None}
    assert topics[2]["skill"] == dict.fromkeys(("1d", "7d", "30d"), nothing)
    by_scores = {row["topic_id"]: row["skill"] for row in json.loads(scored.stdout)["scores"]}
    for topic_id in (1, 79):
        for days in (1, 7, 30):
            rows = [row for row in ledger.of(topic_id, now_ms - days * DAY_MS, now_ms + 1) if not row["reason"]]
            found = topics[topic_id]["skill"][f"{days}d"]
            loss, naive = (math.fsum(row[name] for row in rows) for name in ("loss", "naive_loss"))
            assert found["n"] == pytest.approx(len(rows), abs=1), "a row may leave the span meanwhile"
            assert found["skill"] == pytest.approx(1 - loss / naive, rel=0.05)
        assert topics[topic_id]["skill"]["7d"] == pytest.approx(by_scores[topic_id], rel=1e-2)
    assert topics[79]["admission"]["eligible"] is True
    assert topics[79]["admission"]["words"].startswith("would be admitted after a median of 3 days")
    assert topics[1]["admission"] is None
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "skill: the share of the naive forecast's loss that the answers saved" in text
    assert re.search(r"79 \d+\.\d % \d+\.\d % \d+\.\d % [\d,]+ yes", text)


def test_without_scores_the_status_says_why(folder: Path) -> None:
    with endpoint(SIX) as port:
        lines = shown(folder, port, 200)
        assert "skill unknown: nothing has been answered here yet" in lines
        write_ledger(folder / "ledger.sqlite3", [], [])
        lines = shown(folder, port, 200)
    assert "skill unknown: nothing was scored within 30 days (birnn scores says why)" in lines


def in_words(report: dict[str, Any]) -> str:
    console = Console(width=80, file=io.StringIO())
    with console.capture() as captured:
        for part in status_tables(report, 80):
            console.print(part)
    return " ".join(captured.get().split())


def test_an_updater_that_ended_is_not_alive_and_what_comes_next_is_no_date(folder: Path) -> None:
    state = StateFile(folder, SystemClock(), ["minute", "hour"])
    state.update_panel("minute", running_since_ms=1, next_run_ms=2)
    state.end()
    text = in_words(status_report(load_settings(data_dir=folder, port=1, market="binance")))
    assert "the updater is stopped since" in text
    assert "minute panel: its training was cut off; last trained" in text
    assert "hour panel: stopped; no training has ended yet" in text
    assert "next: after a start: at once if a topic has no usable champion, else by RETRAIN_CRON" in text
    assert "alive" not in text
    assert "1970" not in text


def test_the_last_value_is_beside_who_gave_it_and_when() -> None:
    by_network = topic(1, "ETH", "price", "10m", "naive")
    by_network["last_answer"] |= {"forecast": "network", "answered_ms": 1_795_338_761_000}
    text = in_words({"endpoint": {"answers": True, "topics": [by_network]}, "folders": [], "place": ""})
    assert "101018.301 11-22 09:12Z by" in text
    assert "minute-1a2b3c" in text
    text = in_words({"endpoint": {"answers": True, "topics": [SIX[1]]}, "folders": [], "place": ""})
    assert "minute-1a2b3c" not in text, "the naive forecast gave the value, and answers now"


def test_topics_that_are_not_forecast_yet_count_as_that() -> None:
    starting = [topic | {"forecast": None} for topic in SIX[:1]]
    assert headline({"answers": True, "topics": starting}) == "1 of 1 answered: 1 not forecast yet"


def test_what_the_chain_decided_is_said(tmp_path: Path) -> None:
    write(load_settings(data_dir=tmp_path, database_url=""), ASKED, KRAKEN)
    with endpoint(SIX) as port:
        more = {"BASE_RULE": "auto", "TRUTH_VENUE": "binance"}
        environment = {"DATA_DIR": str(tmp_path), "PORT": str(port), "HOST": "127.0.0.1", "NO_COLOR": "1", **more}
        with on_terminal([sys.executable, "-m", "cli.main", "status"], 120, environment) as (terminal, process):
            assert process.wait(60) == 0
        report = CliRunner().invoke(app, ["status", "--json"], env=environment)
    text = " ".join(" ".join(terminal.lines).split())
    when = "adopted 2023-11-14 22:13Z: fits 38 of 40 epochs; set BASE_RULE to overrule it"
    assert f"BASE_RULE=auto stands for asked, {when}" in text
    assert "TRUTH_VENUE=binance overrules kraken, adopted 2023-11-14 22:13Z: fits 39 of 40 epochs" in text
    adoptions = json.loads(report.output)["adoptions"]
    assert [(one["setting"], one["value"]) for one in adoptions] == [("BASE_RULE", "asked"), ("TRUTH_VENUE", "kraken")]


def test_a_ledger_that_cannot_be_read_is_told_only_where_a_setting_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(b"this is no database" * 1000)
    settings = load_settings(data_dir=tmp_path, database_url="", port=1)
    assert "adoptions_refused" not in status_report(settings)
    report = status_report(settings.model_copy(update={"base_rule": BaseRule.AUTO}))
    assert "is damaged" in report["adoptions_refused"]
    assert report["adoption_words"] == ["BASE_RULE=auto: nothing is adopted yet, so it stands for minute"]
