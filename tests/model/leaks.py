"""Detectors of leaks. Each returns what it caught, by name; nothing caught is an empty answer.

They take the thing under test as a function, so that the tests can hand them one with a leak planted in it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from market.klines import COLUMNS, FLOW_COLUMNS, Floats, Ints, Klines
from model.evaluation import forecasts, outputs
from model.features import FEATURES, Bools, rows_needed
from model.heads import LEADER, Head, Kind, Panel, head_of, truth
from model.training import TrainedPanel, torch_network
from model.windows import Split, Windows
from tests.fakes import random_walk_klines

Market = Mapping[str, Klines]
NOT_FITTED = ("plan", "config", "seed", "windows")  # of a TrainedPanel: what went in, and the judge rows' own numbers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What was computed for each candle. R rows."""

    symbol: Ints  # (R,)
    open_time_ms: Ints  # (R,)
    columns: Mapping[str, npt.NDArray[Any]]  # (R,) each


View = Callable[[Market], Seen]


def inputs(windows: Windows) -> Seen:
    """All that a forecast is made of, and the naive forecast beside it."""
    columns: dict[str, npt.NDArray[Any]] = {name: windows.x[:, place] for place, name in enumerate(FEATURES)}
    columns |= {name: getattr(windows, name) for name in ("scale", "usable", "close")}
    columns |= {f"naive {head.key}": windows.naive[:, place] for place, head in enumerate(windows.plan.heads)}
    return Seen(symbol=windows.symbol, open_time_ms=windows.open_time_ms, columns=columns)


def labels(windows: Windows) -> Seen:
    """What came true, by head."""
    columns = {head.key: windows.truth[:, place] for place, head in enumerate(windows.plan.heads)}
    return Seen(symbol=windows.symbol, open_time_ms=windows.open_time_ms, columns=columns)


def moved(before: Seen, after: Seen) -> dict[str, Bools]:
    """``(R,)`` by column: which rows of ``before`` are in ``after`` with another value, to the last bit."""
    where = {key: row for row, key in enumerate(zip(after.symbol.tolist(), after.open_time_ms.tolist(), strict=True))}
    keys = list(zip(before.symbol.tolist(), before.open_time_ms.tolist(), strict=True))
    there = np.array([key in where for key in keys])
    rows = np.array([where.get(key, 0) for key in keys])
    result = {}
    for name, column in before.columns.items():
        other = after.columns[name][rows]
        neither = np.isnan(column) & np.isnan(other) if column.dtype.kind == "f" else np.zeros(len(rows), np.bool_)
        result[name] = there & (column != other) & ~neither
    return result


def spliced(past: Klines, future: Klines, cut_ms: int) -> Klines:
    """``past`` before ``cut_ms``, ``future`` from there on."""
    return past.between(0, cut_ms).merge(future.between(cut_ms, 2**62))


def another(klines: Klines, cut_ms: int, seed: int) -> Klines:
    """The same klines up to ``cut_ms``, another and wilder market after it, at another price and volume."""
    start_ms = int(klines.open_time_ms[0])
    wild = random_walk_klines(len(klines), klines.interval_ms, seed, start_ms, sigma=9e-3, first=7.0)
    return spliced(klines, wild, cut_ms)


def futures(klines: Market, cut_ms: int, seed: int) -> Iterator[tuple[str, Market]]:
    """The same past beside other futures, with what was done to it."""
    rng = np.random.default_rng(seed)
    permuted = {}
    for symbol, run in klines.items():
        order = np.arange(len(run))
        later = order >= np.searchsorted(run.open_time_ms, cut_ms)
        order[later] = rng.permutation(order[later])
        permuted[symbol] = replace(run, **{name: getattr(run, name)[order] for name in COLUMNS})
    yield "permuted", permuted
    wild = {symbol: another(run, cut_ms, seed + place) for place, (symbol, run) in enumerate(klines.items())}
    yield "another market", wild
    yield "the leader alone is another", {**klines, LEADER: wild[LEADER]}
    yield "all but the leader are others", {**wild, LEADER: klines[LEADER]}
    cut = {symbol: run.between(0, cut_ms) for symbol, run in klines.items()}
    yield "not there", cut
    yield "there for the leader alone", {**cut, LEADER: klines[LEADER]}
    yield "there for all but the leader", {**klines, LEADER: cut[LEADER]}


