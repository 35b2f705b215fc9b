"""Compare the days until a worker would be admitted with required and desired figures, for January to March 2024.

    python -m benchmarks.admission --data FOLDER [--out FOLDER] [--walk FOLDER] [--waits]

FOLDER holds Parquet klines named SYMBOL-INTERVAL-*.parquet: minutes of BTC, ETH, SOL from September 2023 on. An epoch
lasts five minutes. Records begin on 1 January and every tenth day afterwards; each is judged daily. The stretch is
fitted each midnight to the truths known by then. The answer to a return topic is the known part alone, as the worker
serves it without a network that has an edge. The answer to a volatility topic comes from the networks of a walk forward
that the gate let through, trained every 30 days; this takes half an hour. --walk reads the rows of an earlier walk.

--waits prints instead a table by the moment of the answer, with simulated nonce blocks. The part of a volatility that
is not known yet is then the naive forecast, or with --walk the forecast of the networks.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from admission.assessment import SHOWN_MIN
from admission.records import looks
from admission.replay import BLOCK_MS, Epochs, Past, answers, epochs_between, held, past_of
from admission.standing import admitted_after, baselines
from admission.stretch_fit import stretched
from benchmarks.tools.goals import Goal, show_goals
from core.clock import DAY_MS, MINUTE_MS, moment_ms
from core.files import replace_json
from core.logs import configure_logging
from core.settings import Objective
from core.show.progress import progress_of
from core.topic import Target, Topic
from klines.klines import Floats, Ints, Klines
from model.panels import panels_for
from model.windows import Rows
from research.backtest.backtest import run
from research.backtest.command import Asked, folder_of, walk_of
from research.data import recording_of

TOKENS = ("BTC", "ETH", "SOL")
EPOCH_BLOCKS = 60  # of five seconds
FIRST, LAST, WALK_FROM = "2024-01-01", "2024-04-01", "2023-12-02"  # UTC; answers begin 30 days before the records
STARTS, EVERY_DAYS = 9, 10
WALKS, WALK_DAYS, LOOKS = 200, 37, 30  # random walks, days of each, daily looks; the first week fits the stretch
ERRORS = {15: 0.935, 20: 0.948, 60: 0.981}  # by minutes: squared error over that of the plain naive forecast
LEVEL_ERROR, LEVEL_AIM = 0.68, 0.63
JITTER_MS = 1000  # a simulated block takes 4 to 6 s; an epoch of 60 then drifts 4.5 s over the minute
ASKED_AFTER_MS = 3000  # from the nonce block to the node's question
WAITS_S = (0, 30, 60, 120)
CHAINS = 5  # simulated chains; days depend on the bases' positions as much as on the wait


def topic_of(token: str, target: Target, horizon_min: int) -> Topic:
    return Topic(
        topic_id=TOKENS.index(token) + 1,
        token=token,
        symbol=f"{token}USDT",
        target=target,
        horizon_min=horizon_min,
        epoch_length_blocks=EPOCH_BLOCKS,
    )


def replayed(topic: Topic, klines: Klines) -> Past:
    return past_of(topic, klines, epochs_between(topic, int(klines.open_time_ms[0]), klines.end_ms))


def days_of(past: Past, answered: Floats, baseline: Floats) -> list[float]:
    """Return the days until all seven criteria hold, by start; infinite if never."""
    first_ms, last_ms = ms(FIRST), ms(LAST)
    starts = [first_ms + number * EVERY_DAYS * DAY_MS for number in range(STARTS)]
    return [admitted_after(past, answered, baseline, start_ms, last_ms) for start_ms in starts]


def ms(day: str) -> int:
    moment = moment_ms(day, "day")
    assert moment is not None
    return moment


def days_text(days: Sequence[float]) -> str:
    return " ".join("never" if math.isinf(day) else f"{day:.0f}" for day in days)


def returns(klines: Mapping[str, Klines]) -> list[Goal]:
    wanted = [(15, 1, 4, "2, none never"), (20, 1, 8, "5"), (60, 1, 0, ""), (60, 2, 0, "median <= 30")]
    lines = []
    for horizon_min, known_min, most, aim in wanted:
        for token in TOKENS:
            past = replayed(topic_of(token, Target.LOG_RETURN, horizon_min), klines[f"{token}USDT"])
            unstretched = answers(past, klines[f"{token}USDT"], None, known_min)
            answered = stretched(past, unstretched, known_min, Objective.ADMISSION).answers
            days = days_of(past, answered, past.fitted)
            never, median = sum(map(math.isinf, days)), float(np.median(days))
            measured = f"{days_text(days)}: median {median:.0f}, bound of WRMSE {wrmse_bound(past, answered):+.4f}"
            must, reached = f"median <= {most}, one never", median <= most and never <= 1
            if not most:
                must, reached = "5 of 9 starts", STARTS - never >= 5
            what = f"log-return {horizon_min} min {token}, {60 * known_min} s known"
            if (horizon_min, known_min) == (60, 1):
                lines.append(Goal(what=what, must="the bound stated", measured=measured, reached=None))
            else:
                lines.append(Goal(what=what, must=must, aim=aim, measured=measured, reached=reached))
    return lines


def wrmse_bound(past: Past, answered: Floats) -> float:
    """Return the bound of the weighted error over all three months."""
    edges = np.searchsorted(past.epochs.base_ms, [ms(FIRST), ms(LAST)])
    found = looks(
        past.truth, answered, edges[:1], edges[1:], horizon_min=past.topic.horizon_min, ratio=past.epochs.ratio
    )
    return float(found["wrmse"].bound[0])


def errors(klines: Mapping[str, Klines]) -> list[Goal]:
    lines = []
    for horizon_min, must in ERRORS.items():
        ratios = []
        for token in TOKENS:
            past = replayed(topic_of(token, Target.LOG_RETURN, horizon_min), klines[f"{token}USDT"])
            ratios.append(squared_error(past, answers(past, klines[f"{token}USDT"], None, 1)))
        what = f"squared error of the knowing naive over the plain one's, {horizon_min} min, 60 s known"
        lines.append(Goal(what=what, must=f"{must}", aim="below", measured=shares(ratios), reached=max(ratios) <= must))
    return lines


def in_span(past: Past) -> Rows:
    """Return the epochs of the three months whose truth is known."""
    return np.flatnonzero(
        (past.epochs.base_ms >= ms(FIRST)) & (past.epochs.base_ms < ms(LAST)) & np.isfinite(past.truth)
    )


def squared_error(past: Past, answered: Floats) -> float:
    """Return the squared error over that of the plain naive forecast; of the level for a volatility."""
    scored = in_span(past)
    scored = scored[np.isfinite(answered[scored])]
    answered, truth, naive = answered[scored], past.truth[scored], np.zeros(len(scored))
    if past.head.kind.is_volatility:
        answered, truth, naive = (past.base[scored] * np.exp(change) for change in (answered, truth, naive))
    return float(np.mean((answered - truth) ** 2) / np.mean((naive - truth) ** 2))


def shares(ratios: Sequence[float]) -> str:
    return " / ".join(f"{ratio:.3f}" for ratio in ratios)


def volatilities(klines: Mapping[str, Klines], rows: pl.DataFrame) -> list[Goal]:
    lines: list[Goal] = []
    levels: dict[str, list[float]] = {"served": [], "har": [], "knowing naive": []}
    for token in TOKENS:
        minutes = klines[f"{token}USDT"]
        past = replayed(topic_of(token, Target.VOLATILITY, 15), minutes)
        for name, level_errors in levels.items():
            rest = rest_of(rows, token, name, minutes) if name in rows.columns else None
            for known_min, most, aim in ((1, 2.0, "1"), (0, 7.0, "3")):
                unstretched = answers(past, minutes, rest, known_min)
                answered = stretched(past, unstretched, known_min, Objective.ADMISSION).answers
                for baseline, about in zip(baselines(past), ("day's mean", "trailing fit"), strict=True):
                    days = days_of(past, answered, baseline)
                    lines.append(
                        Goal(
                            what=f"volatility 15 min {token}, {60 * known_min} s known, {name}, {about}",
                            must=f"every start <= {most:.0f}" if name == "served" else "",
                            aim=aim,
                            measured=days_text(days),
                            reached=max(days) <= most if name == "served" else None,
                        )
                    )
                if known_min:
                    level_errors.append(squared_error(past, unstretched))
    for name, ratios in levels.items():
        what = f"level error of volatility 15 min over plain naive, 60 s known, {name}"
        reached = max(ratios) <= LEVEL_ERROR if name == "served" else None
        lines.append(
            Goal(what=what, must=f"{LEVEL_ERROR}", aim=f"{LEVEL_AIM}", measured=shares(ratios), reached=reached)
        )
    return lines


def rest_of(rows: pl.DataFrame, token: str, name: str, minutes: Klines) -> Floats:
    """Return a contender's forecast at each candle of a token."""
    mine = rows.filter(pl.col("topic") == str(TOKENS.index(token) + 1)).sort("open_time_ms")
    close_ms = mine["open_time_ms"].to_numpy() + MINUTE_MS
    return held(mine[name].to_numpy().astype(np.float64), close_ms, minutes, MINUTE_MS)


