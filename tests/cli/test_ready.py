"""``birnn ready``: the criteria of a series, and of each topic what the updater found; one line for what is wrong."""

import json
import math
import os
import re
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from admission.criteria import criteria
from admission.live import NO_ANSWER
from admission.readiness import Readiness, write_admission
from cli.main import app
from cli.ready import News
from cli.series import read_series
from cli.status.report import status_report
from cli.status.tables import status_tables
from core.clock import SystemClock
from core.settings import load_settings
from ledger.answers import Answer
from ledger.database import Database
from ledger.scores import Score, ScoreBook
from tests.admission.test_criteria import NAMES, PUBLISHED
from tests.admission.test_criteria import series as published
from updater.state import StateFile

NETWORK = "allora-testnet-1"


def birnn(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    ended = CliRunner().invoke(app, ["ready", *arguments], env={"COLUMNS": "80", **environment})
    return ended.exit_code, ended.stdout, ended.stderr


def of_series(content: str | bytes, folder: Path, *options: str) -> tuple[int, str, str]:
    file = folder / "series.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return birnn("--series", str(file), "--horizon", "20m", "--ratio", "4", *options)


def as_csv(true: Any, pred: Any, gap: Any) -> str:
    rows = (f"{float(t)!r},{float(p)!r},{g}\n" for t, p, g in zip(true, pred, gap, strict=True))
    return "true,pred,gap\n" + "".join(rows)


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c['series']}-{c['horizon_min']}m") for c in PUBLISHED])
def test_the_published_vectors_agree(case: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "series.csv"
    given = published(case["series"])
    file.write_text(as_csv(given["truth"], given["forecast"], given["gap"]))
    options = ("--horizon", f"{case['horizon_min']}m", "--ratio", str(case["ratio"]))
    code, out, _ = birnn("--series", str(file), *options, "--submitted", "95", "--expected", "100", "--json")
    assert code == 0
    found = json.loads(out)
    assert list(found) == ["eligible", "criteria"]
    assert list(found["criteria"]) == NAMES
    for name, (value, bound, passed) in case["criteria"].items():
        expected = [None if number is None else pytest.approx(number, rel=1e-10) for number in (value, bound)]
        assert [found["criteria"][name][part] for part in ("value", "bound")] == expected, name
        assert found["criteria"][name]["passed"] is passed, name
    assert found["eligible"] is all(passed for _, _, passed in case["criteria"].values())


TRUE, PRED = np.random.default_rng(0).normal(0, 0.01, (2, 30))
ROWS = as_csv(TRUE, PRED, [1, *[2] * 29])


def test_epochs_that_are_not_given_are_counted_by_the_gaps(tmp_path: Path) -> None:
    _, out, _ = of_series(ROWS, tmp_path, "--json")
    assert json.loads(out)["criteria"]["participation"]["value"] == 30 / 59
    _, out, _ = of_series(ROWS, tmp_path, "--json", "--submitted", "95", "--expected", "100")
    assert json.loads(out)["criteria"]["participation"] == {"value": 0.95, "bound": 0.95, "passed": True}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("\ufeff" + ROWS, id="byte order mark"),
        pytest.param(ROWS.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(ROWS.replace("\n", "\r"), id="CR"),
        pytest.param("\n\n" + ROWS.replace("\n", "\n \n"), id="blank lines"),
        pytest.param(ROWS.replace(",", " , "), id="blanks around cells"),
        pytest.param("\n".join(",".join(line.split(",")[::-1]) for line in ROWS.splitlines()), id="other order"),
        pytest.param(ROWS.replace(",2\n", ",2.0\n"), id="whole gaps written as decimals"),
    ],
)
def test_the_same_series_written_otherwise(content: str, tmp_path: Path) -> None:
    assert of_series(content, tmp_path, "--json") == of_series(ROWS, tmp_path, "--json")


