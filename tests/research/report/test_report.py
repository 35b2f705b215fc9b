"""The report of a small walk: the figures are those of the rows, the page needs nothing else, invented prices show."""

import io
import json
import re
from copy import deepcopy
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from admission.words import ONE_NAIVE
from cli.main import app
from core.show.words import p_text, ratio_text
from core.topic import Target, Topic
from model.losses import loss
from research.backtest.backtest import run
from research.backtest.command import folder_of, introduction, walk_of
from research.backtest.folder import Folder
from research.report.page import page
from research.report.plots import forecast_and_truth, loss_over_time, reliability_plot
from research.report.report import tables, walk_and_report, write_report
from research.report.scores import Scored, scored_topics, topic_report
from tests.fakes.klines import write_klines
from tests.research.tape import BTC, ETH, SOL, after, asked, clustered, tape

CZAR = Topic(topic_id=9006, token="BTC", symbol="BTCUSDT", target=Target.LOG_RETURN, horizon_min=10, loss="czar")
PAIRS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Invented klines as ``birnn run`` keeps them: below a folder named simulated."""
    folder = tmp_path_factory.mktemp("report") / "simulated"
    folder.mkdir()
    tape(folder / "tape", *PAIRS, days=7)
    return folder


@pytest.fixture(scope="module")
def shown(home: Path) -> str:
    """What the terminal says of a walk over four topics; its files lie in ``home/out``."""
    what = asked(home, ETH, BTC, CZAR, SOL, unseen=("SOLUSDT",), baselines=("har", "lightgbm", "example"), stride=10)
    what = replace(what, out=home / "out", command="birnn backtest --topic <1> & more")
    walk, recording = walk_of(what)
    folder = folder_of(what, walk, recording)
    console = Console(width=200, record=True, file=io.StringIO())
    for part in [
        *introduction(walk, recording, folder),
        *walk_and_report(what, walk, recording, folder, lambda *_: None),
    ]:
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))
    return console.export_text()


@pytest.fixture(scope="module")
def report(home: Path, shown: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((home / "out" / "report.json").read_bytes(), parse_constant=refuse)
    return content


def test_the_tables_fit_80_columns_and_lose_no_figure(home: Path, report: dict[str, Any]) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    for part in tables(report, home / "out"):
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))
    rows = re.compile(r" (9\d{3}|unseen|topic) ")
    text = console.export_text()
    lines = [line for line in text.splitlines() if rows.match(line)]
    assert len(lines) == 2 * (1 + len(report["topics"])), "ours, and the baselines'"
    assert ONE_NAIVE in text
    assert ONE_NAIVE in (home / "out" / "report.html").read_text()
    assert max(map(len, lines)) <= 80
    shown = " ".join(lines).split()
    for one in report["topics"]:
        ratios = {
            ratio_text(ratio, is_naive=name in one["equal_to_naive"])
            for name, ratio in one["ratio_to_naive"].items()
            if name != "naive"
        }
        assert ratios <= {*shown, ""}


def test_the_ratios_are_those_of_the_rows(home: Path, report: dict[str, Any]) -> None:
    rows = pl.concat([pl.read_parquet(file) for file in sorted((home / "out" / "steps").glob("*.parquet"))])
    for topic in (ETH, BTC, CZAR):
        mine = rows.filter(pl.col("topic") == topic.key)
        truth, close, std = (mine[name].cast(pl.Float64).to_numpy() for name in ("truth", "close", "std"))
        price = topic.target is Target.PRICE
        (told,) = [one for one in report["topics"] if one["topic"] == topic.key]
        assert told["rows"] == len(mine)
        means = {}
        for name in ("naive", "served", "newest", *(("har",) if topic == BTC else ("example",)), "lightgbm"):
            said = mine[name].cast(pl.Float64).to_numpy()
            pair = (close * np.exp(truth), close * np.exp(said)) if price else (truth * topic.unit, said * topic.unit)
            losses = [float(loss(topic.loss)(y, p, s)) for y, p, s in zip(*pair, std, strict=True)]
            means[name] = np.mean(losses)
            assert told["losses"][name] == pytest.approx(means[name], rel=1e-9), name
            assert told["ratio_to_naive"][name] == pytest.approx(means[name] / means["naive"], rel=1e-9)
        assert told["against"]["newest"]["lightgbm"]["difference"] == pytest.approx(means["newest"] - means["lightgbm"])
        assert told["curves"]["newest"][-1] == pytest.approx(100 * (means["newest"] / means["naive"] - 1), abs=2e-5)


def test_what_is_the_same_needs_no_test(report: dict[str, Any]) -> None:
    for one in report["topics"]:
        for name, against in one["against"]["served"].items():
            same = one["losses"]["served"] == one["losses"][name]
            assert (against["dm_p"] is None) == same, (one["topic"], name)


def test_admission_is_told_in_a_sentence_with_its_criteria(home: Path, shown: str, report: dict[str, Any]) -> None:
    raw = unescape((home / "out" / "report.html").read_text())
    for one in report["topics"]:
        told = one["admission"]
        begins = "unseen SOLUSDT volatility 15m" if one["unseen"] else f"topic {one['topic']}"
        assert f"\n{begins}: {told['words']}\n" in shown
        assert told["words"] in raw
        volatility = one["target"] == "volatility"
        assert list(told["criteria"]) == (["back to the day's mean", "trailing fit"] if volatility else ["no change"])
        assert told["epoch_min"] == (15 if volatility else 10), "of an unknown topic the horizon"
        counts = [sum(one["passed"] for one in found["served"].values()) for found in told["criteria"].values()]
        assert f" {min(counts)}/7" in shown
    for words in ("gain in weighted CZAR", "served, trailing fit", "-0.5 to 0.5"):
        assert words in raw
    at_the_base = "of what was served, answered at the base, with nothing known of the interval and no stretch; what is"
    assert f"\nadmission to mainnet {at_the_base}" in shown
    assert f"Admission here is {at_the_base} live, birnn ready says." in raw


def test_directions_before_calibration_are_folded_away_below_the_topics(home: Path, shown: str) -> None:
    raw = (home / "out" / "report.html").read_text()
    summary = "<details><summary>What networks alone say of up and down; it is not what was served</summary>"
    folded = raw[raw.index(summary) :]
    assert raw.index("Topic by topic") < raw.index(summary)
    assert "<figure>" in folded[: folded.index("</details>")]
    assert 'class="good"' not in folded[: folded.index("</details>")]
    assert "before calibration, most confident fifth" in shown


def test_directions_are_pooled_once_for_each_symbol_and_horizon(report: dict[str, Any]) -> None:
    (pooled,) = report["pooled_directions"]
    assert pooled["symbols"] == ["BTCUSDT", "ETHUSDT"], "the unseen symbol has no say"
    rows = sum(part["rows"] for part in pooled["deciles"])
    assert pooled["most_confident_fifth"]["rows"] == pytest.approx(rows / 5, rel=0.02)
    assert len(pooled["deciles"]) == 10
    assert pooled["deciles"][0]["most"] <= pooled["deciles"][-1]["least"]


def test_every_decision_of_the_gate_is_told_with_its_reason(home: Path, report: dict[str, Any]) -> None:
    assert [one["topic"] for one in report["decisions"]] == ["9001", "9002", "9006"] * 2
    for one in report["decisions"]:
        assert one["decision"] in {"promoted", "kept", "demoted", "naive"}
        assert one["reason"]
        assert (one["decision"] == "promoted") is one["verdict"]["promoted"]
        assert (one["serves"] is None) == (one["decision"] == "naive") or one["decision"] == "demoted"
        assert (one["decision"] == "demoted") <= bool(one["demoted"])
        assert {"p", "effective", "won", "blocks", "pooled"} <= one["verdict"].keys()


def test_everything_that_went_in_is_told(report: dict[str, Any]) -> None:
    went_in = report["fingerprint"]
    assert set(went_in["klines"]) == {f"{symbol}-1m" for symbol in PAIRS}
    assert set(went_in["versions"]) >= {"torch", "numpy", "onnxruntime", "lightgbm"}
    assert went_in["training"]["minute"]["hidden_layer_size"] == 4
    assert report["command"] == "birnn backtest --topic <1> & more"
    assert [step["from"][:10] for step in report["steps"]] == ["2023-11-20", "2023-11-21"]


class _Page(HTMLParser):
    """Tags that were opened and not closed, references to anything outside, and the text."""

    VOID = frozenset({"meta", "br", "img", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "iframe", "img"}:
            self.outside.append(tag)
        self.outside += [
            f"{tag} {name}={value}"
            for name, value in attrs
            if name in {"href", "src", "xlink:href"} and not (value or "").startswith("#")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_needs_nothing_else(home: Path, report: dict[str, Any]) -> None:
    raw = (home / "out" / "report.html").read_text()
    page = _Page()
    page.feed(raw)
    page.close()
    text = " ".join(page.text)
    assert page.open == []
    assert page.outside == []
    assert not re.search(r"url\((?!#)", raw), "styles load nothing either"
    assert raw.count("<svg") == 1 + 4 * 2 + 3 * 2, "directions; four pictures of a return, three of a volatility"
    assert "#010203" not in raw, "ink is the page's own colour"
    assert "birnn backtest --topic <1> & more" in text, "what people typed is escaped"
    tested = [one["verdict"] for one in report["decisions"] if one["verdict"]["p"] is not None]
    assert tested
    for verdict in tested:
        assert f"{verdict['won']} of {verdict['blocks']}" in text, "the gate's tests are told with their figures"
        assert p_text(verdict["p"]) in text
    assert text.index(report["topics"][0]["verdict"]["words"]) < text.index("All topics"), "the verdicts come first"
    for words in ("SIMULATED: these prices are invented", "unseen · SOL volatility 15m", "9006 · BTC log-return 10m"):
        assert words in text


def test_a_demotion_is_told_beside_what_became_of_the_challenger(home: Path, report: dict[str, Any]) -> None:
    what = asked(home, ETH, BTC, CZAR, SOL, unseen=("SOLUSDT",), baselines=("har", "lightgbm", "example"), stride=10)
    walk, recording = walk_of(replace(what, out=home / "out"))
    folder = Folder(home / "out")
    scored = scored_topics(walk, folder, run(walk, recording, folder, lambda *_: None))
    told = deepcopy(report)
    as_network = {"decision": "promoted", "naive": False}
    told["decisions"][0] |= as_network | {"demoted": "v1 was worse", "reason": "no worse than v0"}
    told["decisions"][1] |= as_network | {"decision": "demoted", "demoted": "v2 was worse", "reason": "may be chance"}
    told["decisions"][2] |= {"decision": "promoted", "naive": True, "demoted": "v3 was worse"}
    shown = page(told, scored)
    for words in (
        ">demoted, promoted<",
        ">demoted, naive<",
        "v1 was worse; challenger: no worse than v0",
        "v2 was worse; challenger: may be",
    ):
        assert words in shown


def test_the_terminal_says_the_same(shown: str, report: dict[str, Any]) -> None:
    assert "SIMULATED: these prices are invented" in shown
    assert "note: topic" not in shown
    for one in report["topics"]:
        for name in ("served", "lightgbm"):
            assert name in one["equal_to_naive"] or f"{one['ratio_to_naive'][name]:.4f}" in shown
        begins = "unseen SOLUSDT volatility 15m" if one["unseen"] else f"topic {one['topic']}"
        assert f"\n{begins}: {one['verdict']['words']}\n" in shown
    assert "most confident fifth" in shown
    assert "the gate: 6 decisions; " in shown
    assert "report.html" in shown


def test_its_tables_fit_80_columns(shown: str) -> None:
    tables = [line.rstrip() for line in shown.splitlines() if line.startswith(" ")]
    assert len(tables) > 10
    assert max(map(len, tables)) <= 80


def test_what_is_equal_to_naive_is_called_so_and_never_promoted_in_green(
    home: Path, shown: str, report: dict[str, Any]
) -> None:
    """The returns of these klines cannot be known: the network's edge is taken out, and the gate lets that through."""
    naive = [one for one in report["topics"] if "served" in one["equal_to_naive"]]
    returns = [one for one in naive if "direction" in one]
    assert {one["topic"] for one in returns} == {ETH.key, CZAR.key}
    raw = (home / "out" / "report.html").read_text()
    for one in naive:
        assert f"topic {one['topic']}: naive: the network adds nothing" in shown
        assert all(decision["naive"] for decision in report["decisions"] if decision["topic"] == one["topic"])
        (line, _) = [line for line in shown.splitlines() if line.startswith(f" {one['topic']} ")]
        assert " naive " in line
        assert "1.0000" not in line
    promoted = [one for one in report["decisions"] if one["decision"] == "promoted"]
    assert any(one["naive"] for one in promoted), "the gate lets through what changes nothing"
    assert raw.count('class="promoted"') == sum(not one["naive"] for one in promoted)
    assert raw.count("The network before calibration, which answers nothing here") == len(returns)
    assert raw.count("naive: what is served") == len(naive)


