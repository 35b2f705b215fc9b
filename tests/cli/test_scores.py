"""``birnn scores``: the ledger's scores by topic, version and day, as a table, JSON and files; faults in one line."""

import csv
import json
import math
import re
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli.main import app
from cli.scores.record import NotScorable
from cli.scores.summary import By, Summary, summaries
from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SystemClock, iso
from core.topic import Target, Topic
from ledger.schema import scores as table
from ledger.scores import Columns, ScoreBook, columns_of
from model.judging.skill import skill_of
from model.stretch import STRETCH_COSTS
from monitor.skills import SkillBook
from node.config_file import topics_from_config
from tests.cli.ledger import (
    FIRST,
    HORIZONS_MIN,
    MISSING,
    NETWORK,
    SECOND,
    Ledger,
    answer_of,
    make_ledger,
    write_config,
    write_ledger,
)


def birnn(environment: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    ended = CliRunner().invoke(app, ["scores", *arguments], env={"COLUMNS": "80", **environment})
    return ended.exit_code, ended.stdout, ended.stderr


def document(ledger: Ledger, *arguments: str) -> dict[str, Any]:
    code, out, err = birnn(ledger.environment, "--json", *arguments)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return make_ledger(tmp_path_factory.mktemp("ledger"), SystemClock().now_ms() // DAY_MS * DAY_MS)


@pytest.fixture
def ledger(made: Ledger, tmp_path: Path) -> Ledger:
    """A copy, which a test may change."""
    shutil.copytree(made.folder, tmp_path, dirs_exist_ok=True)
    places = {"DATA_DIR": str(tmp_path), "CONFIG_FILE": str(tmp_path / "config.json")}
    return replace(made, folder=tmp_path, environment={**made.environment, **places})


def span(ledger: Ledger, days: int = 5) -> tuple[int, int]:
    """Whole days up to today, as options of the verb say them."""
    until_ms = SystemClock().now_ms() // DAY_MS * DAY_MS
    return until_ms - days * DAY_MS, until_ms


def options(since_ms: int, until_ms: int) -> tuple[str, ...]:
    return "--since", iso(since_ms)[:10], "--until", iso(until_ms)[:10]


def separately(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The same numbers by another way: row by row, in plain Python."""
    scored = [row for row in rows if not row["reason"]]
    if not scored:
        return {"n": 0}
    loss, naive = (math.fsum(row[name] for row in scored) / len(scored) for name in ("loss", "naive_loss"))
    moved = [row["right_direction"] for row in scored if row["right_direction"] is not None]
    return {
        "n": len(scored),
        "loss": loss,
        "naive_loss": naive,
        "skill": 1 - loss / naive,
        "right_direction": sum(moved) / len(moved),
        "error_bp": math.fsum(row["error_bp"] for row in scored) / len(scored),
        "abs_error_bp": math.fsum(abs(row["error_bp"]) for row in scored) / len(scored),
    }


def assert_equal(row: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert row["skill"]["n"] == expected["n"]
    assert row["skill"]["skill"] == pytest.approx(expected["skill"], rel=1e-9)
    for name in ("loss", "naive_loss", "right_direction", "error_bp", "abs_error_bp"):
        assert row[name] == pytest.approx(expected[name], rel=1e-9), name


def test_each_topic_equals_a_separate_calculation(ledger: Ledger) -> None:
    since_ms, until_ms = span(ledger)
    found = document(ledger, *options(since_ms, until_ms))
    assert (found["since"], found["until"], found["by"]) == (iso(since_ms), iso(until_ms), "topic")
    assert [row["topic_id"] for row in found["scores"]] == [1, 64, 79]
    for row in found["scores"]:
        rows = ledger.of(row["topic_id"], since_ms, until_ms)
        assert_equal(row, separately(rows))
        assert row["not_scorable"] == {MISSING: sum(bool(one["reason"]) for one in rows)}
        scored = [one for one in rows if not one["reason"]]
        ticks = np.array([one["end_ms"] // MINUTE_MS for one in scored])
        losses, naive = (np.array([one[name] for one in scored]) for name in ("loss", "naive_loss"))
        interval = skill_of(ticks, losses, naive, HORIZONS_MIN[row["topic_id"]])
        assert row["skill"]["low"] == pytest.approx(interval.low, rel=1e-9)
        assert row["skill"]["high"] == pytest.approx(interval.high, rel=1e-9)
        assert row["skill"]["low"] < row["skill"]["skill"] < row["skill"]["high"]
        assert (row["network"], row["token"]) == (NETWORK, "ETH" if row["topic_id"] == 1 else "BTC")


def test_a_skill_that_a_stretch_costs_is_told_to_be_no_fault(ledger: Ledger) -> None:
    for objective, told in (("auto", STRETCH_COSTS), ("loss", "")):
        chosen = {**ledger.environment, "OBJECTIVE": objective, "COLUMNS": "500"}
        _, out, _ = birnn(chosen)
        assert (STRETCH_COSTS in out) is bool(told)
        _, out, _ = birnn(chosen, "--json")
        assert json.loads(out[out.index("{") :])["note"] == told


def test_the_newest_answers_are_told_by_the_names_of_the_api(ledger: Ledger) -> None:
    found = document(ledger, "--topic", "79")["answers"]
    assert len(found) == 50
    assert [row["height"] for row in found] == sorted((row["height"] for row in found), reverse=True)
    rows = {row["height"]: row for row in ledger.rows if row["topic_id"] == 79}
    assert not any(row["scored"] for row in found[:2]), "their intervals are not over"
    for row in found[3:]:
        expected = rows[row["height"]]
        assert row["scored"] is (not expected["reason"])
        for name in ("truth", "loss", "naive_loss", "version", "forecast"):
            assert row[name] == expected[name], name
        assert (row["value"], row["answered"]) == ("0.001", iso(expected["answered_ms"]))


def test_the_monitor_says_the_same_to_the_last_digit(ledger: Ledger) -> None:
    until_ms = span(ledger)[1] + 1
    topics = topics_from_config(ledger.folder / "config.json")
    book = ScoreBook(f"sqlite:///{ledger.folder / 'ledger.sqlite3'}")
    skills = SkillBook(book, topics)
    skills.load(until_ms)
    for days in (1, 7, 30):
        since = ("--since", iso(until_ms - days * DAY_MS), "--until", iso(until_ms))
        told = {f"{row['network']}/{row['topic_id']}": row["skill"] for row in document(ledger, *since)["scores"]}
        assert told == {topic.key: asdict(skills.skill(topic.key, days)) for topic in topics}
        assert all(skill["n"] for skill in told.values())
    by_version = document(ledger, "--by", "version", *since)["scores"]
    by_day = document(ledger, "--by", "day", *since)["scores"]
    for topic in topics:
        mine = [[row for row in rows if row["topic_id"] == topic.topic_id] for rows in (by_version, by_day)]
        expected = {name: asdict(skill) for name, skill in skills.by_version(topic.key).items()}
        assert {row["version"]: row["skill"] for row in mine[0]} == expected
        expected = {iso(day * DAY_MS)[:10]: asdict(skill) for day, skill in skills.by_day(topic.key).items()}
        assert {row["day"]: row["skill"] for row in mine[1] if row["skill"]["n"]} == expected
    book.close()


@pytest.mark.parametrize("by", ["version", "day"])
def test_each_version_and_each_day_equals_a_separate_calculation(ledger: Ledger, by: str) -> None:
    since_ms, until_ms = span(ledger)
    found = document(ledger, "--by", by, "--topic", "79", *options(since_ms, until_ms))
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in ledger.of(79, since_ms, until_ms):
        groups[row["version"] if by == "version" else iso(row["end_ms"])[:10]].append(row)
    assert {row[by] for row in found["scores"]} == set(groups)
    assert len(found["scores"]) == len(groups) == (3 if by == "version" else 5)
    for row in found["scores"]:
        assert_equal(row, separately(groups[row[by]]))


def test_days_and_moments_bound_the_ends_of_the_intervals(ledger: Ledger) -> None:
    until_ms = span(ledger)[1] - 3 * HOUR_MS
    at = iso(until_ms)
    found = document(ledger, "--topic", "1", "--days", "2", "--until", at)
    rows = [row for row in ledger.of(1, until_ms - 2 * DAY_MS, until_ms) if not row["reason"]]
    assert found["scores"][0]["skill"]["n"] == len(rows)
    ends = [row["end_ms"] for row in ledger.rows if row["topic_id"] == 1]
    assert until_ms in ends
    assert until_ms - 2 * DAY_MS in ends, "both bounds are tried: the first counts, the last does not"


def test_the_table_fits_80_columns_and_says_what_is_not_scorable(ledger: Ledger) -> None:
    for by in ("topic", "version", "day"):
        code, out, _ = birnn(ledger.environment, "--by", by)
        data, *lines = out.splitlines()
        assert code == 0
        assert data.startswith(f"data: {ledger.folder}")
        assert max(map(len, lines)) <= 80
        text = " ".join(" ".join(lines).split())
        assert "scored answers whose interval ended" in lines[0]
        assert "not scorable: binance: the candle of" in text
        for words in ("loss", "naive", "skill", "interval", "right", "error"):
            assert words in text
        cells = set(text.split())
        expected = {"topic": {"volatility", "log-return"}, "version": {"minute-1a2b3c", "persistence"}, "day": set()}
        assert expected[by] <= cells, "no cell is broken inside a word"
    _, out, _ = birnn({**ledger.environment, "COLUMNS": "160"}, "--by", "version")
    assert FIRST in out
    assert SECOND in out


def test_csv_and_parquet_hold_every_row_and_every_number(ledger: Ledger, tmp_path: Path) -> None:
    since_ms, until_ms = span(ledger)
    names = [column.name for column in table.c]
    expected = [
        tuple(row[name] for name in names)
        for topic_id in (1, 64, 79)
        for row in sorted(ledger.of(topic_id, since_ms, until_ms), key=lambda row: row["end_ms"])
    ]
    parquet, comma = tmp_path / "all.parquet", tmp_path / "all.csv"
    for path in (parquet, comma):
        code, out, err = birnn(ledger.environment, "--export", str(path), *options(since_ms, until_ms))
        assert code == 0, err
        assert f"{path}: {len(expected):,} rows" in out
    told = document(ledger, "--export", str(comma), *options(since_ms, until_ms))
    assert told == {"file": str(comma), "rows": len(expected), "since": iso(since_ms), "until": iso(until_ms)}
    frame = pl.read_parquet(parquet)
    assert frame.columns == names
    assert frame.schema["end_ms"] == pl.Int64
    assert frame.rows() == expected
    with comma.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == names
    assert [cell for row in rows for cell in row] == [
        "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        for row in expected
        for value in row
    ], "floats are written so that they can be read back to the last digit"
    read = pl.read_csv(comma, schema=frame.schema).with_columns(pl.col("reason", "loss_name").fill_null(""))
    assert read.equals(frame)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp")]


def test_reference_names_every_column_of_a_file() -> None:
    section = (Path(__file__).parents[2] / "docs" / "reference.md").read_text().partition("## Files of scores")[2]
    told = re.findall(r"^\| (`.*?) \|", section.partition("\n## ")[0], re.MULTILINE)
    assert [name for cell in told for name in re.findall(r"`(\w+)`", cell)] == [column.name for column in table.c]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """What a venue or a damaged row says is neither markup nor a command to the terminal."""
    hostile = '[bold red]\x1b[31m<script>alert(1)</script>\nnext, "line"'
    now_ms = SystemClock().now_ms() // DAY_MS * DAY_MS

    def change(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"version": hostile} | ({"reason": hostile} if row["reason"] else {})

    ledger = make_ledger(tmp_path, now_ms, days=2, change=change)
    for by in ("topic", "version"):
        code, out, _ = birnn(ledger.environment, "--by", by)
        assert code == 0
        assert "\x1b" not in out
        assert "[bold red]" in out
        assert max(map(len, out.splitlines()[1:])) <= 80
    assert {row["version"] for row in document(ledger, "--by", "version")["scores"]} == {hostile}
    path = tmp_path / "all.csv"
    assert birnn(ledger.environment, "--export", str(path))[0] == 0
    with path.open(newline="") as file:
        assert {row["version"] for row in csv.DictReader(file)} >= {hostile}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--by", "year"), "--by must be one of topic, version, day, was 'year'", id="by"),
        pytest.param(("--since", "yesterday"), "--since must be a UTC day or moment", id="no day"),
        pytest.param(("--until", "2026-13-01"), "--until must be a UTC day or moment", id="no month"),
        pytest.param(
            ("--since", "2026-11-02", "--until", "2026-11-01"), "--since 2026-11-02 is not before", id="backwards"
        ),
        pytest.param(("--since", "2999-01-01"), "--since 2999-01-01 is not before now", id="future"),
        pytest.param(
            ("--since", "2026-11-02", "--days", "3"), "--since and --days both say where the span begins", id="both"
        ),
        pytest.param(("--days", "0"), "--days", id="no days"),
        pytest.param(("--topic", "7"), "--topic 7: the config has no such topic; it has 1, 64, 79", id="topic"),
        pytest.param(("--network", "nowhere"), "the config has no such network; it has allora-testnet-1", id="network"),
        pytest.param(("--export", "a.xlsx"), "--export a.xlsx: a file of scores ends in .csv or .parquet", id="ending"),
        pytest.param(("--export", "/nowhere/a.csv"), "/nowhere/a.csv: No such file or directory", id="no folder"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(ledger: Ledger, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = birnn(ledger.environment, *arguments)
    assert code in {1, 2}
    assert err.count("\n") == 1, err
    assert said in err


def in_one_line(environment: Mapping[str, str]) -> str:
    code, out, err = birnn(environment)
    assert code in {1, 2}
    assert out.startswith("data: ")
    assert err.count("\n") == 1, err
    return err


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    return {"DATA_DIR": str(tmp_path), "CONFIG_FILE": str(write_config(tmp_path))}


def test_without_a_database_it_says_what_starts_everything(environment: Mapping[str, str], tmp_path: Path) -> None:
    said = in_one_line(environment)
    assert f"{tmp_path / 'ledger.sqlite3'}: not there yet: nothing has been answered here; scripts/run" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"], "reading makes no file"


def test_before_the_first_score_it_says_when_that_is_due(environment: Mapping[str, str], tmp_path: Path) -> None:
    path, now_ms = tmp_path / "ledger.sqlite3", SystemClock().now_ms()
    write_ledger(path, [], [])
    assert "nothing scored yet: nothing has been answered for these topics" in in_one_line(environment)
    path.unlink()
    base_ms = now_ms // MINUTE_MS * MINUTE_MS - MINUTE_MS
    later = answer_of(1, 5000, base_ms + MINUTE_MS)
    write_ledger(path, [later, answer_of(1, 4000, base_ms)], [])
    due = iso(base_ms + 10 * MINUTE_MS)[:16].replace("T", " ")
    assert f"the first answer's interval is over at {due}Z, and the monitor scores it then" in in_one_line(environment)
    path.unlink()
    write_ledger(path, [answer_of(1, 4000, base_ms - DAY_MS)], [])
    due = iso(base_ms - DAY_MS + 10 * MINUTE_MS)[:16].replace("T", " ")
    said = in_one_line(environment)
    assert f"the first interval was over at {due}Z" in said
    assert "both must run (birnn doctor says whether they do; scripts/run starts everything)" in said


def test_an_earlier_schema_names_the_process_that_brings_it_up_to_date(ledger: Ledger) -> None:
    with closing(sqlite3.connect(ledger.folder / "ledger.sqlite3")) as connection, connection:
        connection.executescript("DROP TABLE scores; DROP TABLE alembic_version")  # ledger_schema stays at 4
    said = in_one_line(ledger.environment)
    assert "has schema 4 of an earlier release, this release reads 5; python -m ledger upgrades it and keeps" in said


def test_a_later_schema_is_refused(ledger: Ledger) -> None:
    with closing(sqlite3.connect(ledger.folder / "ledger.sqlite3")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0006'")
    said = in_one_line(ledger.environment)
    assert f"{ledger.folder / 'ledger.sqlite3'}: has schema 6, this release reads 5; use the release that" in said


def test_a_locked_database_is_named(ledger: Ledger) -> None:
    with closing(sqlite3.connect(ledger.folder / "ledger.sqlite3")) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("BEGIN EXCLUSIVE")
        assert "ledger.sqlite3: is locked by another process" in in_one_line(ledger.environment)


@pytest.mark.parametrize("content", [b"no database at all, however long it is" * 40, None], ids=["foreign", "torn"])
def test_a_damaged_database_is_named(ledger: Ledger, content: bytes | None) -> None:
    path = ledger.folder / "ledger.sqlite3"
    if content is None:
        whole = path.read_bytes()
        content = whole[:4096] + b"\xff" * (len(whole) - 4096)
    path.write_bytes(content)
    assert "ledger.sqlite3: is damaged (" in in_one_line(ledger.environment)


def test_a_span_without_a_score_has_rows_of_nothing(ledger: Ledger) -> None:
    found = document(ledger, "--since", "2020-01-01", "--until", "2020-01-02")
    assert [row["skill"] for row in found["scores"]] == [{"n": 0, "skill": None, "low": None, "high": None}] * 3
    code, out, _ = birnn(ledger.environment, "--since", "2020-01-01", "--until", "2020-01-02")
    assert code == 0
    assert "0 scored answers whose interval ended from 2020-01-01 00:00 to 2020-01-02 00:00 UTC" in " ".join(
        out.split()
    )


TOPIC = Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=10)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 20 * DAY_MS // MINUTE_MS),
        st.sampled_from(["persistence", FIRST, SECOND]),
        st.sampled_from(["", "", "", "a", "b", "c", "d", "e", "f", "g"]),
        st.floats(0, 1e6),
        st.floats(0, 1e6),
        st.sampled_from([0.0, 1.0, math.nan]),
        st.floats(-1e6, 1e6),
    ),
    max_size=60,
)


@given(rows=ROWS)
def test_versions_and_days_sum_to_the_topic(rows: list[tuple[Any, ...]]) -> None:
    """No row is lost or counted twice, whatever the split."""
    scored = sorted((row for row in rows if not row[2]), key=lambda row: row[0])
    end, version, _, loss, naive, right, error = zip(*scored, strict=True) if scored else ((),) * 7
    names: dict[str, tuple[Any, ...]] = {
        "end_ms": tuple(one * MINUTE_MS for one in end),
        "version": version,
        "forecast": version,
        "loss": loss,
        "naive_loss": naive,
        "right_direction": right,
        "error_bp": error,
    }
    nothing = (0.0,) * len(scored)
    cells = [names.get(field.name, nothing) for field in fields(Columns)]
    found = columns_of(Columns, list(zip(*cells, strict=True)))
    missing = [NotScorable(row[1], row[0] * MINUTE_MS // DAY_MS, row[2], 1) for row in rows if row[2]]
    (whole,) = summaries(TOPIC, found, missing, By.TOPIC)
    assert whole.skill.n + sum(whole.not_scorable.values()) == len(rows)
    for by in (By.VERSION, By.DAY):
        parts = list(summaries(TOPIC, found, missing, by))
        assert len({part.name for part in parts}) == len(parts)
        assert sum(part.skill.n for part in parts) == whole.skill.n
        assert _total(parts) == pytest.approx(_total([whole]), rel=1e-9, abs=1e-9)
        assert sum(sum(part.not_scorable.values()) for part in parts) == sum(whole.not_scorable.values())


def _total(parts: list[Summary]) -> list[float]:
    """Sums of loss, naive loss, error and its size over all answers."""
    means = [(one.loss, one.naive_loss, one.error_bp, one.abs_error_bp) for one in parts]
    return [
        math.fsum(one.skill.n * (of[column] or 0.0) for one, of in zip(parts, means, strict=True))
        for column in range(4)
    ]


@pytest.mark.parametrize("by", ["version", "day"])
def test_the_verb_sums_to_the_topic_as_well(ledger: Ledger, by: str) -> None:
    whole, parts = (document(ledger, "--by", name)["scores"] for name in ("topic", by))
    for row in whole:
        mine = [part for part in parts if part["topic_id"] == row["topic_id"]]
        assert sum(part["skill"]["n"] for part in mine) == row["skill"]["n"]
        for name in ("loss", "naive_loss", "error_bp", "abs_error_bp"):
            total = math.fsum(part[name] * part["skill"]["n"] for part in mine if part["skill"]["n"])
            assert total == pytest.approx(row[name] * row["skill"]["n"], rel=1e-9), name