def random_walks(_klines: Mapping[str, Klines]) -> list[Goal]:
    """Judge answers without skill: a tenth of the move of the last 15 minutes, stretched."""
    topic, admitted = topic_of("BTC", Target.LOG_RETURN, 15), 0
    for seed in range(WALKS):
        klines = random_walk(seed)
        past = replayed(topic, klines)
        last = np.log(klines.close / np.concatenate([np.full(15, np.nan), klines.close[:-15]]))
        answered = stretched(past, answers(past, klines, 0.1 * last, 0), 0, Objective.ADMISSION).answers
        start_ms = int(klines.open_time_ms[0]) + (WALK_DAYS - LOOKS) * DAY_MS
        admitted += math.isfinite(admitted_after(past, answered, past.fitted, start_ms, klines.end_ms + DAY_MS))
    what = f"{WALKS} random walks, nothing known, {LOOKS} daily looks"
    return [Goal(what=what, must="0 admitted", measured=f"{admitted} admitted", reached=admitted == 0)]


def random_walk(seed: int) -> Klines:
    moves = np.random.default_rng(seed).normal(0, 5e-4, WALK_DAYS * 1440)
    close = 100 * np.exp(np.cumsum(moves))
    flow = np.ones(len(close))
    first_ms = ms(FIRST)
    return Klines(
        interval_ms=MINUTE_MS,
        open_time_ms=first_ms + MINUTE_MS * np.arange(len(close)),
        open=close,
        high=close,
        low=close,
        close=close,
        volume=flow,
        quote_volume=flow * close,
        trades=flow,
        taker_buy_base=flow,
        taker_buy_quote=flow * close,
    )


