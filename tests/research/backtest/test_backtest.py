"""A walk end to end: it reads no future, goes on where it was killed, and serves what the gate let through."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from core.clock import MINUTE_MS
from core.errors import ConfigError
from klines.klines import Klines
from model.registry.versions import Registry
from research.backtest.backtest import FORECAST_COLUMNS, run
from research.backtest.baselines import BASELINES
from research.backtest.command import Asked, folder_of, walk_of
from research.backtest.folder import Folder, StepRecord
from research.report.scores import decisions, scored_topics
from tests.fakes.clock import eventually
from tests.fakes.klines import write_klines
from tests.research.tape import BTC, ETH, SOL, after, asked, clustered, tape
from updater.round import KEEP_VERSIONS

ROOT = Path(__file__).parents[3]
DAYS = 7


def walked(what: Asked) -> tuple[list[StepRecord], Folder]:
    walk, recording = walk_of(what)
    folder = folder_of(what, walk, recording)
    return run(walk, recording, folder, lambda *_: None), folder


def rows_of(records: list[StepRecord], folder: Folder) -> pl.DataFrame:
    return pl.concat([folder.rows(record) for record in records])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven days of three symbols: two trainings."""
    folder = tmp_path_factory.mktemp("backtest")
    tape(folder / "tape", "BTCUSDT", "ETHUSDT", "SOLUSDT", days=DAYS)
    return folder


@pytest.fixture(scope="module")
def whole(home: Path) -> tuple[list[StepRecord], Folder]:
    """A walk of two topics and an unseen symbol, with every baseline."""
    return walked(asked(home, ETH, BTC, SOL, unseen=("SOLUSDT",), baselines=tuple(BASELINES), out=home / "whole"))


def test_every_scored_candle_has_its_forecasts(whole: tuple[list[StepRecord], Folder]) -> None:
    rows = rows_of(*whole)
    assert set(rows["topic"]) == {"9001", "9002", "9003"}
    for topic, horizon, others in (("9001", 10, ("ridge", "lightgbm", "guide", "example")), ("9002", 15, ("har",))):
        mine = rows.filter(pl.col("topic") == topic)
        opened = mine["open_time_ms"].to_numpy()
        first = after(5) - MINUTE_MS + 30 * MINUTE_MS - (after(5) - MINUTE_MS) % (30 * MINUTE_MS)
        np.testing.assert_array_equal(opened, np.arange(first, after(DAYS) - horizon * MINUTE_MS, 30 * MINUTE_MS))
        for name in (*FORECAST_COLUMNS, *others):
            assert mine[name].is_finite().all(), name
    assert rows.filter(pl.col("topic") == "9001")["har"].is_nan().all(), "HAR has nothing to say about a price"
    unseen = rows.filter(pl.col("topic") == "9003")
    assert unseen["lightgbm"].is_finite().all()
    assert (unseen["served"] == unseen["newest"]).all(), "an unseen symbol has no champion: the newest network answers"


def test_truth_and_naive_are_what_the_klines_say(home: Path, whole: tuple[list[StepRecord], Folder]) -> None:
    rows = rows_of(*whole)
    _, recording = walk_of(asked(home, ETH, BTC))
    eth, btc = (recording.series[symbol, MINUTE_MS].close for symbol in ("ETHUSDT", "BTCUSDT"))
    for one in rows.filter(pl.col("topic") == "9001").head(5).iter_rows(named=True):
        at = (one["open_time_ms"] - after(0)) // MINUTE_MS
        assert one["close"] == eth[at]
        assert one["truth"] == pytest.approx(np.log(eth[at + 10] / eth[at]), rel=1e-5)
        assert one["naive"] == 0
    for one in rows.filter(pl.col("topic") == "9002").head(5).iter_rows(named=True):
        at = (one["open_time_ms"] - after(0)) // MINUTE_MS
        returns = np.diff(np.log(btc[at - 15 : at + 16]))
        assert one["naive"] == pytest.approx(returns[:15].std(ddof=1), rel=1e-5)
        assert one["truth"] == pytest.approx(returns[15:].std(ddof=1), rel=1e-5)


