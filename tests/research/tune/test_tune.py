"""Tuning: trial 0 is the default, any end can be gone on from, and what is adopted is what the updater trains with."""

import io
import json
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from admission.words import ONE_NAIVE
from core.clock import DAY_MS, HOUR_MS
from core.errors import ConfigError
from core.topic import Target, Topic
from klines.klines import Klines
from market.store.kline_store import KlineStore
from model.training.config import CONFIGS
from node.config_file import topics_from_config
from research.tune.folds import Fold
from research.tune.search import held_back, only_tuner
from research.tune.tables import as_plain, tables
from research.tune.trials import KNOBS, announced_progress, searched
from research.tune.tune import LEVEL, Asked, Found, Pair, luck, tuned
from tests.fakes.clock import START_MS, FakeClock, eventually
from tests.fakes.klines import random_walk_klines
from tests.updater.folder import updater_on, write_config

BTC = Topic(topic_id=1, token="BTC", symbol="BTCUSDT", target=Target.LOG_RETURN, horizon_min=480)
ETH = replace(BTC, topic_id=2, token="ETH", symbol="ETHUSDT")
BTC_VOLATILITY, ETH_VOLATILITY = (replace(topic, target=Target.VOLATILITY) for topic in (BTC, ETH))
DEFAULT = CONFIGS["hour"]
DAYS = 56  # of klines: enough for short folds, on which a training takes a moment
SEED = 1  # whose first trials are small networks
NO_TIME_MIN = 1e-6  # what is compared with is measured all the same


def walk(seed: int) -> Klines:
    """Hours of which nothing can be known: all configurations come to the naive forecast, none is better."""
    return random_walk_klines(DAYS * 24, interval_ms=HOUR_MS, seed=seed, sigma=4e-3)