def readers_of_the_future(view: View, klines: Market, cut_ms: int, seed: int = 0) -> dict[str, str]:
    """Columns with a value before ``cut_ms`` that the candles from then on decide, each with the future that showed."""
    before, caught = view(klines), {}
    for what, market in futures(klines, cut_ms, seed):
        for name, rows in moved(before, view(market)).items():
            if (rows & (before.open_time_ms < cut_ms)).any():
                caught[name] = what
    return caught


def readers_of_more(view: View, klines: Market, panel: Panel, end_ms: int) -> set[str]:
    """Columns that a live tail of exactly the panel's ``rows_needed`` candles up to ``end_ms`` gives otherwise.

    A feature is looked at in all rows of the window that ends there, anything else in its last row.
    """
    whole = {symbol: run.between(0, end_ms) for symbol, run in klines.items()}
    before, live = view(whole), view({symbol: run.tail(rows_needed(panel)) for symbol, run in whole.items()})
    age = (before.open_time_ms.max() - before.open_time_ms) // panel.interval_ms
    caught = set()
    for name, rows in moved(before, live).items():
        if (rows & (age < (panel.lookback if name in FEATURES else 1))).any():
            caught.add(name)
    return caught


def struck(klines: Klines, row: int) -> Klines:
    """The same klines with other numbers, all of them, in one candle."""
    factors = dict.fromkeys(COLUMNS, 3.0) | {"open": 1.01, "close": 0.98, "high": 1.03, "low": 0.95}
    columns = {name: getattr(klines, name).copy() for name in COLUMNS}
    for name, factor in factors.items():
        columns[name][row] *= factor
    return replace(klines, **columns)


def reach(view: View, klines: Market, symbol: str, row: int) -> dict[str, tuple[set[int], set[int]]]:
    """By column: places, in candles after the one struck, of the rows that read it; of its symbol, and of the others.

    A place below 0 is a row before the candle: it reads the future.
    """
    interval_ms, struck_ms = klines[symbol].interval_ms, int(klines[symbol].open_time_ms[row])
    before, mine = view(klines), list(klines).index(symbol)
    places = (before.open_time_ms - struck_ms) // interval_ms
    rows_by_column = moved(before, view({**klines, symbol: struck(klines[symbol], row)}))
    return {
        name: (
            set(places[rows & (before.symbol == mine)].tolist()),
            set(places[rows & (before.symbol != mine)].tolist()),
        )
        for name, rows in rows_by_column.items()
    }


def labels_across(windows: Windows, split: Split) -> dict[str, int]:
    """By head: how many labels of a part read a candle of a later part."""
    panel, caught = windows.plan.panel, dict[str, int]()
    edges = (
        (split.train_start_ms, split.train_end_ms, split.validate_start_ms),
        (split.validate_start_ms, split.validate_end_ms, split.judge_start_ms),
    )
    for column, head in enumerate(windows.plan.heads):
        reads_ms = windows.open_time_ms + panel.steps(head) * panel.interval_ms  # the last candle the label reads
        known = np.isfinite(windows.truth[:, column])
        for start_ms, end_ms, next_ms in edges:
            part = windows.rows(start_ms, end_ms)
            if across := int((known[part] & (reads_ms[part] >= next_ms)).sum()):
                caught[head.key] = caught.get(head.key, 0) + across
    return caught


def digest(value: Any) -> Any:
    """Something that compares equal where the values are the same to the last bit."""
    result: Any = repr(value)
    match value:
        case np.ndarray():
            result = (value.dtype.str, value.shape, value.tobytes())
        case torch.Tensor():
            result = digest(value.detach().numpy())
        case torch.nn.Module():
            result = digest(dict(value.state_dict()))
        case Mapping():
            result = tuple((key, digest(part)) for key, part in value.items())
        case tuple() | list():
            result = tuple(digest(part) for part in value)
        case _ if is_dataclass(value):
            result = tuple((field.name, digest(getattr(value, field.name))) for field in fields(value))
        case _:
            assert " at 0x" not in result, f"{type(value)} shows an address, not its content"
    return result


