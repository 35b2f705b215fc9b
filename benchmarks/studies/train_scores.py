"""Train both panels on real klines as the updater would on a given day, and score them against the naive forecast.

    python -m benchmarks.studies.train_scores --data FOLDER --end 2024-03-25 [--fallback]

FOLDER holds Parquet klines named SYMBOL-INTERVAL-*.parquet (1m and 1h). The tape ends at --end; the newest part of the
days before it is judged on and neither trained nor calibrated on. The network that is judged is the exported one.
--fallback judges it once more on the same rows with the columns that a venue which stands in does not tell: from the
first judged candle on there are no trades, no quote volume and no taker's side.
"""

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from admission.words import ONE_NAIVE
from core.clock import DAY_MS, iso
from core.topic import Target, Topic
from klines.klines import FLOW_COLUMNS, PRICE_COLUMNS, Klines
from model.heads import head_of
from model.judging.evaluation import outputs, score
from model.network import onnx_network
from model.panels import MINUTE, PanelPlan, panels_for, training_start_ms
from model.training.config import CONFIGS
from model.training.export import export_onnx
from model.training.panel import TrainedPanel, train_panel
from model.windows import build

EXAMPLE = (  # the topics of config.example.json
    ("ETH", Target.PRICE, 10, "mse"),
    ("BTC", Target.PRICE, 5, "mse"),
    ("SOL", Target.VOLATILITY, 15, "mse"),
    ("BTC", Target.VOLATILITY, 15, "mse"),
    ("BTC", Target.LOG_RETURN, 480, "czar"),
    ("ETH", Target.PRICE, 1440, "mse"),
)


def topics() -> list[Topic]:
    return [
        Topic(topic_id=number, token=token, symbol=f"{token}USDT", target=target, horizon_min=minutes, loss=loss)
        for number, (token, target, minutes, loss) in enumerate(EXAMPLE, 1)
    ]


def read(folder: Path, symbol: str, interval: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
    """All klines of a symbol in the folder's files, ``start_ms <= open_time_ms < end_ms``."""
    klines = Klines.empty(interval_ms)
    for path in sorted(folder.glob(f"{symbol}-{interval}-*.parquet")):
        frame = pl.read_parquet(path).filter(pl.col("open_time").is_between(start_ms, end_ms, closed="left"))
        columns: dict[str, Any] = {
            name: frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            for name in (*PRICE_COLUMNS, *FLOW_COLUMNS)
        }
        klines = klines.merge(Klines(interval_ms=interval_ms, open_time_ms=frame["open_time"].to_numpy(), **columns))
    return klines


def without_flow(klines: Klines, from_ms: int) -> Klines:
    """Return klines without trades and taker volumes from a moment on, as from another venue."""
    later = klines.open_time_ms >= from_ms
    unknown = {name: np.where(later, np.nan, getattr(klines, name)) for name in FLOW_COLUMNS if name != "volume"}
    return replace(klines, **unknown)  # type: ignore[arg-type]


def train(
    plan: PanelPlan, folder: Path, end_ms: int, days: int, seed: int
) -> tuple[TrainedPanel, dict[str, Klines], float, float]:
    """Return the trained panel, its klines, and CPU and wall seconds from reading klines to the calibrated network."""
    interval = "1m" if plan.panel == MINUTE else "1h"
    cpu, wall = time.process_time(), time.monotonic()
    start_ms = training_start_ms(plan.panel, days, end_ms)
    klines = {
        symbol: read(folder, symbol, interval, plan.panel.interval_ms, start_ms, end_ms) for symbol in plan.symbols
    }

    def progress(epoch: int, batch: int, batches: int, loss: float) -> None:
        if batch == batches:
            print(f"  epoch {epoch}: loss {loss:.4f}", file=sys.stderr, flush=True)

    panel = train_panel(plan, klines, CONFIGS[plan.panel.name], seed, progress)
    return panel, klines, time.process_time() - cpu, time.monotonic() - wall


def report(panel: TrainedPanel, klines: dict[str, Klines], cpu_s: float, wall_s: float, *, fallback: bool) -> None:
    plan, split = panel.plan, panel.split
    rows = panel.windows.rows(split.judge_start_ms, split.judge_end_ms)
    onnx = export_onnx(panel.model, plan.panel.lookback, panel.windows.gather(rows[:256]))
    network = onnx_network(onnx)
    scores = score(panel.windows, rows, outputs(network, panel.windows, rows), plan.heads, panel.calibration)
    poorer: dict[str, float] = {}
    if fallback:
        windows = build(plan, {s: without_flow(run, split.judge_start_ms) for s, run in klines.items()})
        same = windows.rows(split.judge_start_ms, split.judge_end_ms)
        said = score(windows, same, outputs(network, windows, same), plan.heads, panel.calibration)
        poorer = {one.topic: one.ratio for one in said}
    print(f"{plan.panel.name} panel: {', '.join(plan.symbols)}; heads {', '.join(head.key for head in plan.heads)}")
    print(f"  windows {dict(panel.rows)}, best epoch {panel.best_epoch} of {panel.epochs}")
    print(f"  judged on {iso(split.judge_start_ms)[:16]} to {iso(split.judge_end_ms)[:16]} UTC")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  training took {cpu_s:.0f} s CPU, {wall_s:.0f} s wall; peak memory of this process {peak_mb:.0f} MB")
    print(
        f"  {'topic':28} {'loss':5} {'rows':>6} {'model':>11} {'naive':>11} {'ratio':>7} {'difference':>11}  factor"
        f"{'  ratio of a fallback' if fallback else ''}"
    )
    asked = {topic.key: topic for topic in plan.topics}
    for one in scores:
        topic = asked[one.topic]
        name = f"{topic.symbol} {topic.target.value} {topic.horizon}"
        factor = panel.calibration.factor(topic.symbol, head_of(topic))
        print(
            f"  {name:28} {one.loss:5} {one.rows:6d} {one.model_loss:11.4g} {one.naive_loss:11.4g} "
            f"{one.ratio:7.4f} {one.difference:11.3g} {factor:7.3f}"
            f"{f'{poorer[one.topic]:21.4f}' if fallback else ''}"
        )
    print(f"  {ONE_NAIVE}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet klines")
    parser.add_argument("--end", required=True, help="UTC day on which the tape ends, as 2024-03-25")
    parser.add_argument("--days", type=int, default=90, help="TRAINING_DAYS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fallback", action="store_true", help="also on candles without trades and the taker's side")
    parser.add_argument("--panel", choices=["minute", "hour"], help="only this one")
    given = parser.parse_args(arguments)
    end_ms = int(datetime.fromisoformat(given.end).replace(tzinfo=UTC).timestamp() * 1000) // DAY_MS * DAY_MS
    for plan in panels_for(topics()).values():
        if given.panel in (None, plan.panel.name):
            report(*train(plan, given.data, end_ms, given.days, given.seed), fallback=given.fallback)


if __name__ == "__main__":
    main()
