"""The procedure of the guide this project descends from, as a baseline: price levels, min-max scaling, a BiRNN."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from market.klines import Floats
from model.birnn import BiRNNModel
from model.heads import Kind
from model.windows import Rows
from research.stage import Forecasts, Stage, Tell

CLOSES = 10  # in a window
HIDDEN, LAYERS, DROPOUT, LEARNING_RATE = 115, 2, 0.3, 1e-3
ROWS, QUICK_ROWS = 20_000, 4_000
EPOCHS, QUICK_EPOCHS = 6, 2
BATCH = 128

_Scales = dict[int, tuple[float, float]]  # of a symbol's index: its lowest and highest close in the training part


def guide(stage: Stage, tell: Tell) -> Forecasts:
    """One network for all symbols, from the last ten closes to the next one.

    As the guide has it: closes of each symbol scaled to [-1, 1] by their lowest and highest, windows of ten, the
    label is the close of the candle that follows, ``BiRNNModel`` with 115 hidden units, two layers and dropout 0.3,
    Adam with a learning rate of 0.001, mean squared error; the answer serves every horizon, and scaling and weights
    stay as they are until the next training.
    Bounded here: at most ROWS windows, evenly out of the training part (the guide takes the newest 1,000 candles of
    each symbol); EPOCHS epochs in batches of BATCH (the guide: 50 epochs, one window at a time). Each symbol keeps
    its own scale (the guide's script keeps the last one's for all).

    Source: 0xtnpxsgt/Allora-Comprehensive-Guide, birnn_model.py.
    """
    topics = [topic for topic in stage.topics(Kind.RETURN) if topic.symbol in stage.trained]
    if not topics:
        return {}
    windows = stage.windows
    every = stage.fitting("train")
    scales = {
        index: (float(closes.min()), float(closes.max()))
        for index in range(len(stage.trained))
        if len(closes := windows.close[every[windows.symbol[every] == index]])
    }
    follows = windows.open_time_ms[1:] - windows.open_time_ms[:-1] == windows.plan.panel.interval_ms
    every = every[every < len(windows.close) - 1]
    every = every[follows[every] & (windows.symbol[every] == windows.symbol[every + 1])]
    most = QUICK_ROWS if stage.quick else ROWS
    rows = every[:: max(1, -(-len(every) // most))]
    model = _train(_closes(stage, rows, scales), _scaled(stage, rows + 1, rows, scales).astype(np.float32), stage, tell)
    tell("guide")
    found = {}
    for topic in topics:
        asked = stage.rows_of(topic)
        low, high = scales.get(windows.plan.symbols.index(topic.symbol), (0.0, 0.0))
        if high <= low:
            continue
        said = _answers(model, _closes(stage, asked, scales))
        price = (said + 1) / 2 * (high - low) + low
        found[topic.key] = np.log(np.maximum(price / windows.close[asked], 1e-3))
    return found


def _scaled(stage: Stage, closes_at: Rows, rows: Rows, scales: _Scales) -> Floats:
    """Closes at some places, in the scale of the symbol of each row: ``closes_at`` is ``(N,)`` or ``(N, L)``."""
    low, high = (
        np.array([scales.get(int(one), (0.0, 1.0))[edge] for one in stage.windows.symbol[rows]]) for edge in (0, 1)
    )
    span = np.maximum(high - low, 1e-12)
    if closes_at.ndim == 2:
        low, span = low[:, None], span[:, None]
    result: Floats = (stage.windows.close[closes_at] - low) / span * 2 - 1
    return result


def _closes(stage: Stage, rows: Rows, scales: _Scales) -> npt.NDArray[np.float32]:
    """``(N, CLOSES, 1)`` windows that end at the rows."""
    places = rows[:, None] + np.arange(1 - CLOSES, 1)
    return _scaled(stage, places, rows, scales).astype(np.float32)[:, :, None]


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