def test_what_is_served_is_what_the_gate_let_through(whole: tuple[list[StepRecord], Folder]) -> None:
    records, folder = whole
    assert [record.before for record in records] == [{}, records[0].after]
    assert {version for record in records for version in record.after.values()} <= set(folder.registry.versions())
    for record in records:
        rows = folder.rows(record)
        for topic in ("9001", "9002"):
            mine = rows.filter(pl.col("topic") == topic)
            answering = record.after.get(topic)
            if answering in (None, record.version):
                assert (mine["served"] == mine["newest" if answering else "naive"]).all()


def test_no_forecast_reads_the_future(whole: tuple[list[StepRecord], Folder], tmp_path: Path) -> None:
    """Klines after a moment are others: what was said up to it, by anybody, stays to the last bit."""
    known_ms = after(5.5) + MINUTE_MS  # when a scored candle has closed
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT", "SOLUSDT"), 1):
        write_klines(tmp_path / "tape", symbol, _tampered(clustered(DAYS, seed), known_ms))
    records, folder = walked(
        asked(tmp_path, ETH, BTC, SOL, unseen=("SOLUSDT",), baselines=tuple(BASELINES), out=tmp_path / "out")
    )
    assert records[0].version == whole[0][0].version
    assert records[1].version != whole[0][1].version, "the second training is after it"
    known = pl.col("open_time_ms") < known_ms
    before, now = (rows_of(*both).filter(known) for both in (whole, (records, folder)))
    assert before["open_time_ms"].max() == known_ms - MINUTE_MS
    said = [name for name in before.columns if name != "truth"]
    assert_frame_equal(before.select(said), now.select(said), check_exact=True)
    assert not before["truth"].equals(now["truth"]), "the last of them came true otherwise"


def _tampered(klines: Klines, from_ms: int) -> Klines:
    later = klines.open_time_ms >= from_ms
    factor = np.where(
        later, np.exp(np.cumsum(np.where(later, 0.003 * np.sin(np.arange(len(klines)) ** 1.5), 0.0))), 1.0
    )
    columns = {name: getattr(klines, name) * factor for name in ("open", "high", "low", "close")}
    return replace(klines, **columns, volume=np.where(later, klines.volume * 3 + 1, klines.volume))


def test_an_unseen_symbol_teaches_nobody(home: Path, whole: tuple[list[StepRecord], Folder], tmp_path: Path) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT"):
        file = next((home / "tape").glob(f"{symbol}-*"))
        (tmp_path / "tape").mkdir(exist_ok=True)
        (tmp_path / "tape" / file.name).symlink_to(file)
    write_klines(tmp_path / "tape", "SOLUSDT", clustered(DAYS, 77))
    quick_ones = ("har", "ridge", "lightgbm")
    records, folder = walked(
        asked(tmp_path, ETH, BTC, SOL, unseen=("SOLUSDT",), baselines=quick_ones, out=tmp_path / "out")
    )
    rows = rows_of(records, folder).filter(pl.col("topic") != "9003")
    before = rows_of(*whole).filter(pl.col("topic") != "9003").select(rows.columns)
    assert_frame_equal(before, rows, check_exact=True)
    assert [record.version for record in records] == [record.version for record in whole[0]]