def test_what_is_not_finite_is_legal(tmp_path: Path) -> None:
    lines = ROWS.splitlines()
    lines[3], lines[5], lines[7] = "nan,0.1,2", "0.1,-inf,2", "Inf,NaN,2"
    code, out, _ = of_series("\n".join(lines), tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["criteria"]["n_eff"]["value"] <= 28


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", ": is empty; its first line must be true,pred,gap", id="empty"),
        pytest.param("\n \n", ": is empty", id="blank"),
        pytest.param("true,pred,gap\n", ": has no row below its header", id="no row"),
        pytest.param("0.1,-0.2,1\n", " line 1: is '0.1,-0.2,1' and no header; put the line", id="no header"),
        pytest.param("true,pred\n1,2\n", " line 1: column gap is missing, there are true,pred; add it", id="missing"),
        pytest.param("true,pred,gap,day\n", " line 1: column 'day' is not one of true,pred,gap; take", id="extra"),
        pytest.param("true,pred,gap,gap\n", " line 1: column gap is there 2 times; leave one", id="twice"),
        pytest.param("true;pred;gap\n0,1;0,2;1\n", " line 1: cells are separated by ';'; separate", id="semicolons"),
        pytest.param("true\tpred\tgap\n", r" line 1: cells are separated by '\t'", id="tabs"),
        pytest.param("true,pred,gap\n0.1,0.2\n", " line 2: has 2 cells, '0.1,0.2'; give 3", id="short row"),
        pytest.param("true,pred,gap\n0,1,0,2,1\n", " line 2: has 5 cells", id="commas in decimals"),
        pytest.param(
            "true,pred,gap\n1,1,1\n\n0,up,1\n", " line 4, column pred: 'up' is not a number; write one", id="text"
        ),
        pytest.param("true,pred,gap\n,0,1\n", " line 2, column true: '' is not a number", id="empty cell"),
        pytest.param("true,pred,gap\n,,\n", " line 2, column true: '' is not a number", id="commas alone"),
        pytest.param("true,pred,gap\n1_0,0,1\n", " line 2, column true: '1_0' is not a number", id="underscore"),
        pytest.param(
            "true,pred,gap\n64250.5,0,1\n", " line 2, column true: '64250.5' is no log-return; of a", id="a price"
        ),
        pytest.param("true,pred,gap\n0,0,0\n", " line 2, column gap: '0' is not a whole number from 1", id="gap 0"),
        pytest.param("true,pred,gap\n0,0,1\n0,0,-2\n", " line 3, column gap: '-2' is not a", id="negative gap"),
        pytest.param("true,pred,gap\n0,0,1.5\n", " line 2, column gap: '1.5' is not a", id="a fraction"),
        pytest.param("true,pred,gap\n0,0,nan\n", " line 2, column gap: 'nan' is not a", id="no gap"),
        pytest.param("true,pred,gap\n0,0,1e300\n", " line 2, column gap: '1e300' is not a", id="huge gap"),
        pytest.param(ROWS.encode("utf-16"), ": is UTF-16 text; save it as UTF-8", id="UTF-16"),
        pytest.param(ROWS.encode("utf-16-le"), ": is UTF-16 text; save it as UTF-8", id="UTF-16 without mark"),
        pytest.param(b"true,pred,gap\n0,\xff,1\n", " line 2: byte 0xff is not UTF-8; save it", id="other bytes"),
        pytest.param('true,pred,gap\n"' + "9" * 200_000, ": is not CSV (field larger than", id="a cell without end"),
    ],
)
@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["table", "json"])
def test_a_wrong_file_is_one_line(content: str | bytes, said: str, as_json: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = of_series(content, tmp_path, *as_json)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"birnn: {tmp_path / 'series.csv'}")
    assert said in line


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none.csv", "no such file; give a CSV"), (tmp_path, "is a folder; give a CSV")):
        code, out, err = birnn("--series", str(path), "--horizon", "20m", "--ratio", "4")
        assert (code, out, err) == (2, "", f"birnn: {path}: {said} with the columns true,pred,gap\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param((), "go together: give all three", id="neither horizon nor ratio"),
        pytest.param(("--horizon", "20m"), "go together: give all three", id="no ratio"),
        pytest.param(("--horizon", "20", "--ratio", "4"), "--horizon 20: a horizon is minutes, hours", id="horizon"),
        pytest.param(("--horizon", "20m", "--ratio", "0"), "must be 1 or more, were 20 min and 0", id="ratio"),
        pytest.param(("--horizon", "20m", "--ratio", "4", "--submitted", "3"), "give both, or leave", id="submitted"),
        pytest.param(
            ("--horizon", "20m", "--ratio", "4", "--submitted", "3", "--expected", "2"), "were 3 of 2", id="more"
        ),
        pytest.param(("--horizon", "20m", "--ratio", "4", "--topic", "1"), "leave out --topic and", id="a topic"),
    ],
)
def test_options_that_cannot_be_meant_are_one_line(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    file = tmp_path / "series.csv"
    file.write_text(ROWS)
    code, out, err = birnn("--series", str(file), *options)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert said in line


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.floats(-700, 700) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e-320]),
            st.floats(-700, 700) | st.sampled_from([math.nan, math.inf, 0.0]),
            st.integers(1, 5) | st.just(1_000_000),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_every_legal_series_has_an_answer(rows: list[tuple[float, float, int]], tmp_path: Path) -> None:
    file = tmp_path / "series.csv"
    file.write_text(as_csv(*zip(*rows, strict=True)))
    found = criteria(read_series(file, horizon_min=20, ratio=4))
    json.dumps({name: asdict(one) for name, one in found.items()}, allow_nan=False)


