"""``birnn truth``: a ledger of epochs and the candles of three venues in, the venue that the reputers use out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from core.clock import DAY_MS, MINUTE_MS
from core.losses import loss_named
from core.settings import BaseRule
from core.topic import Target, Volatility
from klines.klines import Klines
from ledger.answers import Answer
from ledger.epochs import Detail, Epoch, EpochBook, Inferer, Stage
from market.store.kline_store import KlineStore
from node.config_file import topics_from_config
from tests.cli.ledger import NETWORK, answer_of, write_config, write_ledger
from tests.fakes.klines import random_walk_klines
from truth.candidates import Candidate, Moment, candidates
from truth.ranking import SURE_EPOCHS, beyond_doubt, rank
from truth.recovered import Recovered
from truth.study import Study

EPOCHS, EVERY_MIN = 24, 5
START_MS = 20_000 * DAY_MS
SYMBOLS = {1: "ETHUSDT", 79: "BTCUSDT", 64: "BTCUSDT"}
VENUES = {"binance": 0.0, "coinbase": 2e-4, "kraken": 2e-4}  # noise on each price


def birnn(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    environment = {"DATA_DIR": str(folder), "CONFIG_FILE": str(folder / "config.json"), "COLUMNS": "100"}
    ended = CliRunner().invoke(app, ["truth", *arguments], env={"MARKET": "binance", **environment})
    return ended.exit_code, ended.stdout, ended.stderr


def document(folder: Path, *arguments: str) -> dict[str, Any]:
    code, out, err = birnn(folder, "--json", *arguments)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def noisy(walk: Klines, noise: float, rng: np.random.Generator) -> Klines:
    """Another venue's candles of the same market."""
    factor = np.exp(rng.normal(0, noise, len(walk)))
    prices = {name: getattr(walk, name) * factor for name in ("open", "high", "low", "close")}
    return Klines(**{name: prices.get(name, getattr(walk, name)) for name in walk.__slots__})


def store_candles(folder: Path, rng: np.random.Generator) -> None:
    for symbol in set(SYMBOLS.values()):
        walk = random_walk_klines(800, seed=len(symbol) + ord(symbol[0]))
        walk = Klines(
            **{name: getattr(walk, name) for name in walk.__slots__ if name != "open_time_ms"},
            open_time_ms=walk.open_time_ms - walk.open_time_ms[0] + START_MS,
        )
        for venue, noise in VENUES.items():
            KlineStore(folder / "klines" / venue).append(symbol, noisy(walk, noise, rng) if noise else walk)


def epoch(topic_id: int, number: int, truth: float, rng: np.random.Generator, **changes: Any) -> Epoch:
    """An epoch that one reputer scored against a truth."""
    values = truth + max(abs(truth) * 0.01, 1e-5) * rng.normal(0, 1, 4)
    loss = loss_named(
        next(one.loss for one in topics_from_config(Path("config.example.json")) if one.topic_id == topic_id)
    )
    losses = np.log10(loss(np, np.float64(truth), values, np.float64(0.002)))
    inferers = tuple(
        Inferer(address=f"allo{place}", value=repr(float(value)), loss=repr(float(loss)))
        for place, (value, loss) in enumerate(zip(values, losses, strict=True))
    )
    whole = Epoch(
        network=NETWORK,
        topic_id=topic_id,
        nonce=nonce_of(number),
        block_ms=base_ms(number) + 53_000,
        seen_ms=base_ms(number),
        stage=Stage.SETTLED,
        detail=Detail(inferers=inferers).packed(),
    )
    return whole._replace(**changes)


def nonce_of(number: int) -> int:
    return 1000 + 60 * number


def base_ms(number: int) -> int:
    return START_MS + (30 + EVERY_MIN * number) * MINUTE_MS


def answer(topic_id: int, number: int) -> Answer:
    """Our answer, every second one given in the minute after the nonce block's."""
    given_ms = base_ms(number) + (61_000 if number % 2 else 56_000)
    return answer_of(topic_id, nonce_of(number), base_ms(number), answered_ms=given_ms)