def fitted(trained: TrainedPanel) -> dict[str, Any]:
    """All that a training gave, by name: weights, calibration, validation figures and whatever is added to them."""
    return {f.name: digest(getattr(trained, f.name)) for f in fields(trained) if f.name not in NOT_FITTED}


def moved_by_the_judge_part(train: Callable[[Market], TrainedPanel], klines: Market, seed: int = 0) -> set[str]:
    """What a training gives otherwise when the candles from the start of its judge part on are others."""
    first = train(klines)
    cut_ms = first.split.judge_start_ms
    second = train({symbol: another(run, cut_ms, seed + n) for n, (symbol, run) in enumerate(klines.items())})
    before, after = fitted(first), fitted(second)
    return {name for name in before if before[name] != after[name]}


def told(klines: Klines, panel: Panel, horizon_min: int) -> Klines:
    """The same prices with a leak in the flow: takers know the return to come, the volume knows the volatility."""
    moves = truth(klines, panel, Head(Kind.RETURN, horizon_min))
    calm = truth(klines, panel, Head(Kind.VOLATILITY, horizon_min))
    moves, calm = np.nan_to_num(moves / np.nanstd(moves)), np.nan_to_num(calm / np.nanmean(calm), nan=1.0)
    volume = 20 * calm**2 + 1
    taker = volume * np.clip(0.5 + moves / 8, 0.02, 0.98)
    return replace(
        klines,
        volume=volume,
        quote_volume=volume * klines.close,
        trades=np.round(volume * 3) + 1,
        taker_buy_base=taker,
        taker_buy_quote=taker * klines.close,
    )


def elsewhere(klines: Klines, rows: int) -> Klines:
    """The same prices with the flow of ``rows`` candles earlier, in a circle."""
    flows: dict[str, Any] = {name: np.roll(getattr(klines, name), rows) for name in FLOW_COLUMNS}
    return replace(klines, **flows)


def skill(trained: TrainedPanel, constants: Mapping[str, float]) -> dict[str, float]:
    """By topic: t-value of what the network gains over the best constant on its judge rows, in the topic's loss.

    And by return head and symbol: that of forecast times truth before shrinkage, which would hide a small leak.
    The last window's volatility is no yardstick on a walk: knowing its constant is no leak, and wins.

    Args:
        constants: by head key; a return's is 0.
    """
    windows, split, panel, heads = trained.windows, trained.split, trained.windows.plan.panel, trained.plan.heads
    rows = windows.rows(split.judge_start_ms, split.judge_end_ms)
    said = outputs(torch_network(trained.model), windows, rows)
    found = {}
    for one in forecasts(windows, rows, said, heads, trained.calibration):
        head = head_of(one.topic)
        least = one.losses_of(np.full(len(one.came_true), constants.get(head.key, 0.0)))
        name = f"{one.topic.symbol} {one.topic.target} {head.key}"
        found[name] = t_value(least - one.losses, panel.steps(head))
    for column, head in enumerate(heads):
        for place, symbol in enumerate(windows.plan.symbols):
            mine = (windows.symbol[rows] == place) & np.isfinite(windows.truth[rows, column])
            if head.kind is Kind.RETURN:
                agreed = said[mine, column] * windows.truth[rows[mine], column]
                found[f"{symbol} {head.key} as the network says"] = t_value(agreed, panel.steps(head))
    return found


def t_value(gain: Floats, steps: int) -> float:
    """Mean over its standard error, of gains at candles that follow each other and whose truths span ``steps``.

    Newey and West, Econometrica 55(3), 1987, over twice the horizon. 0 where nothing was gained or lost.
    """
    centred, lags = gain - gain.mean(), min(2 * steps, len(gain) - 1)
    variance = float(centred @ centred)
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag])
    return float(gain.mean() * len(gain) / variance**0.5) if variance > 0 else 0.0