def test_the_table_begins_with_a_sentence_and_fits_80_columns(tmp_path: Path) -> None:
    _, out, _ = of_series(ROWS, tmp_path)
    lines = out.splitlines()
    assert out.startswith("would not be admitted: short of ")
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.rstrip().endswith((" yes", " no"))]
    assert len(rows) == len(NAMES)
    truth = np.random.default_rng(0).normal(0, 0.01, 100)
    _, out, _ = of_series(as_csv(truth, 0.9 * truth, [1] * 100), tmp_path)
    assert out.startswith("would be admitted: all seven hold (100 rows, 100 of 100 epochs answered)\n")


def standing(median: float | None, known_s: int | None, *, eligible: bool = True, holds: float | None = 0.83) -> Any:
    """As the updater writes it; not admitted topics lack a correlation."""
    criterion = {"value": 0.55, "bound": 0.51, "passed": True}
    short = {"value": None, "bound": None, "passed": False}
    return {
        "eligible": eligible,
        "known_s": known_s,
        "days": {"median": median, "p90": median and 2 * median, "never": 0.0 if median else 1.0},
        "holds": holds if median else None,
        "criteria": dict.fromkeys(NAMES, criterion) | ({} if eligible else {"pearson": short}),
    }


def topic_entry(topic_id: int, median: float | None, *, eligible: bool = True, network: str = NETWORK) -> Any:
    known = {"0": standing(None, 0, eligible=False), "60": standing(median, 60, eligible=eligible)}
    return {
        "network": network,
        "topic_id": topic_id,
        **standing(median, 60, eligible=eligible),
        "shown": known | {"120": standing(1, 120)},
        "stretch": {"factor": 1.28},
        "objective": "admission",
        "short": "" if eligible else "more wait would help: ANSWER_WAIT=120",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a config of four topics, and what was found of three of them."""
    config = json.loads(Path("config.example.json").read_text())
    config["worker"] = [one for one in config["worker"] if one["topicId"] in {82, 79, 64, 1}]
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = [topic_entry(82, 5), topic_entry(64, None, eligible=False), topic_entry(79, 3)]
    write(tmp_path, found)
    return tmp_path


def write(folder: Path, found: list[Any]) -> None:
    entries = {f"{one['network']}/{one['topic_id']}": Readiness.from_json(one) for one in found}
    write_admission(folder, 1_700_000_000_000, entries)


def asked(folder: Path, *arguments: str) -> tuple[int, str, str]:
    return birnn(*arguments, DATA_DIR=str(folder), CONFIG_FILE=str(folder / "config.json"))


def test_each_topic_is_told_after_a_sentence_on_80_columns(folder: Path) -> None:
    code, out, _ = asked(folder)
    data, *lines = out.splitlines()
    assert code == 0
    assert data == f"data: {folder} (DATA_DIR; no birnn run yet)"
    assert lines[0] == "2 of 4 topics would be admitted: after a median of 3 and 5 days; 1 not looked at"
    assert max(map(len, lines)) <= 80
    names = [line for line in lines if line.startswith("topic ")]
    assert [name.split()[1] for name in names] == ["1", "64", "79", "82", "64", "79", "82"], "sentences, then tables"
    assert names[4] == "topic 64 on allora-testnet-1, BTC log-return 8h"
    text = " ".join(out.split())
    for words in (
        "79 on allora-testnet-1, BTC volatility 15m: would be admitted after a median of 3 days; the criteria hold on "
        "83 % of the later days topic 82",
        "BTC log-return 8h: would not be admitted: short of correlation; more wait would help: ANSWER_WAIT=120",
        "not looked at yet: the updater does so within minutes of its start and after each training topic 64",
        "with 60 s known; the bound decides, not the value",
        "60 s (now) yes 5 10 0 % 83 %",
        "0 s no never never 100 %",
        "120 s yes 1 2 0 % 83 %",
        "computed 2023-11-14 22:13Z",
    ):
        assert words in text, words


@pytest.mark.parametrize("tape", ["seed-0", "replay-spot"])
def test_a_topic_of_invented_prices_is_marked_first(folder: Path, tape: str) -> None:
    simulated = folder / "simulated" / tape
    simulated.mkdir(parents=True)
    (folder / "admission.json").rename(simulated / "admission.json")
    mark = f"data: {simulated} (DATA_DIR, SIMULATED)"
    environment = {"DATA_DIR": str(simulated), "CONFIG_FILE": str(folder / "config.json"), "COLUMNS": "200"}
    assert birnn(**environment)[1].startswith(f"{mark}\n2 of 4 topics")
    _, out, err = birnn("--json", **environment)
    assert (len(json.loads(out)), err) == (4, f"{mark}\n")


def test_why_a_topic_is_not_admitted_is_read_once(folder: Path) -> None:
    some = {"days": {"median": None, "p90": None, "never": 0.88}}
    write(folder, [topic_entry(64, None, eligible=False) | some])
    _, out, _ = asked(folder, "--topic", "64")
    words = (
        "topic 64 on allora-testnet-1, BTC log-return 8h: would not be admitted: over all days short of correlation, "
        "though records begun on 12 % of the days met all seven at some time; more wait would help: ANSWER_WAIT=120"
    )
    assert words in " ".join(out.split())


def answer(folder: Path, topic_id: int, epochs: int, *, every: int = 1) -> None:
    """Answer a topic's newest epochs, with skill; each answer has come true."""
    url, clock = f"sqlite:///{folder / 'ledger.sqlite3'}", SystemClock()
    database, book = Database(url, clock), ScoreBook(url)
    database.make_ready()
    random = np.random.default_rng(1)
    epoch_ms = 54 * 5_000  # by the catalogue
    first = clock.now_ms() // epoch_ms - epochs
    steps = random.standard_normal(epochs + 2)
    truth = 1e-3 * (steps[:-2] + steps[1:-1] + steps[2:])
    for number in range(0, epochs, every):
        start_ms = (first + number) * epoch_ms
        said = answer_of(topic_id, height=number, value=0.4 * truth[number], start_ms=start_ms)
        database.write([said])
        book.write([score_of(said, truth=truth[number])])
    book.close()
    database.disconnect()


def answer_of(topic_id: int, *, height: int, value: float, start_ms: int) -> Answer:
    return Answer(
        network=NETWORK,
        topic_id=topic_id,
        height=height,
        value=repr(float(value)),
        version="minute-1",
        symbol="BTCUSDT",
        target="log_return",
        horizon_min=480,
        anchor=1.0,
        anchor_asof_ms=0,
        asof_ms=0,
        answered_ms=start_ms + 60_000,
        market="BINANCE",
        base_ms=start_ms,
    )


def score_of(said: Answer, *, truth: float) -> Score:
    return Score(
        network=said.network,
        topic_id=said.topic_id,
        height=said.height or 0,
        answered_ms=said.answered_ms,
        version=said.version,
        forecast="network",
        start_ms=said.base_ms,
        end_ms=said.base_ms + 1,
        scored_ms=1,
        truth=float(truth),
        plain_naive=0.0,
    )


def test_the_real_record_is_shown_beside_the_replay(folder: Path) -> None:
    answer(folder, 64, 400)
    _, out, _ = asked(folder, "--topic", "64")
    text = " ".join(out.split())
    assert "400 of 400 epochs since 20" in text
    assert "44 more epochs may be missed before participation falls to 90 %" in text
    assert "replayed with 60 s known; the bound decides" in text
    assert "really answered; the bound decides" in text
    assert max(map(len, out.splitlines()[1:])) <= 80
    live = json.loads(asked(folder, "--topic", "64", "--json")[1])[0]["live"]
    assert (live["submitted"], live["expected"], live["missed_left"]) == (400, 400, 44)
    assert list(live["criteria"]) == NAMES
    assert live["criteria"]["participation"] == {"value": 1.0, "bound": 1.0, "passed": True}


def test_epochs_that_were_missed_are_told(folder: Path) -> None:
    answer(folder, 64, 400, every=2)
    _, out, _ = asked(folder, "--topic", "64")
    assert re.search(
        r"200 of (399|400) epochs since 20\d\d-\d\d-\d\d \(50\.\d %\); no epoch may be missed", " ".join(out.split())
    )


def test_a_ledger_that_cannot_be_read_leaves_the_replay(folder: Path) -> None:
    (folder / "ledger.sqlite3").write_bytes(b"no database" * 1000)
    code, out, err = asked(folder, "--topic", "64", "--json")
    assert (code, json.loads(out)[0]["live"]) == (0, None)
    assert "ledger.sqlite3: the real record cannot be read: file is not a database; only the replay is shown" in err
    assert "replayed with 60 s known" in asked(folder, "--topic", "64")[1]


REPLAY = {"replayed_days": 90.0, "errors": {"60": {"over_knowing": 0.9876, "over_plain": 0.9123}}}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        pytest.param(
            {"network_days": 9.62, "block_ms": 5312.5},
            "of 90 days replayed the network answered the newest 9.6 days, which it had not seen, and the knowing "
            "naive forecast answered the others; a block takes 5.31 s (measured)",
            id="some days",
        ),
        pytest.param(
            {},
            "of 90 days replayed the knowing naive forecast answered all; a block takes 5 s (assumed: too few block "
            "times are recorded)",
            id="no network, no chain",
        ),
        pytest.param({"network_days": 90}, "the network answered all 90 days of the replay", id="all days"),
    ],
)
def test_who_answered_the_replay_and_with_which_blocks_is_said(folder: Path, more: Any, said: str) -> None:
    write(folder, [topic_entry(79, 3) | REPLAY | more])
    _, out, _ = asked(folder, "--topic", "79")
    assert max(map(len, out.splitlines()[1:])) <= 80
    text = " ".join(out.split())
    assert said in text
    assert "60 s (now) yes 3 6 0 % 83 % 0.9876 0.9123" in text
    assert "The knowing naive forecast knows the same beginning of the interval" in text


