"""Training: reproducible, stops by itself, fails aloud; the published network is the trained one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from core.errors import ConfigError, TrainingFailed
from core.topic import Target, Topic
from model.evaluation import onnx_network, outputs
from model.features import FEATURES, SIGNED
from model.heads import MINUTE, Head, Kind, panels_for
from model.losses import loss
from model.training import linear
from model.training.birnn import BiRNNModel, PanelNetwork
from model.training.config import TrainingConfig
from model.training.fit import (
    Objective,
    TrainedPanel,
    export_onnx,
    torch_network,
    train_panel,
    weights_bytes,
)
from model.windows import build, purged_split
from tests.fakes.klines import random_walk_klines

TOPICS = (
    Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=10),
    Topic(topic_id=2, token="BTC", symbol="BTCUSDT", target=Target.VOLATILITY, horizon_min=15),
    Topic(topic_id=3, token="BTC", symbol="BTCUSDT", target=Target.LOG_RETURN, horizon_min=5),
)
PLAN = panels_for(TOPICS)[MINUTE]
VOLATILITY = Head(Kind.VOLATILITY, 15)
WALKS = {symbol: random_walk_klines(4500, seed=seed) for seed, symbol in enumerate(PLAN.symbols)}
SHORT = {symbol: walk.tail(2500) for symbol, walk in WALKS.items()}
TINY = TrainingConfig(cell="rnn", hidden_layer_size=4, epochs=2, stride=4, batch_size=128, seeds=1)


@pytest.fixture(scope="module")
def trained() -> TrainedPanel:
    return train_panel(PLAN, WALKS, replace(TINY, epochs=3), seed=0)


def weights(panel: TrainedPanel) -> bytes:
    return weights_bytes(panel.model)


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    torch.manual_seed(99)  # what the process did before does not matter
    first = train_panel(PLAN, SHORT, TINY, seed=7)
    state = torch.get_rng_state()
    again, other = train_panel(PLAN, SHORT, TINY, seed=7), train_panel(PLAN, SHORT, TINY, seed=8)
    assert weights(first) == weights(again)
    assert weights(first) != weights(other)
    assert first.calibration == again.calibration
    assert torch.equal(torch.get_rng_state(), state)  # nor does training matter to the process


def test_the_best_weights_are_put_back(trained: TrainedPanel) -> None:
    """The validation loss it reports is that of the network it returns."""
    windows, split = trained.windows, trained.split
    rows = windows.rows(split.validate_start_ms, split.validate_end_ms, stride=trained.config.stride)
    said = outputs(torch_network(trained.model), windows, rows)
    column = PLAN.heads.index(VOLATILITY)
    loss = np.mean(np.square(said[:, column] - np.clip(windows.target[rows, column], -5, 5))) / 2
    assert trained.validation[VOLATILITY.key] == pytest.approx(loss, rel=1e-5)
    assert [1 <= best <= run <= 3 for best, run in zip(trained.best_epoch, trained.epochs, strict=True)] == [True]


def test_each_return_head_is_trained_towards_its_topic_s_own_loss() -> None:
    """And a volatility head towards the logarithm, which it is learnt as."""
    losses = ("mse", "mae", "huber", "logcosh", "ztae", "zptae", "czar")
    asked = [
        Topic(topic_id=n, token="ETH", symbol="ETHUSDT", target=Target.LOG_RETURN, horizon_min=10, loss=name)
        for n, name in enumerate(losses, 1)
    ]
    plan = panels_for([*asked, TOPICS[1]])[MINUTE]
    windows = build(plan, WALKS)
    split, rng = purged_split(windows), np.random.default_rng(0)
    path = linear.fit(windows, split)
    rows = windows.rows(split.validate_start_ms, split.validate_end_ms)
    said = rng.normal(0, 0.3, (len(rows), len(plan.heads))).astype(np.float32)
    told = Objective(windows, split, TINY, path).by_head(torch.from_numpy(said), rows)
    whole = said + path(windows, rows)
    train = windows.rows(split.train_start_ms, split.train_end_ms)
    for column, head in enumerate(plan.heads):
        target = np.clip(windows.target[rows, column].astype(np.float64), -5, 5)
        if head.kind.is_volatility or head.loss == "mse":
            assert told[column] == pytest.approx(np.mean((whole[:, column] - target) ** 2) / 2, rel=1e-4), head.key
            continue
        std = np.array(
            [
                np.sqrt(np.nanmean(windows.truth[train[windows.symbol[train] == place], column] ** 2))
                for place in range(len(plan.symbols))
            ]
        )
        unit = windows.scale[rows] * 10**0.5 / std[windows.symbol[rows]]
        of = loss(head.loss)
        none = of(target * unit, np.zeros(len(rows)), 1.0).mean()
        theirs = of(target * unit, whole[:, column] * unit, 1.0).mean() - none  # czar lacks its term of the truth alone
        base = -path(windows, rows).astype(np.float32)
        ours = told[column] - Objective(windows, split, TINY, path).by_head(torch.from_numpy(base), rows)[column]
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6), head.key


def test_each_epoch_s_validation_loss_is_told_and_an_error_ends_the_training() -> None:
    class Enough(Exception):
        pass

    told: list[tuple[int, float]] = []

    def validated(epoch: int, loss: float) -> None:
        told.append((epoch, loss))
        if epoch == 2:
            raise Enough

    with pytest.raises(Enough):
        train_panel(PLAN, SHORT, replace(TINY, epochs=3), seed=0, validated=validated)
    assert [epoch for epoch, _ in told] == [1, 2]
    assert all(loss > 0 for _, loss in told)


def test_it_stops_when_validation_gets_no_better() -> None:
    wild = replace(TINY, epochs=30, patience=1, learning_rate=0.05, return_weight=1.0)
    panel = train_panel(PLAN, SHORT, wild, seed=0)
    assert panel.best_epoch == (panel.epochs[0] - 1,)
    assert panel.epochs[0] < 30


def test_a_stride_longer_than_the_validation_part_stops_on_all_of_it() -> None:
    """As 16 windows are enough for a split."""
    short = {symbol: walk.tail(1900) for symbol, walk in WALKS.items()}
    made = train_panel(PLAN, short, replace(TINY, epochs=1, stride=97), seed=0)
    assert 0 < made.rows["validate"] < 2 * 97
    assert all(loss > 0 for loss in made.validation.values())


def test_progress_counts_every_batch() -> None:
    seen: list[tuple[int, int, int, float]] = []
    train_panel(PLAN, SHORT, TINY, 0, lambda *step: seen.append(step))
    for epoch in (1, 2):
        steps = [step for step in seen if step[0] == epoch]
        assert [step[1] for step in steps] == list(range(1, steps[0][2] + 1))
    assert all(np.isfinite(step[3]) for step in seen)


@pytest.mark.parametrize(
    ("learning_rate", "message"),
    [
        pytest.param(1e30, r"minute panel: the loss is (nan|inf) in epoch 1, batch \d+", id="within an epoch"),
        pytest.param(float("inf"), r"not|nan|inf", id="at once"),
    ],
)
def test_a_loss_that_is_not_finite_is_an_error(learning_rate: float, message: str) -> None:
    with pytest.raises(TrainingFailed, match=message):
        train_panel(PLAN, SHORT, replace(TINY, learning_rate=learning_rate, weight_decay=0.9), seed=0)


def correlations(features: "np.ndarray[Any, Any]", came_true: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """|t| of each feature's correlation with what came true, over rows that share nothing."""
    x = (features - features.mean(0)) / (features.std(0) + 1e-9)
    y = (came_true - came_true.mean()) / came_true.std()
    t: np.ndarray[Any, Any] = np.abs(x.T @ y) / len(y) ** 0.5
    return t


