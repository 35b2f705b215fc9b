"""The procedure of the guide this project descends from, as a baseline: price levels, min-max scaling, a BiRNN."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from klines.klines import Floats
from model.heads import Kind
from model.training.birnn import BiRNNModel
from model.windows import Rows
from research.backtest.stage import Forecasts, Stage, Tell

CLOSES = 10  # in a window
HIDDEN, LAYERS, DROPOUT, LEARNING_RATE = 115, 2, 0.3, 1e-3
ROWS, QUICK_ROWS = 12_000, 4_000
EPOCHS, QUICK_EPOCHS = 4, 2
BATCH = 32


def guide(stage: Stage, tell: Tell) -> Forecasts:
    """One network for all symbols, from the last ten closes to the next one.

    Training, as in the guide: closes of each symbol scaled to [-1, 1] by the lowest and highest of all of them,
    windows of ten, the label is the close of the candle that follows, ``BiRNNModel`` with 115 hidden units, two layers
    and dropout 0.3, Adam with a learning rate of 0.001, mean squared error. Answers: the last ten closes scaled by
    their own lowest and highest, and the output scaled back by them; it serves every horizon.
    Bounds of this project: at most ROWS windows, evenly out of the whole history up to the date (the guide takes the
    newest 1,000 candles of each symbol), EPOCHS epochs in batches of BATCH (the guide: 50 epochs, a window at a time).
    Its app reads 20 closes of some symbols, here ten of all, and rounds to cents, which is left out.

    Source: 0xtnpxsgt/Allora-Comprehensive-Guide, birnn_model.py and Allora101Guide.md.
    """
    topics = [topic for topic in stage.topics(Kind.RETURN) if topic.symbol in stage.trained]
    if not topics:
        return {}
    windows = stage.windows
    every = stage.known_by_now(windows.plan.panel.interval_ms)
    every = every[np.diff(windows.open_time_ms, append=0)[every] == windows.plan.panel.interval_ms]
    low, high = np.zeros(len(stage.trained)), np.ones(len(stage.trained))
    for index in range(len(stage.trained)):
        if len(closes := windows.close[every[windows.symbol[every] == index]]):
            low[index], high[index] = closes.min(), closes.max()
    most = QUICK_ROWS if stage.quick else ROWS
    rows = every[:: max(1, -(-len(every) // most))]
    lows, highs = low[windows.symbol[rows]], high[windows.symbol[rows]]
    model = _train(
        _scaled(_closes(stage, rows), lows[:, None], highs[:, None]).astype(np.float32)[:, :, None],
        _scaled(windows.close[rows + 1], lows, highs).astype(np.float32),
        stage,
        tell,
    )
    tell("guide")
    found = {}
    for topic in topics:
        asked = stage.rows_of(topic)
        closes = _closes(stage, asked)
        low, high = closes.min(axis=1), closes.max(axis=1)
        said = _answers(model, _scaled(closes, low[:, None], high[:, None]).astype(np.float32)[:, :, None])
        price = np.where(high > low, (said + 1) / 2 * (high - low) + low, windows.close[asked])
        found[topic.key] = np.log(np.maximum(price / windows.close[asked], 1e-3))
    return found


def _closes(stage: Stage, rows: Rows) -> Floats:
    """``(N, CLOSES)`` closes up to each row."""
    closes: Floats = stage.windows.close[rows[:, None] + np.arange(1 - CLOSES, 1)]
    return closes


def _scaled(prices: Floats, low: Floats, high: Floats) -> Floats:
    """From ``low`` to ``high`` as -1 to 1."""
    scaled: Floats = (prices - low) / np.maximum(high - low, 1e-12) * 2 - 1
    return scaled


def _train(x_NL1: npt.NDArray[np.float32], y_N: npt.NDArray[np.float32], stage: Stage, tell: Tell) -> BiRNNModel:
    epochs = QUICK_EPOCHS if stage.quick else EPOCHS
    order = np.random.default_rng(stage.seed)
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        torch.set_num_threads(1)
        try:
            model = BiRNNModel(1, HIDDEN, 1, LAYERS, DROPOUT)
            optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
            squared = nn.MSELoss()
            for epoch in range(epochs):
                tell(f"guide, epoch {epoch + 1} of {epochs}")
                shuffled = order.permutation(len(x_NL1))
                for first in range(0, len(shuffled), BATCH):
                    batch = shuffled[first : first + BATCH]
                    optimizer.zero_grad()
                    loss = squared(model(torch.from_numpy(x_NL1[batch]))[:, 0], torch.from_numpy(y_N[batch]))
                    torch.autograd.backward(loss)
                    optimizer.step()
        finally:
            torch.set_num_threads(before)
    model.eval()
    return model


def _answers(model: BiRNNModel, x_NL1: npt.NDArray[np.float32]) -> Floats:
    parts = []
    with torch.no_grad():
        for first in range(0, len(x_NL1), 4096):
            parts.append(model(torch.from_numpy(x_NL1[first : first + 4096]))[:, 0].numpy())  # noqa: PERF401
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