@pytest.mark.parametrize(
    ("holds", "said"),
    [(1.0, "all of the later days"), (0.9999, "nearly all of the"), (0.0, "none of the"), (0.02, "2 % of the")],
)
def test_shares_read_as_words(folder: Path, holds: float, said: str) -> None:
    write(folder, [topic_entry(79, 1) | {"holds": holds}])
    _, out, _ = asked(folder, "--topic", "79")
    text = " ".join(out.split())
    assert "1 of 1 topic would be admitted: after a median of 1 day computed" in text
    assert f"would be admitted after a median of 1 day; the criteria hold on {said}" in text


def test_json_is_the_list_alone(folder: Path) -> None:
    code, out, _ = asked(folder, "--json")
    assert code == 0
    found = json.loads(out)
    assert [one["topic_id"] for one in found] == [1, 64, 79, 82]
    assert found[2] == {"network": NETWORK, "topic_id": 79, **standing(3, 60), "live": NO_ANSWER.to_json()}
    nothing = {"value": None, "bound": None, "passed": False}
    assert found[0] == {
        "network": NETWORK,
        "topic_id": 1,
        "eligible": False,
        "known_s": None,
        "days": {"median": None, "p90": None, "never": None},
        "holds": None,
        "criteria": dict.fromkeys(NAMES, nothing),
        "live": NO_ANSWER.to_json(),
    }