def nonces_between(start_ms: int, end_ms: int, seed: int) -> Ints:
    """Return simulated times of nonce blocks, one per epoch."""
    rng, epochs = np.random.default_rng(seed), (end_ms - start_ms) // (EPOCH_BLOCKS * BLOCK_MS)
    blocks_ms = rng.uniform(BLOCK_MS - JITTER_MS, BLOCK_MS + JITTER_MS, (epochs, EPOCH_BLOCKS))
    nonce_ms = (start_ms + rng.uniform(0, MINUTE_MS) + np.cumsum(blocks_ms.sum(axis=1))).astype(np.int64)
    return nonce_ms[nonce_ms < end_ms]


def known_minutes(nonce_ms: Ints, wait_s: int) -> Ints:
    """Return the whole minutes of each interval that are known when the answer is sent, ``wait_s`` after the base."""
    asked_ms = nonce_ms % MINUTE_MS + ASKED_AFTER_MS
    return np.maximum(asked_ms, 1000 * wait_s) // MINUTE_MS


def waited(topic: Topic, klines: Klines, rest: Floats | None, nonce_ms: Ints, wait_s: int) -> tuple[Past, Floats]:
    """Return the epochs of nonce blocks, and the unstretched answers after a wait."""
    length_ms = EPOCH_BLOCKS * BLOCK_MS
    epochs = Epochs(
        number=np.arange(len(nonce_ms)),
        base_ms=nonce_ms // MINUTE_MS * MINUTE_MS,
        length_ms=length_ms,
        ratio=max(1, round(topic.horizon_ms / length_ms)),
    )
    past = past_of(topic, klines, epochs)
    answered = [answers(past, klines, rest, known_min) for known_min in SHOWN_MIN]
    return past, np.choose(known_minutes(nonce_ms, wait_s), answered)