def alternating(days: int) -> Klines:
    """Eight hours that are calm, eight that are wild, and so on, without any chance in it.

    Of the coming eight hours the last eight say the opposite of the truth, and the longer a network learns, the more it
    says of it.
    """
    hour = np.arange(days * 24)
    shocks = np.where(hour % 2, 1.0, -1.0) * np.where(hour // 8 % 2, 2.0, 0.5)
    return random_walk_klines(len(hour), interval_ms=HOUR_MS, sigma=4e-3, shocks=shocks)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder with hours of two symbols."""
    store = KlineStore(tmp_path / "data" / "klines" / "binance")
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
        store.append(symbol, walk(seed))
    return tmp_path / "data"


def tune(asked: Asked) -> tuple[Found, list[str]]:
    lines: list[str] = []
    (found,) = tuned(asked, lambda *_: None, lines.append)
    return found, lines


def asked_on(data_dir: Path, **others: Any) -> Asked:
    return replace(
        Asked(topics=(BTC, ETH), data_dir=data_dir, venues=("binance",), training_days=3, seed=SEED), **others
    )


@contextmanager
def study_of(data_dir: Path) -> Iterator[optuna.Study]:
    """The one study there is, as anybody may open it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{data_dir / 'tuning.sqlite3'}")
    try:
        (name,) = optuna.get_all_study_names(storage)
        yield optuna.load_study(study_name=name, storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def trials_of(data_dir: Path) -> list[FrozenTrial]:
    """Every trial so far, in order."""
    with study_of(data_dir) as study:
        return study.get_trials()


@pytest.mark.parametrize("panel", CONFIGS)
def test_the_default_lies_within_what_is_searched(panel: str) -> None:
    default = searched(CONFIGS[panel])
    assert default.keys() >= {"hidden_layer_size", "num_layers", "dropout", "learning_rate", "clip_norm", "lookback"}
    for knob in KNOBS:
        assert knob.low <= default[knob.name] <= knob.high, knob.name


def test_trial_0_is_the_default_and_the_same_command_goes_on(data_dir: Path) -> None:
    first, said = tune(asked_on(data_dir, trials=1))
    assert "2 topics, 4 folds of 8.5 days" in said[0]
    assert "first the default configuration is measured, in 2 trainings" in said[1]
    assert re.match(r"the default took \d+ s; \d+\.\d min are left for trials", said[2]), said[2]
    trials = trials_of(data_dir)
    assert (trials[0].user_attrs["what"], trials[0].params) == ("default", searched(DEFAULT))
    assert trials[1].params != trials[0].params
    assert first.tried == 1
    second, said = tune(asked_on(data_dir, trials=2))
    assert "1 trial there already" in said[0]
    assert [trial.number for trial in second.references] == [0], "it is not measured twice"
    assert [trial.params for trial in trials_of(data_dir)][:2] == [trial.params for trial in trials]
    assert trials_of(data_dir)[2].params != trials[1].params, "the sampler does not begin anew"
    assert "first the default" not in said[1], "it is measured already"
    third, said = tune(asked_on(data_dir, minutes=NO_TIME_MIN, anew=True))
    assert said[-1].endswith("that are left are too few for a trial and its confirmation"), "the end has the amount"
    assert (third.tried, len(trials_of(data_dir))) == (0, 1), "only the default is measured, whatever the time"
    shown = "\n".join(str(part) for part in tables(second))
    assert "2 trials" in shown
    assert ONE_NAIVE in shown


def measured(number: int, params: dict[str, float], what: str = "") -> FrozenTrial:
    """A trial that ran to its end."""
    trial = optuna.create_trial(
        params=params,
        distributions={name: optuna.distributions.FloatDistribution(0, 1e6) for name in params},
        value=-0.1 / (1 + number),
        user_attrs={"what": what, "cpu_s": 1234.5, "wall_s": 1300.0},
    )
    trial.number = number
    return trial


@pytest.mark.parametrize(("width", "trials"), [(80, 3), (132, 5)])
def test_the_table_of_trials_fits_the_screen_and_json_has_all(width: int, trials: int) -> None:
    settings = searched(DEFAULT)
    references = (measured(0, settings, "default"), measured(1, settings, "in use"))
    best = tuple(measured(number, settings | {"learning_rate": 1.234e-5}) for number in range(10, 17))
    found = Found(panel="hour", topics=2, references=references, best=best, tried=9, importances={"dropout": 0.5})
    screen = Console(width=width, record=True, file=StringIO())
    for part in tables(found, width):
        screen.print(part, highlight=False, soft_wrap=isinstance(part, str))
    rows = [line for line in screen.export_text().splitlines() if line.strip().startswith((*settings, "loss /"))]
    assert len(rows) == len(settings) + 1, "no name is broken"
    assert max(map(len, rows)) <= width
    assert {len(row.split()) for row in rows if row.strip().startswith("learning_rate")} == {1 + 2 + trials}
    plain = json.loads(json.dumps(as_plain(found), allow_nan=False))
    assert [trial["trial"] for trial in plain["best"]] == list(range(10, 17))
    assert plain["references"][0]["settings"] == settings
    assert plain["conclusion"].startswith("nothing is adopted")


def test_a_better_configuration_is_adopted_and_the_updater_trains_with_it(tmp_path: Path) -> None:
    """The default takes a handful of steps on so few rows, and what is in use takes tiny ones; the trial, which the
    test puts into the queue, takes enough, and large ones."""
    days, data_dir, topics = 125, tmp_path / "data", (BTC_VOLATILITY, ETH_VOLATILITY)
    for topic in topics:
        KlineStore(data_dir / "klines" / "binance").append(topic.symbol, alternating(days))
    small = {"num_layers": 1, "hidden_layer_size": 16, "lookback": 16, "seeds": 1, "dropout": 0.0}
    in_use = {"patience": 4, "batch_size": 64, "learning_rate": 1e-5, **small}
    file = data_dir / "training.json"
    before = {"hour": in_use, "minute": {"stride": 9}}
    file.write_text(json.dumps(before))
    asked = asked_on(data_dir, topics=topics, trials=1, training_days=6)
    found, _ = tune(replace(asked, minutes=NO_TIME_MIN))
    assert not found.best
    assert re.search(r"Give this panel at least \d+ minutes? \(--minutes is for", str(list(tables(found))[-1]))
    better = searched(DEFAULT) | {"learning_rate": 1e-2, **small}
    with study_of(data_dir) as study:
        study.enqueue_trial(better)
    found, _ = tune(replace(asked, adopt=False))
    assert found.best[0].params == better
    assert found.pairs.keys() == {"default", "in use"}
    assert max(found.chances.values()) < LEVEL
    assert json.loads(file.read_bytes()) == before
    found, _ = tune(asked)
    assert found.adopted == file
    assert json.loads(file.read_bytes()) == {"hour": in_use | better, "minute": {"stride": 9}}
    assert "adopted: trial" in str(list(tables(found))[-1])

    clock = FakeClock(START_MS + days * DAY_MS)
    outcome = updater_on(data_dir, *topics, clock=clock, time_limit_s=90.0).train("hour").outcome
    assert outcome is not None
    assert outcome.ok, outcome.reason
    assert outcome.training == in_use | better

    again, _ = tune(asked)
    assert [trial.user_attrs["what"] for trial in again.references] == ["default", "in use"]
    assert not again.pairs, "what is in use is not put to the test against itself"


def test_on_a_walk_without_memory_nothing_is_adopted(data_dir: Path) -> None:
    found, _ = tune(asked_on(data_dir, trials=2))
    assert found.adopted is None
    assert not (data_dir / "training.json").exists()
    assert "nothing is adopted" in str(list(tables(found))[-1])


def test_the_per_cent_of_a_trial_never_fall_and_scoring_is_named() -> None:
    said: list[str] = []
    config = replace(DEFAULT, epochs=3, seeds=2)
    for number in range(2):
        progress = announced_progress(config, said.append, lambda: None, number, 2)
        for epoch in range(1, 7):
            for batch in range(1, 5):
                progress(epoch, batch, 4, 0.7)
    parts = [int(one.partition(" %")[0]) for one in said]
    assert parts == sorted(parts)
    assert said[0] == "2 % done, epoch 1 of 6, fold 1 of 2"
    assert (said[23], said[-1]) == ("50 % done, scoring, fold 1 of 2", "100 % done, scoring, fold 2 of 2")


def trial(score: float, number: int, what: str = "") -> FrozenTrial:
    attrs = {"cpu_s": 12.0, "wall_s": 13.0} | ({"what": what} if what else {})
    made = optuna.trial.create_trial(
        params=searched(DEFAULT),
        distributions={name: optuna.distributions.FloatDistribution(0, 1e4) for name in searched(DEFAULT)},
        value=score,
        user_attrs=attrs,
    )
    made.number = number
    return made


def shown(*scores: float) -> list[str]:
    """What the terminal shows, 80 columns wide, of the default and some trials, by their scores."""
    references, best = (
        (trial(scores[0], 0, "default"),),
        [trial(score, 12 + place) for place, score in enumerate(scores[1:])],
    )
    fold = Fold(start_ms=START_MS, end_ms=START_MS + DAY_MS)
    pairs = {"default": tuple(Pair(fold=fold, seed=seed, ours=scores[-1], theirs=scores[0]) for seed in range(4))}
    found = Found(
        panel="hour", topics=2, references=references, best=tuple(best), tried=len(best), importances={}, pairs=pairs
    )
    console = Console(width=80, record=True, file=io.StringIO())
    for part in tables(found):
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))
    return [line.strip() for line in console.export_text().splitlines()]


