"""Detectors of leaks. Each returns what it caught, by name; nothing caught is an empty answer.

They take the thing under test as a function, so that the tests can hand them one with a leak planted in it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.topic import Target, Topic, Volatility
from klines.klines import COLUMNS, PRICE_COLUMNS, Ints, Klines
from model.evaluation import TopicForecasts
from model.features import FEATURES, Bools, rows_needed
from model.heads import LEADER, Kind, Panel, PanelPlan, panels_for
from model.training.fit import TrainedPanel
from model.windows import Split, Windows
from tests.fakes.klines import random_walk_klines

Market = Mapping[str, Klines]
OTHER = "ETHUSDT"
SYMBOLS = (LEADER, OTHER)
NOT_FITTED = ("plan", "config", "seed", "windows")  # of a TrainedPanel: what went in, and the judge rows' own numbers

MEANINGS = [(target, Volatility.STD) for target in Target] + [(Target.VOLATILITY, Volatility.RMS)]


def plan_of(panel: Panel, horizons: tuple[int, ...], losses: tuple[str, ...]) -> PanelPlan:
    """Both symbols, all that can be asked of these horizons, each in these losses: a head of every kind."""
    asked = [
        (symbol, target, volatility, horizon, loss)
        for symbol in SYMBOLS
        for target, volatility in MEANINGS
        for horizon in horizons
        for loss in losses
    ]
    topics = [
        Topic(
            topic_id=number,
            token=symbol[:3],
            symbol=symbol,
            target=target,
            volatility=volatility,
            horizon_min=horizon,
            loss=loss,
        )
        for number, (symbol, target, volatility, horizon, loss) in enumerate(asked, 1)
    ]
    plan = panels_for(topics)[panel]
    assert {head.kind for head in plan.heads} == set(Kind)
    return plan


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
    """The same klines up to ``cut_ms``, another and wilder market after it, at another price and volume.

    The price is half as high again: more than twofold would be a break of the series, across which nothing is measured.
    """
    start_ms = int(klines.open_time_ms[0])
    wild = random_walk_klines(len(klines), klines.interval_ms, seed, start_ms, sigma=9e-3)
    past, later = klines.between(0, cut_ms), wild.between(cut_ms, 2**62)
    if len(past) and len(later):
        level = 1.5 * past.close[-1] / later.open[0]
        told = (*PRICE_COLUMNS, "quote_volume", "taker_buy_quote")
        wild = replace(wild, **{name: getattr(wild, name) * level for name in told})
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


def evidence_that_reads_ahead(
    evidence: Callable[[Market], Sequence[TopicForecasts]], klines: Market, cut_ms: int, seed: int = 0
) -> set[str]:
    """Topics with a forecast before ``cut_ms`` that is another one when the candles from then on are others.

    Args:
        evidence: forecasts of blocks of time, each of which must be fitted on earlier ones alone.
    """

    def before(market: Market) -> dict[str, Any]:
        found: dict[str, list[Any]] = {}
        for one in evidence(market):
            blocks = found.setdefault(one.topic.key, [])
            if (known := one.open_time_ms < cut_ms).any():
                blocks.append(digest([one.open_time_ms[known], one.forecast[known], one.naive[known], one.std]))
        for key, blocks in found.items():
            assert blocks, f"topic {key}: no forecast before the cut"
        return found

    others = {symbol: another(run, cut_ms, seed + place) for place, (symbol, run) in enumerate(klines.items())}
    first, second = before(klines), before(others)
    return {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}