ROWS = 600
MINUTE_ROWS = np.arange(ROWS) * 60_000 + 1_700_000_000_000


def scored(**columns: float | list[float] | np.ndarray[Any, Any]) -> Scored:
    """Rows of a ten-minute log-return; what is not given is naive's 0."""
    rng = np.random.default_rng(7)
    given: dict[str, Any] = dict.fromkeys(("naive", "served", "newest", "raw"), 0.0) | {"scale": 1.0, "std": 1.0}
    given |= {"close": 1.0, "truth": rng.normal(0, 0.01, ROWS), "open_time_ms": MINUTE_ROWS} | columns
    count = len(given["truth"])
    rows = {name: np.broadcast_to(np.asarray(values), (count,)) for name, values in given.items()}
    topic = replace(CZAR, loss="mse")
    return Scored(topic=topic, unseen=False, rows=pl.DataFrame({**rows, "topic": topic.key}), baselines=())


TRUTH = np.random.default_rng(7).normal(0, 0.01, ROWS)
LATE = np.where(np.arange(ROWS) < ROWS // 2, 0.0, 1.0)


@pytest.mark.parametrize(
    ("columns", "found", "words"),
    [
        pytest.param({}, "naive", "naive: the network adds nothing$", id="naive"),
        pytest.param(
            {"newest": 0.001}, "naive", "the network adds nothing that the gate believes$", id="left by the gate"
        ),
        pytest.param(
            {"served": TRUTH / 2},
            "better",
            "^better than naive by 75 % in squared error, p below 0.001, in all five blocks$",
            id="better",
        ),
        pytest.param(
            {"served": -TRUTH},
            "worse",
            "^worse than naive by 300 % in squared error, p 1.000, in 0 of 5 blocks$",
            id="worse",
        ),
        pytest.param(
            {"served": np.roll(TRUTH, 300) / 100},
            "unclear",
            "than naive by [0-9.]+ % in squared error, which may be luck, p 0.[0-9]+, in [0-5] of 5 blocks$",
            id="luck",
        ),
        pytest.param(
            {"served": TRUTH / 2 * LATE},
            "better",
            "in 3 of 5 blocks; naive in 50 % of the rows$",
            id="half of the time",
        ),
        pytest.param(
            {"truth": TRUTH[:3], "served": TRUTH[:3] / 2, "open_time_ms": MINUTE_ROWS[:3]},
            "unclear",
            "^better than naive by 75 % in squared error, too little time to tell$",
            id="three rows",
        ),
        pytest.param(
            {"truth": TRUTH[:1], "served": TRUTH[:1], "open_time_ms": MINUTE_ROWS[:1]},
            "unclear",
            "^better than naive by 100 % in squared error, too little time to tell$",
            id="one row",
        ),
        pytest.param(
            {"truth": 0 * TRUTH, "served": 0.001},
            "worse",
            "^worse than naive, which never errs in squared error",
            id="calm",
        ),
    ],
)
def test_a_verdict_is_one_sentence(columns: dict[str, Any], found: str, words: str) -> None:
    told = topic_report(scored(**columns))
    assert told["verdict"]["found"] == found
    assert re.search(words, told["verdict"]["words"]), told["verdict"]["words"]


def heights(svg: str) -> list[float]:
    """The numbers that an axis of a picture is labelled with."""
    return [float(text) for text in re.findall(r">(-?[0-9.]+)</text>", svg)]


def test_the_dates_of_a_naive_forecast_are_those_of_the_backtest() -> None:
    naive = topic_report(scored())
    dates = set(re.findall(r">([0-9]{2}:[0-9]{2}|[A-Z][a-z]{2}-?[0-9]*)</text>", loss_over_time(naive)))
    better = loss_over_time(topic_report(scored(served=TRUTH / 2)))
    assert dates
    assert dates == set(re.findall(r">([0-9]{2}:[0-9]{2}|[A-Z][a-z]{2}-?[0-9]*)</text>", better))


def test_a_volatility_is_drawn_in_the_unit_of_its_topic() -> None:
    hourly = replace(scored(truth=np.full(ROWS, 0.001)), topic=replace(BTC, horizon_min=100))
    svg = forecast_and_truth(hourly, is_naive=False)
    assert "volatility in the topic's unit, %" in unescape(svg)
    assert max(heights(svg)) >= 1.0, "0.1 % a minute are 1 % in a hundred minutes"
    parts = [{"forecast": 0.001 + 1e-5 * part, "truth": 0.001, "error": None} for part in range(10)]
    assert max(heights(reliability_plot({"topic": "1", "reliability": parts}, hourly.topic.unit))) >= 1.0


def test_klines_of_a_folder_are_not_called_simulated_nor_is_their_result_kept_among_those(tmp_path: Path) -> None:
    what = asked(tmp_path, ETH)
    simulated = tmp_path / "data" / "simulated" / "seed-0"
    simulated.mkdir(parents=True)
    tape(tmp_path / "tape", "BTCUSDT", "ETHUSDT", days=6)
    (tmp_path / "training.json").rename(simulated / "training.json")
    options = ["--topic", "80", "--data", str(what.data), "--start", str(what.start), "--days", "3", "--stride", "60"]
    options += ["--every", "9", "--no-baselines"]
    ran = CliRunner().invoke(
        app, ["backtest", *options], env={"DATA_DIR": str(tmp_path / "data"), "MARKET": "simulated", "COLUMNS": "200"}
    )
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.startswith(f"klines: {what.data}\n")
    assert f"\nkept in {tmp_path / 'data' / 'backtests'}" in ran.stdout
    assert "simulated" not in ran.output.lower()
    (about,) = (tmp_path / "data" / "backtests").glob("*/backtest.json")
    minute = json.loads(about.read_bytes())["training"]["minute"]
    assert minute["hidden_layer_size"] == 4, "training settings are the node's, as ever"


def test_a_naive_forecast_is_drawn_as_a_flat_line_and_its_axis_does_not_blow_it_up() -> None:
    naive = scored(raw=1e-6 * TRUTH)
    curves = loss_over_time(topic_report(naive))
    assert "naive: served, newest network" in curves
    assert max(heights(curves)) >= 1.0, "a whole per cent of the naive loss above and below"
    moves = forecast_and_truth(naive, is_naive=True)
    assert "naive: what is served" in moves
    assert len([one for one in heights(moves) if one >= 1]) >= 2, "both axes reach as far as the moves do"
    better = scored(served=TRUTH / 2, newest=TRUTH / 2)
    assert "naive" not in re.sub("loss less naive loss", "", loss_over_time(topic_report(better)))


def test_it_is_made_again_from_what_is_kept(home: Path, shown: str) -> None:
    before = json.loads((home / "out" / "report.json").read_bytes())
    what = asked(home, ETH, BTC, CZAR, SOL, unseen=("SOLUSDT",), baselines=("har", "lightgbm", "example"), stride=10)
    what = replace(what, out=home / "out", command="birnn backtest --topic <1> & more")
    walk, recording = walk_of(what)
    folder = Folder(home / "out")
    assert any("2 of 2 steps are there already" in line for line in introduction(walk, recording, folder))
    walk_and_report(what, walk, recording, folder, lambda *_: None)
    after = json.loads((home / "out" / "report.json").read_bytes())
    assert {**after, "made": ""} == {**before, "made": ""}


def test_a_topic_without_rows_is_named(tmp_path: Path) -> None:
    """SOL's klines have a hole that lasts nearly to the end: nobody can say anything of it."""
    tape(tmp_path / "tape", "BTCUSDT", days=6)
    klines = clustered(6, 3)
    write_klines(
        tmp_path / "tape", "SOLUSDT", klines.between(0, after(4.9)).merge(klines.between(after(5.9), after(6)))
    )
    what = asked(tmp_path, BTC, SOL, out=tmp_path / "out")
    walk, recording = walk_of(what)
    parts = walk_and_report(what, walk, recording, Folder(tmp_path / "out"), lambda *_: None)
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert [one["topic"] for one in report["topics"]] == [BTC.key]
    assert any(str(part).startswith("note: topic 9003 (SOLUSDT volatility 15m) has no row") for part in parts)


def test_a_report_of_no_row_at_all_says_so(tmp_path: Path) -> None:
    tape(tmp_path / "tape", "BTCUSDT", days=6)
    what = asked(tmp_path, BTC, out=tmp_path / "out")
    walk, recording = walk_of(what)
    folder = Folder(tmp_path / "out")
    records = [record.model_copy(update={"rows": 0}) for record in run(walk, recording, folder, lambda *_: None)]
    report = write_report(walk, recording, folder, records, command="birnn backtest", made_ms=0)
    assert report["topics"] == []
    assert [note[:12] for note in report["notes"]] == [f"topic {BTC.key} ("]
    assert report["notes"][0].replace("'", "") in (tmp_path / "out" / "report.html").read_text()
    assert any(isinstance(part, str) and part.startswith("note: topic") for part in tables(report, folder.root))


def test_one_step_without_baselines_is_a_whole_report(tmp_path: Path) -> None:
    tape(tmp_path / "tape", "BTCUSDT", days=6)
    what = replace(asked(tmp_path, BTC, baselines=(), out=tmp_path / "out"), every_days=9)
    walk, recording = walk_of(what)
    parts = walk_and_report(what, walk, recording, Folder(tmp_path / "out"), lambda *_: None)
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert len(report["steps"]) == 1
    assert f"topic {BTC.key}: {report['topics'][0]['verdict']['words']}" in parts
    assert not any("beside the baselines" in str(part) for part in parts)
    assert "One training, on" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--topic", "999"], "has no such topic", id="unknown topic"),
        pytest.param(["--topic", "1", "--network", "mars-1"], "--network mars-1: not in the catalogue", id="network"),
        pytest.param(["--topic", "1", "--baseline", "arima"], "choose among har", id="baseline"),
        pytest.param(["--topic", "37", "--unseen", "SOLUSDT"], "leaves no topic to train", id="nothing left"),
        pytest.param(["--topic", "9"], "no klines of ARBUSDT", id="no klines of the symbol"),
        pytest.param(["--topic", "64"], "the smallest training of the hour panel needs", id="too short for hours"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(home: Path, arguments: list[str], said: str) -> None:
    outcome = CliRunner().invoke(
        app, ["backtest", *arguments, "--data", str(home / "tape"), "--data-dir", str(home / "none")]
    )
    assert outcome.exit_code == 2
    (line,) = outcome.output.splitlines()
    assert line.startswith("birnn: ")
    assert said in line


def test_steps_show_how_far_they_are(home: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    what = asked(home, BTC, baselines=("har",), out=tmp_path)
    walk, recording = walk_of(what)
    run(walk, recording, folder_of(what, walk, recording), lambda *told: seen.append(told))
    done = [part for part, _, _ in seen]
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1] == 2_000
    assert any("1 of 2, minute 2023-11-20: HAR volatility-15m" in note for _, _, note in seen)
