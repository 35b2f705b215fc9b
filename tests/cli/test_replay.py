"""``birnn replay``: past epochs answered again by a published network, beside what was answered and scored."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.topic import Target, Topic
from klines.klines import Klines
from ledger.answers import Answer
from model.forecaster import BiRNNForecaster, HeadForecast
from model.heads import head_of
from model.panels import HOUR
from model.registry.versions import Registry
from monitor.scorer import Scorer
from tests.data.make_tiny_model import FOLDER as TINY
from tests.fakes.clock import START_MS
from tests.fakes.klines import only, random_walk_klines
from tests.inference.stand import publish
from tests.monitor.stand import ELAPSED_MS, MARKET, NETWORK, Stand, answers_to

VERSION = "minute-20231120T000000Z-e1d07b"
SEEN_END_MS = START_MS + 4 * DAY_MS  # the tiny network was trained, stopped and calibrated on candles before
FIRST_MS = SEEN_END_MS + 6 * HOUR_MS  # of the answers
EPOCH_MIN = 10  # of topic 1
COUNT = 40  # answers, of which every other is left out of the ledger
PRICE = Topic(
    network=NETWORK, topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=10,
    epoch_length_blocks=120,
)  # fmt: skip
VOLATILITY = Topic(
    network=NETWORK, topic_id=9001, token="BTC", symbol="BTCUSDT", target=Target.VOLATILITY, horizon_min=5
)
LONG = Topic(network=NETWORK, topic_id=9002, token="BTC", symbol="BTCUSDT", target=Target.LOG_RETURN, horizon_min=480)


@pytest.fixture(scope="module")
def minutes() -> Mapping[str, Klines]:
    rows = 8 * DAY_MS // MINUTE_MS
    return {
        symbol: random_walk_klines(rows, seed=seed, start_ms=START_MS - 2 * DAY_MS)
        for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT"))
    }


@pytest.fixture
def stand(tmp_path: Path, minutes: Mapping[str, Klines]) -> Iterator[Stand]:
    shutil.copytree(TINY / "versions", tmp_path / "versions")
    write_config(tmp_path)
    stand = Stand(tmp_path, [PRICE, VOLATILITY])
    for symbol, klines in minutes.items():
        stand.store(symbol, klines)
    yield stand
    stand.close()


def write_config(folder: Path) -> None:
    config = json.loads(Path("config.example.json").read_text())
    workers = {one["topicId"]: one for one in config["worker"]}
    own = {"Token": "BTC", "Target": "volatility", "Horizon": "5m", "Loss": "mse"}
    asked = workers[1]["parameters"]["InferenceEndpoint"]
    extra = workers[1] | {"topicId": 9001, "parameters": {"InferenceEndpoint": asked, **own}}
    config["worker"] = [workers[1], workers[64], extra]
    (folder / "config.json").write_text(json.dumps(config))


def birnn(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    given = {"DATA_DIR": str(folder), "CONFIG_FILE": str(folder / "config.json"), "OBJECTIVE": "loss", "COLUMNS": "80"}
    ended = CliRunner().invoke(app, ["replay", *arguments], env=given | environment)
    return ended.exit_code, ended.stdout, ended.stderr


def replayed(folder: Path, topic: Topic, since_ms: int, until_ms: int, **environment: str) -> dict[str, Any]:
    code, out, err = birnn(folder, *of(topic, since_ms, until_ms), "--json", **environment)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def of(topic: Topic, since_ms: int, until_ms: int, version: str = VERSION) -> Sequence[str]:
    asked = ("--topic", str(topic.topic_id), "--version", version)
    return *asked, "--since", iso(since_ms), "--until", iso(until_ms)


def bases(count: int = COUNT) -> list[int]:
    return [FIRST_MS + number * EPOCH_MIN * MINUTE_MS for number in range(count)]


def forecast_at(minutes: Mapping[str, Klines], topic: Topic, close_ms: int) -> HeadForecast:
    """As serving makes it: from the newest candles of all symbols, one moment at a time."""
    forecaster = BiRNNForecaster.load(TINY / "versions" / VERSION)
    known = {symbol: klines.between(0, close_ms) for symbol, klines in minutes.items()}
    return forecaster.forecast(known)[0][topic.symbol, head_of(topic)]


def close_at(klines: Klines, moment_ms: int) -> float:
    return float(klines.close[np.flatnonzero(klines.open_time_ms == moment_ms - MINUTE_MS)[0]])


def price_by_hand(minutes: Mapping[str, Klines], answer: Answer) -> float:
    forecast = forecast_at(minutes, PRICE, answer.asof_ms)
    assert forecast.log_return
    left = 1 - answer.elapsed_ms / PRICE.horizon_ms
    return answer.anchor * answer.truth_ratio * math.exp(forecast.log_return * left)


def volatility_by_hand(minutes: Mapping[str, Klines], answer: Answer) -> float:
    """The first minute and the move since are known; the rest is as forecast. std_horizon: n - 1, times sqrt(5)."""
    forecast = forecast_at(minutes, VOLATILITY, answer.asof_ms)
    assert forecast.volatility
    klines = minutes["BTCUSDT"]
    base, first = (close_at(klines, answer.base_ms + minute * MINUTE_MS) for minute in (0, 1))
    news = 0.05 * min(1.0, 15 / 5) ** (2 / 3)
    moved, aged = math.log(answer.anchor / close_at(klines, answer.asof_ms)), answer.elapsed_ms / MINUTE_MS
    variance = forecast.volatility**2 + news * (moved**2 - forecast.volatility**2 * aged)
    known = [math.log(first / base), math.log(answer.anchor / first)]
    rest = (5 - aged) * variance
    squares = math.fsum(one**2 for one in known) + rest
    return math.sqrt((squares - (math.fsum(known) ** 2 + rest) / 5) / 4) * math.sqrt(5)


@pytest.mark.parametrize("topic", [pytest.param(PRICE, id="price"), pytest.param(VOLATILITY, id="volatility")])
def test_every_epoch_equals_a_separate_calculation(stand: Stand, minutes: Mapping[str, Klines], topic: Topic) -> None:
    klines = minutes[topic.symbol]
    answers = answers_to(topic, klines, bases(12), version="another")
    stand.answer(answers)
    assert stand.score_all(START_MS + 5 * DAY_MS + 20 * HOUR_MS) == 12
    found = replayed(stand.folder, topic, FIRST_MS, bases(12)[-1] + MINUTE_MS)
    rows = {row["base"]: row for row in found["epochs"] if row["answer"]}
    assert len(rows) == 12
    by_hand = price_by_hand if topic is PRICE else volatility_by_hand
    for answer, (_, score) in zip(answers, reversed(stand.book.answers_of(topic, 12)), strict=True):
        assert score
        row = rows[iso(answer.base_ms)]
        expected = by_hand(minutes, answer)
        assert row["replayed"]["value"] == pytest.approx(expected, rel=1e-9)
        assert row["truth"] == score.truth, "the same truth as the monitor's"
        assert score.truth
        assert row["replayed"]["loss"] == pytest.approx((expected - score.truth) ** 2, rel=1e-6)
        assert (row["naive_loss"], row["plain_naive_loss"]) == (score.naive_loss, score.plain_naive_loss)
        given = row["answer"]
        assert (given["value"], given["version"], given["scored"]) == (answer.value, "another", True)
        assert (given["loss"], given["truth"], given["height"]) == (score.loss, score.truth, answer.height)
    losses = [rows[iso(answer.base_ms)]["replayed"]["loss"] for answer in answers]
    assert found["where_answered"]["loss"] == pytest.approx(math.fsum(losses) / 12)
    recorded = [score.loss for _, score in stand.book.answers_of(topic, 12) if score and score.loss is not None]
    assert found["answered"]["loss"] == pytest.approx(math.fsum(recorded) / 12)
    saved = 1 - found["where_answered"]["loss"] / found["answered"]["loss"]
    assert found["over_answered"]["skill"] == pytest.approx(saved)
    assert (found["version"], found["seen"], found["not_replayed"]) == (VERSION, 0, {})


def test_a_long_horizon_is_replayed_by_the_network_of_hours(stand: Stand, minutes: Mapping[str, Klines]) -> None:
    """From hours of all its symbols; interval and truth are told by minutes, as the monitor tells them."""
    path, own = stand.folder / "config.json", {"Token": "BTC", "Target": "log_return", "Horizon": "8h", "Loss": "mse"}
    config = json.loads(path.read_text())
    asked = config["worker"][0]["parameters"]["InferenceEndpoint"]
    config["worker"].append(config["worker"][0] | {"topicId": 9002, "parameters": {"InferenceEndpoint": asked, **own}})
    path.write_text(json.dumps(config))
    version = publish(Registry(stand.folder), 0.5, START_MS, HOUR)
    rows, start_ms = 70 * 24, FIRST_MS - 60 * DAY_MS
    hours = {
        symbol: random_walk_klines(rows, HOUR_MS, seed=seed, start_ms=start_ms, sigma=5e-3)
        for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT", "SOLUSDT"))
    }
    for symbol, klines in hours.items():
        stand.store(symbol, klines)
    stand.scorer = Scorer(stand.book, stand.homes, [LONG], MARKET)
    answers = answers_to(LONG, minutes["BTCUSDT"], [FIRST_MS + number * HOUR_MS for number in range(6)])
    stand.answer(answers)
    assert stand.score_all(START_MS + 6 * DAY_MS) == 6
    code, out, err = birnn(stand.folder, *of(LONG, FIRST_MS, FIRST_MS + 6 * HOUR_MS, version), "--json")
    assert code == 0, err
    found = {row["base"]: row for row in json.loads(out)["epochs"] if row["answer"]}
    forecaster = BiRNNForecaster.load(stand.folder / "versions" / version)
    assert len(found) == 6
    for answer, (_, score) in zip(answers, reversed(stand.book.answers_of(LONG, 6)), strict=True):
        assert score
        row = found[iso(answer.base_ms)]
        known = {symbol: klines.between(0, answer.asof_ms) for symbol, klines in hours.items()}
        forecast = forecaster.forecast(known)[0]["BTCUSDT", head_of(LONG)]
        assert forecast.log_return, "0.5 times the window's scale"
        moved = math.log(answer.anchor / close_at(minutes["BTCUSDT"], answer.base_ms))
        expected = moved + forecast.log_return * (1 - answer.elapsed_ms / LONG.horizon_ms)
        assert row["replayed"]["value"] == pytest.approx(expected, rel=1e-9)
        assert (row["truth"], row["naive_loss"]) == (score.truth, score.naive_loss)
        assert row["replayed"]["loss"] == pytest.approx((expected - (score.truth or 0)) ** 2, rel=1e-6)


def test_the_network_that_answered_answers_the_same_again(stand: Stand, minutes: Mapping[str, Klines]) -> None:
    answers = [
        answer._replace(value=repr(price_by_hand(minutes, answer)), version=VERSION)
        for answer in answers_to(PRICE, minutes["ETHUSDT"], bases(8))
    ]
    stand.answer(answers)
    stand.score_all(START_MS + 5 * DAY_MS)
    found = replayed(stand.folder, PRICE, FIRST_MS, bases(8)[-1] + MINUTE_MS)
    given = [row for row in found["epochs"] if row["answer"]]
    for row in given:
        assert row["replayed"]["value"] == pytest.approx(float(row["answer"]["value"]), rel=1e-12)
    assert found["over_answered"]["skill"] == pytest.approx(0, abs=1e-6)


def test_todays_stretch_is_applied_as_serving_does(stand: Stand, minutes: Mapping[str, Klines]) -> None:
    """Of a topic of the testnet, before anything is fitted: 0.33 times the root of horizon over what is known."""
    (answer,) = answers_to(PRICE, minutes["ETHUSDT"], bases(1))
    stand.answer([answer._replace(truth_ratio=1.0)])
    found = replayed(stand.folder, PRICE, FIRST_MS, FIRST_MS + MINUTE_MS, OBJECTIVE="auto")
    base = close_at(minutes["ETHUSDT"], answer.base_ms)
    plain = price_by_hand(minutes, answer._replace(truth_ratio=1.0))
    factor = max(1.0, 0.33 * math.sqrt(PRICE.horizon_ms / ELAPSED_MS))
    assert found["epochs"][0]["replayed"]["value"] == pytest.approx(base * (plain / base) ** factor, rel=1e-12)
    assert found["epochs"][0]["answer"]["scored"] is False, "an answer without a score is shown, and not compared"
    assert found["answered"]["skill"]["n"] == 0


def test_epochs_that_nobody_answered_are_replayed_at_the_typical_time(
    stand: Stand, minutes: Mapping[str, Klines]
) -> None:
    answers = answers_to(PRICE, minutes["ETHUSDT"], bases()[::2])
    stand.answer(answers)
    stand.score_all(START_MS + 6 * DAY_MS)
    found = replayed(stand.folder, PRICE, FIRST_MS, bases()[-1])
    assert [row["base"] for row in found["epochs"]] == [iso(base) for base in bases()[:-1]]
    assert [bool(row["answer"]) for row in found["epochs"]] == [number % 2 == 0 for number in range(COUNT - 1)]
    assert found["every"]["skill"]["n"] == COUNT - 1
    assert found["where_answered"]["skill"]["n"] == found["answered"]["skill"]["n"] == COUNT // 2
    for row, base in list(zip(found["epochs"], bases(), strict=False))[1:12:2]:
        seen_ms = base + MINUTE_MS
        forecast = forecast_at(minutes, PRICE, seen_ms)
        assert forecast.log_return
        anchor = close_at(minutes["ETHUSDT"], seen_ms)
        expected = anchor * math.exp(forecast.log_return * 0.9)
        assert row["replayed"]["value"] == pytest.approx(expected, rel=1e-9)
        truth = close_at(minutes["ETHUSDT"], base + PRICE.horizon_ms)
        assert row["truth"] == truth
        assert row["naive_loss"] == pytest.approx((anchor - truth) ** 2)


def test_without_a_ledger_the_candles_alone_are_replayed(stand: Stand) -> None:
    (stand.folder / "ledger.sqlite3").unlink()
    code, out, err = birnn(stand.folder, *of(PRICE, SEEN_END_MS + HOUR_MS, SEEN_END_MS + 5 * HOUR_MS))
    assert code == 0, err
    text = " ".join(out.split())
    assert "without what was answered: " in text
    assert "not there yet: nothing has been answered here" in text
    assert "nothing that was answered in this span has a score" in text


def test_a_span_that_the_network_was_trained_on_is_told_apart(stand: Stand, minutes: Mapping[str, Klines]) -> None:
    early = [SEEN_END_MS - 25 * MINUTE_MS + number * EPOCH_MIN * MINUTE_MS for number in range(8)]
    stand.answer(answers_to(PRICE, minutes["ETHUSDT"], early))
    stand.score_all(START_MS + 5 * DAY_MS)
    since_ms, until_ms = early[0], early[-1] + MINUTE_MS
    found = replayed(stand.folder, PRICE, since_ms, until_ms)
    assert [row["seen"] for row in found["epochs"]] == [base < SEEN_END_MS for base in early]
    assert (found["seen"], found["unseen"]["skill"]["n"], found["every"]["skill"]["n"]) == (3, 5, 8)
    assert found["trained"] == [iso(START_MS), iso(SEEN_END_MS)]
    assert found["where_answered"]["skill"]["n"] == found["answered"]["skill"]["n"] == 5, "the comparison is fair"
    losses = [row["replayed"]["loss"] for row in found["epochs"] if not row["seen"]]
    assert found["unseen"]["loss"] == pytest.approx(math.fsum(losses) / 5)
    _, out, _ = birnn(stand.folder, *of(PRICE, since_ms, until_ms))
    text = " ".join(out.split())
    assert (
        "warning: the network was trained, stopped and calibrated on candles from 2023-11-15 00:00 to 2023-11-19 00:00 "
        "UTC, and 3 of these epochs lie there: it answers them better than it could have. All rows but the first "
        "leave them out."
    ) in text
    assert "unseen minute-e1d07b 5 " in text
    _, out, _ = birnn(stand.folder, *of(PRICE, since_ms, SEEN_END_MS - MINUTE_MS))
    assert "Choose a later span." in " ".join(out.split())
    _, out, _ = birnn(stand.folder, *of(PRICE, SEEN_END_MS + MINUTE_MS, until_ms))
    assert "warning" not in out


def test_the_table_fits_80_columns(stand: Stand, minutes: Mapping[str, Klines]) -> None:
    stand.answer(answers_to(PRICE, minutes["ETHUSDT"], bases()))
    stand.score_all(START_MS + 6 * DAY_MS)
    code, out, _ = birnn(stand.folder, *of(PRICE, FIRST_MS, bases()[-1] + 1))
    data, *lines = out.splitlines()
    assert code == 0
    assert data.startswith(f"data: {stand.folder}")
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert f"topic 1 replayed with {VERSION}: 40 epochs from 2023-11-19 06:00 to" in text
    assert "all minute-e1d07b 40 " in text
    assert "answered minute-e1d07b 40 " in text
    assert "answered as answered 40 " in text
    assert "where an answer was given, the network would have lost" in text


def test_what_cannot_be_replayed_is_counted(stand: Stand, minutes: Mapping[str, Klines]) -> None:
    klines = minutes["ETHUSDT"]
    hole = klines.open_time_ms != FIRST_MS + 35 * MINUTE_MS
    for path in (stand.folder / "klines").rglob("ETHUSDT-1m"):
        shutil.rmtree(path)
    stand.store("ETHUSDT", only(klines, hole))
    stand.answer(answers_to(PRICE, klines, bases(8)))
    found = replayed(stand.folder, PRICE, FIRST_MS, bases(8)[-1] + MINUTE_MS)
    assert set(found["not_replayed"]) == {"candles of the network's window are missing"}
    assert (len(found["epochs"]), sum(found["not_replayed"].values())) == (4, 4)
    code, _, err = birnn(stand.folder, *of(PRICE, START_MS - 30 * DAY_MS, START_MS - 29 * DAY_MS))
    assert code == 1
    assert "nothing to replay from 2023-10-16" in err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param(
            {"--version": "minute-20990101T000000Z-000000"},
            f"no such version is published; there are {VERSION}",
            id="unknown",
        ),
        pytest.param({"--version": "../../etc/passwd\x1b[31m"}, "no such version is published", id="hostile"),
        pytest.param({"--topic": "7"}, "--topic 7: the config has no such topic; it has 1, 64, 9001", id="topic"),
        pytest.param({"--topic": "64"}, "needs return-8h-czar of BTCUSDT; version minute-2023", id="not trained for"),
        pytest.param({"--since": "monday"}, "--since must be a UTC day or moment", id="no day"),
        pytest.param({"--until": "2023-11-31"}, "--until must be a UTC day or moment", id="no such day"),
        pytest.param({"--until": "2023-01-01"}, "is not before --until 2023-01-01", id="backwards"),
        pytest.param({"--network": "nowhere"}, "the config has no such network", id="network"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(stand: Stand, changed: dict[str, str], said: str) -> None:
    asked = {"--topic": "1", "--version": VERSION, "--since": "2023-11-19", "--until": "2023-11-20"} | changed
    code, _, err = birnn(stand.folder, *(part for pair in asked.items() for part in pair))
    assert code == 2
    assert err.count("\n") == 1, err
    assert "\x1b" not in err
    assert said in err


def test_a_version_may_be_named_as_tables_show_it_and_a_torn_one_is_refused(stand: Stand) -> None:
    asked = of(PRICE, SEEN_END_MS + HOUR_MS, SEEN_END_MS + 3 * HOUR_MS, "minute-e1d07b")
    assert birnn(stand.folder, *asked)[0] == 0
    (stand.folder / "versions" / VERSION / "model.onnx").write_bytes(b"torn")
    code, _, err = birnn(stand.folder, *asked)
    assert (code, err.count("\n")) == (1, 1)
    assert "model.onnx" in err
    shutil.rmtree(stand.folder / "versions")
    code, _, err = birnn(stand.folder, *asked)
    assert "no such version is published; there are none yet" in err


def test_two_networks_with_the_same_topic_are_told_apart(stand: Stand) -> None:
    config = json.loads((stand.folder / "config.json").read_text())
    text = json.dumps(config | {"worker": config["worker"][-1:]})
    for name, network in (("config.json", "allora-testnet-1"), ("other.json", "allora-mainnet-1")):
        own = text.replace("topic={TopicId}", f"topic={{TopicId}}&network={network}")
        own = own.replace("allora-testnet-1", network).replace("testnet.allora", f"{network.split('-')[1]}.allora")
        (stand.folder / name).write_text(own)
    both = f"{stand.folder / 'config.json'},{stand.folder / 'other.json'}"
    asked = of(replace(PRICE, topic_id=9001), SEEN_END_MS, SEEN_END_MS + HOUR_MS)
    code, _, err = birnn(stand.folder, *asked, CONFIG_FILE=both)
    assert code == 2
    assert "--topic 9001: is of allora-mainnet-1, allora-testnet-1; say which with --network" in err
    code, out, err = birnn(stand.folder, *asked, "--network", "allora-mainnet-1", "--json", CONFIG_FILE=both)
    assert code == 0, err
    assert json.loads(out)["network"] == "allora-mainnet-1"