def test_no_feature_knows_what_a_random_walk_does_next() -> None:
    walks = {symbol: random_walk_klines(20_000, seed=40 + seed) for seed, symbol in enumerate(PLAN.symbols)}
    windows = build(PLAN, walks)
    for column, head in enumerate(PLAN.heads):
        rows = windows.rows(0, 2**62, stride=head.horizon_min)
        rows = rows[np.isfinite(windows.truth[rows, column])]
        assert (found := correlations(windows.x[rows], windows.truth[rows, column])).max() < 4.5, FEATURES[
            found.argmax()
        ]
        leak = windows.x[rows + 1][:, [FEATURES.index("return"), FEATURES.index("range")]]
        assert correlations(leak, windows.truth[rows, column]).max() > 8, "the detector must see a leak of one candle"


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_each_cell_is_trained_and_published_as_it_is(cell: Any) -> None:
    made = train_panel(PLAN, SHORT, replace(TINY, epochs=1, cell=cell, num_layers=1, seeds=2), seed=0)
    rows = made.windows.rows(made.split.judge_start_ms, made.split.judge_end_ms)[:20]
    real = made.windows.gather(rows)
    served = onnx_network(export_onnx(made.model, MINUTE.lookback, real))
    np.testing.assert_allclose(served(real), torch_network(made.model)(real), atol=1e-5)
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    assert made.model.named_weights()["rnn.weight_ih_l0"].shape == (gates * 4, len(FEATURES))