def command(home: Path, out: Path) -> list[str]:
    """The same walk as ``resumed`` has, as a process."""
    config = {
        "worker": [
            {
                "topicId": topic.topic_id,
                "inferenceEntrypointName": "apiAdapter",
                "parameters": {
                    "InferenceEndpoint": "http://127.0.0.1:8000/inference/{Token}?topic={TopicId}",
                    "Token": topic.token,
                    "Target": topic.target.value,
                    "Horizon": topic.horizon,
                },
            }
            for topic in (ETH, BTC)
        ]
    }
    (home / "config.json").write_text(json.dumps(config))
    options = {
        "--config": home / "config.json",
        "--data": home / "tape",
        "--data-dir": home / "data",
        "--training-json": home / "training.json",
        "--start": "2023-11-20",
        "--every": 1,
        "--days": 3,
        "--stride": 30,
        "--seed": 0,
        "--out": out,
    }
    flat = [str(part) for pair in options.items() for part in pair]
    return [sys.executable, "-m", "cli.main", "backtest", *flat, "--quick", "--no-baselines"]


def started(home: Path, out: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(home, out), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished_steps(out: Path) -> int:
    return len(list((out / "steps").glob("*.json"))) if (out / "steps").is_dir() else 0


def test_a_killed_walk_goes_on_where_it_was(home: Path, tmp_path: Path) -> None:
    asked(home, ETH, BTC)  # writes the training settings
    out = tmp_path / "out"
    with started(home, out) as child:
        eventually(lambda: finished_steps(out) > 0, timeout_s=120, what="the first step")
        child.kill()
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert finished_steps(out) == 1
    first = next((out / "steps").glob("*.json"))
    kept = first.stat().st_mtime_ns, first.read_bytes()
    records, folder = walked(asked(home, ETH, BTC, out=out))
    assert (first.stat().st_mtime_ns, first.read_bytes()) == kept, "what was finished is not done again"
    straight, other = walked(asked(home, ETH, BTC, out=tmp_path / "straight"))
    assert_frame_equal(rows_of(records, folder), rows_of(straight, other), check_exact=True)
    assert [record.after for record in records] == [record.after for record in straight]


def test_a_step_cut_off_after_its_promotion_finds_the_champions_it_found_at_first(home: Path, tmp_path: Path) -> None:
    what = asked(home, ETH, BTC, out=tmp_path)
    records, folder = walked(what)
    for file in (tmp_path / "steps").glob("minute-20231121*.json"):
        file.unlink()  # as if killed between the promotion and the end of the second step
    again, _ = walked(what)
    assert [record.model_copy(update={"took_s": 0}) for record in again] == [
        record.model_copy(update={"took_s": 0}) for record in records
    ]
    assert Registry(tmp_path / "models").champions() == folder.registry.champions()


def test_a_step_cut_off_after_its_demotion_demotes_again(home: Path, tmp_path: Path) -> None:
    """A champion that went in a step that was not finished is still there for the step that is begun anew."""
    out = tmp_path / "out"
    what = asked(home, ETH, BTC, out=out)
    (first, _), folder = walked(what)
    bad = with_a_bad_champion(first, folder)
    shutil.copytree(out, tmp_path / "straight")

    def until_it_forecasts(done: int, wanted: int, note: str) -> None:
        if "forecasting" in note:
            raise KeyboardInterrupt

    walk, recording = walk_of(what)
    with pytest.raises(KeyboardInterrupt):
        run(walk, recording, folder, until_it_forecasts)
    assert folder.registry.demotions()[BTC.key][-1].champion.version == bad, "it went, and the step was cut off"
    resumed, _ = walked(what)
    straight, _ = walked(replace(what, out=tmp_path / "straight"))
    assert [one.model_copy(update={"took_s": 0}) for one in resumed] == [
        one.model_copy(update={"took_s": 0}) for one in straight
    ]
    report = decisions(resumed, walk, scored_topics(walk, folder, resumed))[-1]
    assert (report["topic"], report["demoted"].partition(" ")[0]) == (BTC.key, bad)
    assert report["decision"] in {"demoted", "promoted"}
    assert bad not in folder.registry.versions(), "once the step is finished nobody needs it"


def with_a_bad_champion(first: StepRecord, folder: Folder) -> str:
    """Have the first of two steps end with a champion far worse than naive, and the second not done."""
    for file in (folder.root / "steps").glob("minute-20231121*"):
        file.unlink()
    folder.go_on_after(first.champions)
    once = folder.registry.open(first.version)
    manifest = once.manifest
    twice = {symbol: {"volatility-15m": {"bias": 2.0}} for symbol in manifest.symbols}

    def publish(changes: dict[str, Any]) -> str:
        return folder.registry.publish(replace(once, manifest=manifest.model_copy(update=changes)))

    bad = publish({"calibration": twice, "created_ms": manifest.created_ms + 1000})
    for later in range(2, 2 + KEEP_VERSIONS):
        publish({"created_ms": manifest.created_ms + 1000 * later})
    folder.registry.promote([BTC], bad, first.from_ms)
    (about,) = (folder.root / "steps").glob("*.json")
    about.write_text(first.model_copy(update={"champions": folder.champions()}).model_dump_json())
    return bad


def test_a_damaged_step_is_done_again(home: Path, tmp_path: Path) -> None:
    what = asked(home, BTC, out=tmp_path)
    records, folder = walked(what)
    rows = rows_of(records, folder)
    torn = next((tmp_path / "steps").glob("*.parquet"))
    torn.write_bytes(torn.read_bytes()[:-100])
    assert_frame_equal(rows_of(*walked(what)), rows, check_exact=True)


def test_ctrl_c_ends_in_one_line(home: Path, tmp_path: Path) -> None:
    asked(home, ETH, BTC)
    with started(home, tmp_path / "out") as child:
        eventually(lambda: finished_steps(tmp_path / "out") > 0, timeout_s=120, what="the first step")
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate()
    assert child.returncode == 130
    assert errors.splitlines()[-1:] == ["stopped; the same command goes on after the last finished step"]
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("others", "said"),
    [
        pytest.param({"seed": 1}, "seed is 0 there, 1 here", id="seed"),
        pytest.param({"stride": 60}, "scored every, minutes is 30 there, 60 here", id="stride"),
        pytest.param({"baselines": ("har",)}, 'baselines is .* there, \\["har"\\] here', id="baselines"),
    ],
)
def test_another_backtest_in_the_same_folder_is_refused(
    home: Path, whole: tuple[list[StepRecord], Folder], others: dict[str, object], said: str
) -> None:
    usual = asked(home, ETH, BTC, SOL, unseen=("SOLUSDT",), baselines=tuple(BASELINES), out=home / "whole")
    with pytest.raises(ConfigError, match=said) as refusal:
        walked(replace(usual, **others))  # type: ignore[arg-type]
    assert "give another --out, or delete the folder" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_other_klines_are_another_backtest(home: Path, whole: tuple[list[StepRecord], Folder], tmp_path: Path) -> None:
    tape(tmp_path / "tape", "BTCUSDT", "ETHUSDT", "SOLUSDT", days=DAYS, skill=False)
    usual = asked(home, ETH, BTC, SOL, unseen=("SOLUSDT",), baselines=tuple(BASELINES), out=home / "whole")
    with pytest.raises(ConfigError, match="klines BTCUSDT-1m differs"):
        walked(replace(usual, data=tmp_path / "tape"))


def test_two_at_once_in_one_folder_are_refused(home: Path, whole: tuple[list[StepRecord], Folder]) -> None:
    with Registry(home / "whole" / "models").writing(), pytest.raises(ConfigError, match="another backtest is at work"):
        walked(asked(home, ETH, BTC, SOL, unseen=("SOLUSDT",), baselines=tuple(BASELINES), out=home / "whole"))


def test_the_same_command_finds_its_folder_again_and_another_does_not(home: Path) -> None:
    def place(**others: object) -> Path:
        what = asked(home, ETH, BTC, **others)
        return folder_of(what, *walk_of(what)).root

    assert place() == place()
    assert place() != place(seed=1)
    assert place().parent == home / "data" / "backtests"