def test_what_comes_to_the_naive_forecast_is_called_so() -> None:
    lines = shown(0.0, 0.0, 1e-17)
    (ratios,) = [line.split() for line in lines if line.startswith("loss / naive")]
    assert ratios[3:] == ["naive"] * 3
    assert "naive: the network adds nothing, whatever the settings" in lines
    assert lines[-1] == "nothing is adopted: no settings make more of these topics than the naive forecast"
    assert not any("1.0000" in line or "0.00 %" in line for line in lines)


def test_a_naive_trial_stands_beside_others() -> None:
    lines = shown(math.log(1.02), 0.0, math.log(0.97), *[0.1] * 3)
    (ratios,) = [line.split() for line in lines if line.startswith("loss / naive")]
    assert ratios[3:] == ["1.0200", "naive", "0.9700", "1.1052", "1.1052", "1.1052"]
    assert not any("adds nothing" in line for line in lines)
    assert max(len(line) for line in lines[:-1] if "  " in line) <= 80, "the tables"


def birnn_tune(folder: Path, *arguments: str) -> psutil.Popen:
    return psutil.Popen(
        [sys.executable, "-m", "cli.main", "tune", "--days", "3", "--minutes", "30", "--seed", str(SEED), *arguments],
        env=os.environ | {"DATA_DIR": str(folder / "data"), "CONFIG_FILE": str(folder / "config.json")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def freeze(process: psutil.Popen, data_dir: Path, trials: int) -> list[psutil.Process]:
    """Stop a tuning and its helpers at a moment when so many trials are under way; they are in that moment for ever."""
    family: list[psutil.Process] = []

    def caught() -> bool:
        if running(data_dir) != trials:
            return False
        family[:] = [process, *process.children(recursive=True)]
        for one in family:
            one.suspend()
        if running(data_dir) == trials:
            return True
        for one in family:
            one.resume()
        return False

    eventually(caught, 100, f"{trials} trials at once")
    return family


def running(data_dir: Path) -> int:
    """Trials that are under way and know all they are to try. Optuna would make the tables if they were not there."""
    try:
        with closing(sqlite3.connect(f"file:{data_dir / 'tuning.sqlite3'}?mode=ro", uri=True, timeout=10)) as file:
            asked = "SELECT trial_id FROM trials JOIN trial_params USING (trial_id) WHERE state = 'RUNNING'"
            knobs = Counter(file.execute(asked).fetchall())
    except sqlite3.OperationalError:
        return 0
    return list(knobs.values()).count(len(searched(DEFAULT)))


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_trials_that_were_cut_off_are_failed_and_repeated(
    tmp_path: Path, data_dir: Path, number: signal.Signals
) -> None:
    write_config(tmp_path / "config.json", BTC, ETH)
    with birnn_tune(tmp_path, "--jobs", "2") as process:
        try:
            family = freeze(process, data_dir, trials=2)
            process.send_signal(number)
            for one in reversed(family):
                with suppress(psutil.NoSuchProcess):
                    one.resume()
            _, errors = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                process.kill()
    assert process.returncode == (130 if number is signal.SIGINT else -signal.SIGKILL)
    assert number is signal.SIGKILL or "stopped; the same command goes on" in errors
    assert "Traceback" not in errors
    eventually(lambda: not any(map(lives, family[1:])), 20, "the end of the helper")
    over = {TrialState.COMPLETE, TrialState.PRUNED}
    tried = [trial for trial in trials_of(data_dir) if "what" not in trial.user_attrs]
    cut_off = [trial for trial in tried if trial.state not in over and "tries" not in trial.user_attrs]
    assert cut_off
    wanted = sum(trial.state in over for trial in tried) + len(cut_off)
    topics = topics_from_config(tmp_path / "config.json")
    found, _ = tune(asked_on(data_dir, topics=topics, trials=wanted))
    assert found.tried == wanted
    trials = trials_of(data_dir)
    assert {trial.state for trial in trials} <= {*over, TrialState.FAIL}
    for trial in cut_off:
        (again,) = [other for other in trials if other.params == trial.params and other.number != trial.number]
        assert trials[trial.number].state is TrialState.FAIL
        assert (again.state in over, again.user_attrs["tries"]) == (True, 2)


def test_ctrl_c_waits_until_it_may_come() -> None:
    done = []

    def block(let_through_again: bool) -> None:
        with held_back() as let_through:
            let_through()
            signal.raise_signal(signal.SIGINT)
            done.append("goes on")
            if let_through_again:
                let_through()
            done.append("to its end")

    with pytest.raises(KeyboardInterrupt):
        block(let_through_again=True)
    assert done == ["goes on"]
    with pytest.raises(KeyboardInterrupt):
        block(let_through_again=False)
    assert done == ["goes on", "goes on", "to its end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def no_settings(data_dir: Path) -> dict[str, Any]:
    (data_dir / "training.json").write_text('{"hour": {"epochs": 0}}')
    return {}


def no_study(data_dir: Path) -> dict[str, Any]:
    (data_dir / "tuning.sqlite3").write_text("no database at all, but long enough to be taken for one" * 100)
    return {}


def in_use(data_dir: Path) -> dict[str, Any]:
    stack.enter_context(only_tuner(data_dir / "tuning.sqlite3"))
    return {}


stack = ExitStack()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda _: {"panels": ["minute"]}, "--panel minute: no topic needs it; there are hour", id="panel"),
        pytest.param(lambda _: {"minutes": 0}, "--minutes must be a number above 0, was 0", id="no time"),
        pytest.param(lambda _: {"minutes": math.inf}, "must be a number above 0, was inf", id="for ever"),
        pytest.param(lambda _: {"data": Path("nowhere")}, "nowhere: no such folder", id="no klines"),
        pytest.param(lambda _: {"training_days": 0}, "too few to tune", id="too few klines"),
        pytest.param(no_settings, "training.json: panel hour: epochs must be 1 or more, was 0", id="settings in use"),
        pytest.param(lambda _: {"end_ms": START_MS + 999 * DAY_MS}, "--end 2026-.* end at 2024-", id="end to come"),
        pytest.param(lambda data_dir: {"study": data_dir}, "data: is a folder; give a file with --study", id="folder"),
        pytest.param(no_study, "tuning.sqlite3: is no study", id="study"),
        pytest.param(in_use, "another tuning is at work", id="in use"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(data_dir: Path, make: Callable[[Path], dict[str, Any]], says: str) -> None:
    with stack, pytest.raises(ConfigError, match=says) as refusal:
        tune(asked_on(data_dir, **make(data_dir)))
    assert "\n" not in str(refusal.value)


def test_other_klines_under_an_old_study_are_refused(data_dir: Path) -> None:
    tune(asked_on(data_dir, minutes=NO_TIME_MIN))
    store = KlineStore(data_dir / "klines" / "binance")
    store.append("ETHUSDT", walk(7))
    with pytest.raises(ConfigError, match=r"was begun on other klines of .* begin another with --new"):
        tune(asked_on(data_dir, trials=2))


@pytest.mark.parametrize(
    ("leads", "chance"),
    [
        pytest.param([1.0, 1.0, 1.0, 1.0], 0.0, id="always the same"),
        pytest.param([0.0, 0.0, 0.0, 0.0], 0.5, id="alike"),
        pytest.param([1.0, -1.0, 1.0, -1.0], 0.5, id="both ways"),
        pytest.param([3.0, 1.0, 2.0, 2.0], 0.008138, id="clear"),  # as scipy.stats.ttest_1samp has it
        pytest.param([-3.0, -1.0, -2.0, -2.0], 0.991862, id="clearly worse"),
    ],
)
def test_the_chance_of_a_lead_is_that_of_a_paired_t_test(leads: list[float], chance: float) -> None:
    fold = Fold(start_ms=0, end_ms=1)
    pairs = [Pair(fold=fold, seed=n, ours=0.0, theirs=lead) for n, lead in enumerate(leads)]
    assert luck(pairs) == pytest.approx(chance, abs=1e-6)