def write(folder: Path, answers: Sequence[Answer], epochs: Sequence[Epoch]) -> None:
    write_ledger(folder / "ledger.sqlite3", answers, [])
    book = EpochBook(f"sqlite:///{folder / 'ledger.sqlite3'}")
    book.write(epochs)
    book.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_config(tmp_path)
    store_candles(tmp_path, np.random.default_rng(1))
    return tmp_path


def truths_of(folder: Path, topic_id: int, wanted: Candidate) -> list[float]:
    """What a candidate says of each epoch."""
    from market.store.home_store import HomeStore  # noqa: PLC0415

    topic = next(one for one in topics_from_config(folder / "config.json") if one.topic_id == topic_id)
    rng = np.random.default_rng(0)
    rows = [(epoch(topic_id, number, 1.0, rng), answer(topic_id, number)) for number in range(EPOCHS)]
    found = candidates(topic, HomeStore(folder / "klines"), rows)[wanted]
    return [value for value in found if value is not None]


CASES = {
    "price": (1, Candidate("coinbase", Moment.CLOSE, BaseRule.MINUTE)),
    "price by the asking": (1, Candidate("binance", Moment.OPEN, BaseRule.ASKED)),
    "volatility": (79, Candidate("kraken", Moment.CLOSE, BaseRule.MINUTE, Volatility.RMS_ANNUAL)),
    "return": (64, Candidate("binance", Moment.CLOSE, BaseRule.MINUTE)),
}


@pytest.mark.parametrize(("topic_id", "right"), CASES.values(), ids=CASES)
def test_it_names_what_the_reputers_score_against(folder: Path, topic_id: int, right: Candidate) -> None:
    rng = np.random.default_rng(3)
    truths = truths_of(folder, topic_id, right)
    assert len(truths) == EPOCHS
    write(
        folder,
        [answer(topic_id, number) for number in range(EPOCHS)],
        [epoch(topic_id, number, truth, rng) for number, truth in enumerate(truths)],
    )
    found = document(folder, "--topic", str(topic_id))
    assert set(found) == {"epochs", "ranking", "verdict"}
    assert [one["nonce"] for one in found["epochs"]] == [nonce_of(number) for number in reversed(range(EPOCHS))]
    for one, truth in zip(found["epochs"], reversed(truths), strict=True):
        assert set(one) == {"nonce", "truth", "error", "inferers", "candidates"}
        assert one["truth"] == pytest.approx(truth, rel=1e-9, abs=1e-12)
        assert one["candidates"][right.name] == pytest.approx(truth)
    best = found["ranking"][0]
    assert set(best) == {"candidate", "within", "of", "median_bp"}
    assert (best["candidate"], best["within"], best["of"]) == (right.name, EPOCHS, EPOCHS)
    assert found["verdict"].startswith(f"TRUTH_VENUE={right.venue} fits {EPOCHS} of {EPOCHS} epochs within 0.2 bp")
    assert f"BASE_RULE={right.base} fits" in found["verdict"]
    assert (f"Volatility={right.volatility} fits" in found["verdict"]) is (right.volatility is not None)
    code, shown, said = birnn(folder, "--topic", str(topic_id))
    assert code == 0, said
    assert f"{EPOCHS} of {EPOCHS}" in shown
    assert right.name in shown


def test_a_truth_that_no_candidate_has_is_told_of_none(folder: Path) -> None:
    rng = np.random.default_rng(3)
    truths = truths_of(folder, 1, Candidate("binance", Moment.CLOSE, BaseRule.MINUTE))
    write(folder, [], [epoch(1, number, truth * 1.0005, rng) for number, truth in enumerate(truths)])
    verdict = document(folder, "--topic", "1")["verdict"]
    assert verdict.startswith("cannot tell TRUTH_VENUE: the best candidate fits ")
    assert not [venue for venue in VENUES if venue in verdict]