def test_a_topic_of_which_nothing_can_be_judged_yet(folder: Path) -> None:
    entry = topic_entry(64, None, eligible=False) | {"criteria": {}, "short": "nothing to judge yet: more days help"}
    write(folder, [entry])
    nothing = {"value": None, "bound": None, "passed": False}
    _, out, _ = asked(folder, "--topic", "64", "--json")
    assert json.loads(out)[0]["criteria"] == dict.fromkeys(NAMES, nothing)
    _, out, _ = asked(folder, "--topic", "64")
    assert "BTC log-return 8h: nothing to judge yet: more days help" in " ".join(out.split())
    assert "n_eff" not in out


def test_topics_and_networks_are_chosen(folder: Path) -> None:
    _, out, _ = asked(folder, "--topic", "82", "--topic", "79", "--network", NETWORK, "--json")
    assert [one["topic_id"] for one in json.loads(out)] == [79, 82]
    _, out, _ = asked(folder, "--topic", "82")
    assert "\n1 of 1 topic would be admitted: after a median of 5 days\n" in out
    _, out, _ = asked(folder, "--topic", "64")
    assert "\nnone of 1 topic would be admitted\n" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--topic", "999"), "--topic 999: the config has no such topic; it has 1, 64, 79, 82", id="topic"),
        pytest.param(
            ("--network", "mars-1"), f"--network mars-1: the config has no such network; it has {NETWORK}", id="network"
        ),
    ],
)
def test_what_is_not_configured_is_one_line(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    assert asked(folder, *arguments, "--json") == (2, "", f"birnn: {said}\n")


def test_before_the_first_training_one_line_says_what_to_do(folder: Path) -> None:
    (folder / "admission.json").unlink()
    code, out, err = asked(folder, "--json")
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert "not there yet; the updater writes it within minutes of its start and after each training" in line
    assert "run birnn train" in line


@pytest.mark.parametrize(
    "content", ["", "[]", '{"made_ms": 1, "topics": {"a": {}}}', '{"made_ms": null, "topics": {}}']
)
def test_a_file_of_something_else_is_one_line(folder: Path, content: str) -> None:
    (folder / "admission.json").write_text(content)
    code, out, err = asked(folder)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(f"birnn: {folder / 'admission.json'} cannot be read: ") or "an entry of" in line
    assert "train again, or delete the file" in line
    StateFile(folder, SystemClock(), ["minute"]).update_panel("minute")
    (of_folder,) = status_report(load_settings(data_dir=folder, port=1))["folders"]
    assert of_folder["admission"] == {}
    assert of_folder["admission_refused"]
    assert News(folder).lines() == []


def test_status_has_a_sentence_for_each_topic(folder: Path) -> None:
    StateFile(folder, SystemClock(), ["minute"]).update_panel("minute")
    report = status_report(load_settings(data_dir=folder, port=1))
    assert list(report["folders"][0]["admission"]) == [f"{NETWORK}/{topic_id}" for topic_id in (64, 79, 82)]
    console = Console(width=80, file=StringIO(), record=True)
    for part in status_tables(report):
        console.print(part)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    words = "would be admitted after a median of 3 days; the criteria hold on 83 % of the later days"
    assert f"topic 79: {words}" in " ".join(text.split())


def test_news_are_told_once_until_the_file_is_written_anew(folder: Path) -> None:
    news = News(folder)
    told = news.lines()
    assert len(told) == 3
    assert all(re.fullmatch(r"topic \d+: (not )?admitted.*", line) for line in told)
    assert news.lines() == []
    write(folder, [topic_entry(79, 2)])
    os.utime(folder / "admission.json", ns=(0, 0))  # another moment, however coarse the file system's clock
    assert news.lines() == ["topic 79: admitted after 2 days (median)"]
    assert News(folder / "nowhere").lines() == []