def waits(klines: Mapping[str, Klines], rows: pl.DataFrame | None) -> Iterator[str]:
    """Yield the lines of a Markdown table, BTC / ETH / SOL in each cell; errors are means over the chains."""
    chains = [nonces_between(int(klines["BTCUSDT"].open_time_ms[0]), ms(LAST), seed) for seed in range(CHAINS)]
    rests = ("naive rest",) if rows is None else ("naive rest", "networks")
    heads = [f"{minutes} min return: {what}" for minutes in (15, 20) for what in ("squared error", "days (never)")]
    heads += [f"15 min volatility: level error, {name}" for name in rests]
    yield f"| answered | epochs with 0 / 1 / 2 minutes known | {' | '.join(heads)} |"
    yield "|---" * (2 + len(heads)) + "|"
    for wait_s in WAITS_S:
        known_min = np.concatenate([known_minutes(nonce_ms, wait_s) for nonce_ms in chains])
        cells = [f"base + {wait_s} s" if wait_s else "at once"]
        cells.append(" / ".join(f"{np.mean(known_min == minutes):.0%}" for minutes in SHOWN_MIN))
        for horizon_min in (15, 20):
            ratios, days = [], list[list[float]]()
            for token in TOKENS:
                topic = topic_of(token, Target.LOG_RETURN, horizon_min)
                replays = [waited(topic, klines[topic.symbol], None, nonce_ms, wait_s) for nonce_ms in chains]
                ratios.append(mean_error(replays))
                days.append([])
                for past, unstretched in replays:
                    answered = stretched(past, unstretched, int(known_min.min()), Objective.ADMISSION).answers
                    days[-1] += days_of(past, answered, past.fitted)
            medians = " / ".join(days_text([float(np.median(of_token))]) for of_token in days)
            cells += [
                shares(ratios),
                f"{medians} ({' / '.join(f'{sum(map(math.isinf, of_token))}' for of_token in days)})",
            ]
        for name in rests:
            ratios = []
            for token in TOKENS:
                topic = topic_of(token, Target.VOLATILITY, 15)
                minutes = klines[topic.symbol]
                rest = rest_of(rows, token, "served", minutes) if rows is not None and name == "networks" else None
                ratios.append(mean_error([waited(topic, minutes, rest, nonce_ms, wait_s) for nonce_ms in chains]))
            cells.append(shares(ratios))
        yield f"| {' | '.join(cells)} |"


def mean_error(replays: Sequence[tuple[Past, Floats]]) -> float:
    return float(np.mean([squared_error(past, answered) for past, answered in replays]))


def served(data: Path, out: Path, walked: Path | None) -> pl.DataFrame:
    """Return the rows of a walk forward of the volatility topics, a minute apart."""
    if walked:
        return pl.concat([pl.read_parquet(file) for file in sorted((walked / "steps").glob("minute-*.parquet"))])
    replace_json(out / "training.json", {"seeds": 1})
    asked = Asked(
        topics=tuple(topic_of(token, Target.VOLATILITY, 15) for token in TOKENS),
        data_dir=out / "data",
        data=data,
        venues=(),
        start=WALK_FROM,
        end=LAST,
        every_days=30,
        stride=1,
        out=out / "walk",
        training_file=out / "training.json",
        baselines=("har",),
        command="python -m benchmarks.admission",
    )
    walk, recording = walk_of(asked)
    folder = folder_of(asked, walk, recording)
    with progress_of("walk") as show:
        records = run(walk, recording, folder, show)
    return pl.concat([folder.rows(record) for record in records])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet klines")
    parser.add_argument("--out", type=Path, help="folder of the walk; a walk that was cut off continues")
    parser.add_argument("--walk", type=Path, help="folder of an earlier walk, whose rows are read")
    parser.add_argument("--waits", action="store_true", help="print the table by the moment of the answer alone")
    given = parser.parse_args(arguments)
    configure_logging("info", service="benchmark", simulated=False)
    out = given.out or Path(tempfile.mkdtemp(prefix="admission-"))
    out.mkdir(parents=True, exist_ok=True)
    asked = [replace(topic_of(token, Target.LOG_RETURN, 15), topic_id=1) for token in TOKENS]
    recording = recording_of(list(panels_for(asked).values()), given.data, out, ())
    klines = {
        symbol: run.between(ms("2023-09-01"), ms(LAST)) for (symbol, length), run in recording.series.items()
        if length == MINUTE_MS
    }  # fmt: skip

    if given.waits:
        for row in waits(klines, served(given.data, out, given.walk) if given.walk else None):
            print(row, flush=True)
        return

    def last(klines: Mapping[str, Klines]) -> list[Goal]:
        return volatilities(klines, served(given.data, out, given.walk))

    show_goals(goal for part in (returns, errors, random_walks, last) for goal in part(klines))


if __name__ == "__main__":
    main()