def test_the_exported_network_is_the_trained_one(trained: TrainedPanel) -> None:
    rows = trained.windows.rows(trained.split.judge_start_ms, trained.split.judge_end_ms)[:300]
    real = trained.windows.gather(rows)
    served = onnx_network(export_onnx(trained.model, MINUTE.lookback, real[:50]))
    for batch in (1, 5, 300):
        np.testing.assert_allclose(served(real[:batch]), torch_network(trained.model)(real[:batch]), atol=1e-5)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_members_do_not_read_what_does_not_vary(cell: Any) -> None:
    """A venue without the takers' side, and one whose takers buy half but for rounding; both have equal trades."""
    for taker in (np.nan, 0.5 + 1e-10 * np.random.default_rng(0).standard_normal(2500)):
        bare = {
            symbol: replace(walk, taker_buy_base=walk.volume * taker, trades=np.full(2500, 7.0))
            for symbol, walk in SHORT.items()
        }
        made = train_panel(PLAN, bare, replace(TINY, epochs=1, cell=cell, num_layers=1, seeds=2), seed=0)
        silent = {name for name in FEATURES if "taker" in name or name == "trades"}
        for name, weight in made.model.named_weights().items():
            if "weight_ih_l0" in name:
                unread = {FEATURES[place] for place in np.flatnonzero(weight.abs().sum(0).numpy() == 0)}
                assert silent <= unread <= silent | {"week_sin"}, "which hardly moves in two days"
        assert not made.model.path[:, [FEATURES.index(name) for name in silent]].any()


def test_large_outputs_may_differ_by_as_many_digits() -> None:
    """Single precision has seven of them, whatever the size."""

    class Far(PanelNetwork):
        def forward(self, x_BLF: Tensor) -> Tensor:
            return 1e4 * super().forward(x_BLF)

    real = np.random.default_rng(1).normal(0, 1, (50, 8, 3)).astype(np.float32)
    torch.manual_seed(0)
    export_onnx(Far([BiRNNModel(3, 32, 1, 2, 0.0)]).eval(), 8, real)


def test_an_export_that_says_something_else_is_an_error() -> None:
    class CountsItsBatch(PanelNetwork):
        def forward(self, x_BLF: Tensor) -> Tensor:
            return super().forward(x_BLF) + (len(x_BLF) - 1)  # tracing freezes the length it sees

    with pytest.raises(
        TrainingFailed, match=r"differs from torch's by 6: output 0 of random window \d is .* torch says"
    ):
        export_onnx(CountsItsBatch([BiRNNModel(3, 4, 1, 1, 0.0)]), 8, np.zeros((0, 8, 3), np.float32))


def test_weights_are_stored_under_the_guides_names() -> None:
    """What is published can be put together again from its file: two networks of the guide's class, and the path."""
    made = train_panel(PLAN, SHORT, replace(TINY, epochs=1, seeds=2), seed=0)
    state = safetensors.torch.load(weights_bytes(made.model))
    members = []
    for prefix in ("", "member2."):
        member = BiRNNModel(len(FEATURES), 4, len(PLAN.heads), 2, 0.0).eval()
        member.load_state_dict({name: state.pop(f"{prefix}{name}") for name in member.state_dict()})
        members.append(member)
    path = state.pop("path").numpy()
    assert not state
    x_BLF = np.random.default_rng(0).standard_normal((3, 20, len(FEATURES))).astype(np.float32)
    first, second = (torch_network(member)(x_BLF) for member in members)
    assert not np.array_equal(first, second)
    said = (first + second) / 2 + x_BLF[:, -1] @ path.T
    np.testing.assert_allclose(torch_network(made.model)(x_BLF), said, atol=1e-6)
    assert made.epochs == (1, 1)


def test_a_path_leads_to_returns_alone_and_knows_directions_alone(trained: TrainedPanel) -> None:
    path = trained.model.path.numpy()
    for head, weights_F in zip(PLAN.heads, path, strict=True):
        led = {FEATURES[place] for place in np.flatnonzero(weights_F)}
        assert led == (set(SIGNED) if head.kind is Kind.RETURN else set())


@pytest.mark.parametrize(
    "knob",
    [
        {"lookback": 3},
        {"lookback": 513},
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"dropout": 1.0},
        {"weight_decay": -1.0},
        {"optimizer": "sgd"},
        {"cell": "GRU"},
        {"seeds": 0},
    ],
    ids=str,
)
def test_a_knob_out_of_its_range_is_refused_by_name(knob: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(knob))} must be .* was"):
        TrainingConfig(**knob)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_both_optimizers_train(optimizer: Any) -> None:
    panel = train_panel(PLAN, SHORT, replace(TINY, optimizer=optimizer, epochs=1, num_layers=1, dropout=0.5), seed=0)
    assert panel.rows["train"] > 0
    assert panel.validation.keys() == {head.key for head in PLAN.heads}