def test_epochs_without_a_truth_say_why_and_those_that_are_not_due_are_left_out(folder: Path) -> None:
    rng = np.random.default_rng(3)
    equal = Detail(inferers=tuple(Inferer(address=f"a{place}", value="2000", loss="1") for place in range(3)))
    write(
        folder,
        [],
        [
            epoch(1, 0, 2000.0, rng, detail=None, stage=Stage.GONE),
            epoch(1, 1, 2000.0, rng, detail=equal.packed()),
            epoch(1, 2, 2000.0, rng),
            epoch(1, 3, 2000.0, rng, block_ms=None, stage=Stage.CLOSED),
        ],
    )
    newest, second, oldest = document(folder, "--topic", "1")["epochs"]
    assert newest["truth"] == pytest.approx(2000)
    assert (second["truth"], second["why"]) == (None, "the 3 inferers' values are equal: they fit two truths")
    assert (oldest["truth"], oldest["why"]) == (None, "the inferers' values were not read")
    assert len(document(folder, "--topic", "1", "--epochs", "2")["epochs"]) == 2
    code, shown, _ = birnn(folder, "--topic", "1")
    assert code == 0
    assert "not told in 1 of 3 epochs: the inferers' values were not read" in shown


FAULTS: Mapping[str, tuple[Sequence[str], str]] = {
    "no epochs": (["--topic", "1"], "no settled epoch of it was seen on the chain yet"),
    "no such topic": (["--topic", "4711"], "--topic 4711: the config has no such topic"),
    "no such network": (["--topic", "1", "--network", "x"], "--network x: the config has no such network"),
}


@pytest.mark.parametrize(("arguments", "said"), FAULTS.values(), ids=FAULTS)
def test_faults_are_one_line(folder: Path, arguments: Sequence[str], said: str) -> None:
    write(folder, [answer(1, 0)], [])
    code, _, err = birnn(folder, *arguments)
    assert code in {1, 2}
    assert said in err
    assert len(err.splitlines()) == 1


def ranking_of(epochs: int, fits: int, other_fits: int) -> Any:
    """A ranking of two venues, of a truth of 1,000 in each epoch."""
    topic = next(one for one in topics_from_config(Path("config.example.json")) if one.target is Target.PRICE)
    from decimal import Decimal  # noqa: PLC0415

    truths = [Recovered(Decimal(1000), Decimal("1e-9"), ("a", "b"), True)] * epochs
    values: dict[Candidate, list[float | None]] = {
        Candidate(venue, Moment.CLOSE, BaseRule.MINUTE): [1000.0 if at < fit else 1001.0 for at in range(epochs)]
        for venue, fit in (("binance", fits), ("kraken", other_fits))
    }
    return rank(topic, truths, values)


@pytest.mark.parametrize(
    ("epochs", "fits", "other_fits", "told", "sure"),
    [
        (40, 38, 3, True, True),
        (40, 38, 12, True, True),
        (40, 30, 3, True, False),
        (40, 19, 0, False, False),
        (40, 38, 30, True, False),
        (40, 38, 34, False, False),
        (SURE_EPOCHS - 1, SURE_EPOCHS - 1, 0, True, False),
        (4, 4, 0, False, False),
    ],
)
def test_a_venue_is_told_and_adopted_by_the_rule(
    epochs: int, fits: int, other_fits: int, told: bool, sure: bool
) -> None:
    ranking = ranking_of(epochs, fits, other_fits)
    assert ranking.finding("TRUTH_VENUE").is_told is told
    assert beyond_doubt(ranking) is sure
    assert not beyond_doubt(ranking, "BASE_RULE"), "nothing was compared"


def test_a_study_of_nothing_says_so() -> None:
    empty = Study(nonces=(), truths=(), values={}, ranking=ranking_of(0, 0, 0))
    assert empty.ranking.verdict == "cannot tell: no epoch's truth was recovered exactly enough"
