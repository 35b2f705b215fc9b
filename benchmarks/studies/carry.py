"""Compare ways to carry a forecast from the candle to the question: `carried` and others, on real klines.

    python -m benchmarks.studies.carry --data FOLDER [--quick] [--since DAY] [--out FOLDER]

FOLDER holds Parquet klines named SYMBOL-INTERVAL-*.parquet. A walk forward as in `benchmarks.skill` trains one network
for each panel. The forecasts that the gate lets through are asked for one, two and three minutes after their close (of
the hour panel 15, 30 and 45 minutes), with that minute's close as the newest price, and are compared with the truth
from then on. All ways are scored on the same rows, in the topic's own loss, as a ratio to the loss of the naive
forecast: the newest price, or the last window's volatility. A first table, from the klines before those rows, shows
when the edge of a return comes true. Twelve minutes on one core; --quick, two: the last 30 days, one training.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.tools.topics import UNSEEN, topics
from core.clock import DAY_MS, MINUTE_MS, moment_ms
from core.files import replace_json
from core.logs import configure_logging
from core.show.progress import progress_of
from core.sources import PERSISTENCE
from core.topic import Topic, horizon_text
from klines.klines import Floats, Ints, Klines
from model.answer import NEWS_FADES, NEWS_HORIZON_MIN, NEWS_WEIGHT, carried
from model.forecaster import HeadForecast
from model.heads import Kind, head_of
from model.judging.evaluation import TopicForecasts
from model.judging.significance import Mean, mean_over_time
from model.panels import MINUTE, Panel, PanelPlan, panel_of, training_start_ms
from model.training import linear
from model.windows import Split, build
from research.backtest.backtest import run
from research.backtest.command import Asked, folder_of, introduction, walk_of
from research.backtest.walk import Walk
from research.data import Recording
from research.report.scores import NAIVE, SERVED, Scored, scored_topics

VOLATILITY_MIN = (5, 15, 60, 480)
LATE_MIN = {"minute": (1, 2, 3), "hour": (15, 30, 45)}  # when a forecast of a panel is asked for, after its close
LONGEST_MIN = 1440  # three months hold too few weeks to judge a week's horizon
QUICK_DAYS = 30

MOST_NEWS = 10.0  # standard deviations: a larger move counts as this one in `bounded`

PROFILE_DAYS = 120  # of klines before the rows
REALISED_MIN = (1, 2, 3, 5, 10, 20)
CLIP = 5.0  # standard deviations; a larger return is cut there, so that one crash does not decide the result


def as_served(topic: Topic, said: Floats, naive: Floats, close: Floats, anchor: Floats, late_min: int) -> Floats:
    """``(N,)`` forecasts as inference carries them; a forecast equal to naive counts as the naive forecast's."""
    head, is_return = head_of(topic), head_of(topic).kind is Kind.RETURN
    told = np.where(said == naive, PERSISTENCE, "network").tolist()
    found = np.empty(len(said))
    for row, (number, by, was, now) in enumerate(
        zip(said.tolist(), told, close.tolist(), anchor.tolist(), strict=True)
    ):
        made = HeadForecast(
            symbol=topic.symbol,
            head=head,
            version=by,
            asof_ms=0,
            log_return=number if is_return else None,
            volatility=None if is_return else number,
            scale=1.0,
        )
        moved = carried(made, was, now, late_min * MINUTE_MS)
        number_now = moved.log_return if is_return else moved.volatility
        assert number_now is not None  # each kind of head has its number
        found[row] = number_now
    return found


def time_left(said: Floats, late: float, steps: int) -> Floats:
    """Scale a log-return, some candles after its close, by the share of the horizon that is left.

    >>> time_left(np.array([0.002, 0.0]), 1.0, 5)
    array([0.0016, 0.    ])
    """
    left: Floats = said * max(0.0, 1 - late / steps)
    return left


def root_time_left(said: Floats, late: float, steps: int) -> Floats:
    """Scale a forecast like ``time_left``, if the greater part of the forecast comes true soon."""
    left: Floats = said * max(0.0, 1 - (late / steps) ** 0.5)
    return left


def bounded(said: Floats, move: Floats, late: float, steps: int) -> Floats:
    """Carry a volatility as ``carried`` does, but in candles of its panel, with moves cut at MOST_NEWS.

    Args:
        said: ``(N,)`` volatilities of one candle, forecast at the close.
        move: ``(N,)`` log-return from the close to the newest price.
        late: candles from the close to the newest price.
        steps: the horizon in candles.

    >>> bounded(np.array([0.001, 0.001]), np.array([0.0, 1.0]), 1.0, 4).round(6)
    array([0.000975, 0.002439])
    """
    weight = NEWS_WEIGHT * min(1.0, NEWS_HORIZON_MIN / steps) ** NEWS_FADES
    came = np.minimum(move**2, (MOST_NEWS * said) ** 2 * max(late, 1.0))
    now: Floats = np.sqrt(said**2 + weight * (came - said**2 * late))
    return now


RETURN_WAYS = ("last close", "unchanged", "carried", "time left", "its root")


class Minutes:
    """Logarithms of one-minute closes by the moment of the close."""

    def __init__(self, klines: Klines) -> None:
        self._first_ms = int(klines.open_time_ms[0]) + MINUTE_MS
        self._close = np.full((klines.end_ms - self._first_ms) // MINUTE_MS + 1, np.nan)
        self._close[(klines.open_time_ms + MINUTE_MS - self._first_ms) // MINUTE_MS] = np.log(klines.close)

    def at(self, time_ms: Ints) -> Floats:
        """Return the log closes at these moments, in their shape; NaN where no candle closed."""
        place = (time_ms - self._first_ms) // MINUTE_MS
        there = (place >= 0) & (place < len(self._close))
        found: Floats = np.where(there, self._close[np.where(there, place, 0)], np.nan)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """One topic's forecasts, all asked for equally late. N rows in time order."""

    topic: Topic
    late_min: int
    rows: int
    naive: Floats  # (N,) losses: of the newest price, or of the last window's volatility
    losses: Mapping[str, Floats]  # (N,) of other ways
    ticks: Ints  # (N,) in candles
    overlap: int  # candles over which neighbouring rows share a truth

    def ratio(self, way: str) -> float:
        return float(self.losses[way].mean() / self.naive.mean())

    def lead(self, way: str, over: str) -> Floats:
        """``(N,)`` loss above another way's, in units of the naive loss."""
        lead: Floats = (self.losses[way] - (self.losses[over] if over != NAIVE else self.naive)) / self.naive.mean()
        return lead


def late_of(one: Scored, minutes: Minutes, late_min: int, since_ms: int) -> Late:
    """A topic's rows from ``since_ms`` on whose future is known."""
    head, panel = head_of(one.topic), panel_of(one.topic.horizon_min)
    steps, late = panel.steps(head), late_min * MINUTE_MS / panel.interval_ms
    closed_ms = one.rows["open_time_ms"].to_numpy() + panel.interval_ms
    asked_ms = closed_ms + late_min * MINUTE_MS
    path = minutes.at(asked_ms[:, None] + np.arange(steps + 1 if head.kind.is_volatility else 2) * _leap(one, panel))
    before = minutes.at(closed_ms)
    move = path[:, 0] - before
    said, naive = one.column(SERVED), one.column(NAIVE)
    now = as_served(one.topic, said, naive, np.exp(before), np.exp(path[:, 0]), late_min)
    ways = {"unchanged": said, "carried": now}
    if head.kind.is_volatility:
        came_true = np.diff(path, axis=1).std(axis=1, ddof=1) * panel.per_minute
        per_candle = 1 / panel.per_minute
        ways["bounded"] = bounded(said * per_candle, move, late, steps) * panel.per_minute
        ways["last window"] = bounded(naive * per_candle, move, late, steps) * panel.per_minute
        ways["fresh"] = _fresh(said, closed_ms, asked_ms)
    else:
        came_true = path[:, 1] - path[:, 0]
        ways["last close"] = said - move  # the price forecast at the close, unchanged since
        ways["time left"] = time_left(said, late, steps)
        ways["its root"] = root_time_left(said, late, steps)
    if not np.isfinite(ways.get("fresh", np.zeros(1))).any():  # no candle closes at that moment
        del ways["fresh"]
    known = np.isfinite(np.stack([came_true, move, *ways.values()])).all(axis=0) & (closed_ms >= since_ms)
    anchor, std = np.exp(path[:, 0]), one.rows["std"].to_numpy()

    def losses(forecast: Floats) -> Floats:
        found = np.empty(len(forecast))
        for value in np.unique(std):
            mine = std == value
            found[mine] = TopicForecasts(
                topic=one.topic,
                open_time_ms=closed_ms[mine],
                came_true=came_true[mine],
                forecast=forecast[mine],
                naive=naive[mine],
                close=anchor[mine],
                std=float(value),
            ).losses
        of_known: Floats = found[known]
        return of_known

    return Late(
        topic=one.topic,
        late_min=late_min,
        rows=int(known.sum()),
        naive=losses(naive),
        losses={name: losses(forecast) for name, forecast in ways.items()},
        ticks=one.ticks[known],
        overlap=steps + int(np.ceil(late)),
    )


def _leap(one: Scored, panel: Panel) -> int:
    """Return the time between two prices of a truth, in ms."""
    return panel.interval_ms if head_of(one.topic).kind.is_volatility else one.topic.horizon_ms


def _fresh(said: Floats, closed_ms: Ints, asked_ms: Ints) -> Floats:
    """Return the forecast made at the very moment of asking; NaN if no forecast was made then."""
    place = np.minimum(np.searchsorted(closed_ms, asked_ms), len(closed_ms) - 1)
    found: Floats = np.where(closed_ms[place] == asked_ms, said[place], np.nan)
    return found


def profile(plan: PanelPlan, recording: Recording, end_ms: int) -> None:
    """Print how soon the linear path's forecasts come true, and whether the unforecast part of a move falls back."""
    klines = recording.until(plan, training_start_ms(plan.panel, PROFILE_DAYS, end_ms), end_ms)
    windows = build(plan, klines)
    start_ms = int(windows.open_time_ms.min())
    split = Split(
        train_start_ms=start_ms,
        train_end_ms=end_ms,
        validate_start_ms=end_ms,
        validate_end_ms=end_ms,
        judge_start_ms=end_ms,
        judge_end_ms=end_ms,
    )
    path = linear.fit(windows, split)
    print(
        "\nShare of the linear path's return that has come true after so many minutes (the whole horizon is 1), and how"
    )
    print("much of the unforecast move of the first minute is added afterwards (below 0: falls back); standard errors")
    print(f"  {'':4}" + "".join(f"{f'{minutes}m':>13}" for minutes in REALISED_MIN) + f"{'rest of the move':>20}")
    grids = {symbol: Minutes(run) for symbol, run in klines.items()}
    closed_ms = windows.open_time_ms[path.rows] + MINUTE_MS
    scale, ticks, symbol = windows.scale[path.rows], closed_ms // MINUTE_MS, windows.symbol[path.rows]

    def moved(from_min: int, to_min: int) -> Floats:
        """Return the move between two moments, in standard deviations of one minute."""
        found = np.full(len(closed_ms), np.nan)
        for index, name in enumerate(plan.symbols):
            mine = symbol == index
            ends = (grids[name].at(closed_ms[mine] + minutes * MINUTE_MS) for minutes in (to_min, from_min))
            found[mine] = np.subtract(*ends) / scale[mine]
        most = CLIP * (to_min - from_min) ** 0.5
        clipped: Floats = np.clip(found, -most, most)
        return clipped

    for column, head in enumerate(plan.heads):
        if head.kind is not Kind.RETURN:
            continue
        horizon = head.horizon_min
        said, whole = path.unseen[:, column] * horizon**0.5, moved(0, horizon)
        known = np.isfinite(said + whole)
        edge = float(said[known] @ whole[known]) / known.sum()
        cells = []
        for minutes in REALISED_MIN:
            part = moved(0, minutes)
            there = known & np.isfinite(part)
            mean = mean_over_time((said * part)[there], ticks[there], max(horizon, minutes))
            cells.append(
                f"{mean.value / edge:6.2f} ± {mean.error / abs(edge):4.2f}" if minutes <= horizon else " " * 13
            )
        slope, error = _second_slope(said, moved(0, 1), moved(1, 1 + horizon), ticks, horizon + 1)
        print(f"  {horizon_text(horizon):4}{''.join(cells)}{f'{slope:+.3f} ± {error:.3f}':>20}", flush=True)


def _second_slope(first: Floats, second: Floats, y: Floats, ticks: Ints, steps: int) -> tuple[float, float]:
    """Fit ``y`` on both by least squares without intercept; return the second slope and its standard error."""
    known = np.isfinite(first + second + y)
    x_N2, y = np.stack([first, second], axis=1)[known], y[known]
    inverse = np.linalg.inv(x_N2.T @ x_N2 / len(y))
    slopes = inverse @ (x_N2.T @ y) / len(y)
    influence = (x_N2 * (y - x_N2 @ slopes)[:, None]) @ inverse[1]
    return float(slopes[1]), mean_over_time(influence, ticks[known], steps).error


def compared(some: Sequence[Late], way: str, over: str) -> tuple[float, Mean] | None:
    """Return the mean lead over another way, in units of the naive loss, of several symbols; None if the ways agree.

    A negative lead is a lower loss.
    """
    lead = np.concatenate([one.lead(way, over) for one in some])
    if not lead.any():
        return None
    mean = mean_over_time(lead, np.concatenate([one.ticks for one in some]), some[0].overlap)
    return mean.value, mean


def chance(some: Sequence[Late], way: str, over: str) -> str:
    """Return the chance of a lead this large by luck: one-sided, by the test of Diebold and Mariano."""
    found = compared(some, way, over)
    return "equal" if found is None else f"{found[1].p_below:.3f}"


def groups(lates: Sequence[Late]) -> Iterator[tuple[str, list[Late]]]:
    """Yield the lines of a table by horizon and lateness: each symbol, and all trained symbols together."""
    for horizon_min, late_min in sorted({(one.topic.horizon_min, one.late_min) for one in lates}):
        some = [one for one in lates if (one.topic.horizon_min, one.late_min) == (horizon_min, late_min)]
        when = f"{some[0].topic.horizon:>4} {some[0].topic.loss:5}{late_min:4}m"
        for one in some:
            yield f"  {one.topic.symbol.removesuffix('USDT'):5}{when}{one.rows:9,}", [one]
        seen = [one for one in some if one.topic.symbol != UNSEEN]
        yield f"  {'all':5}{when}{sum(one.rows for one in seen):9,}", seen


def ratio(some: Sequence[Late], way: str) -> float:
    return float(np.mean([one.ratio(way) for one in some]))


def show_returns(lates: Sequence[Late]) -> None:
    print("\nPrices and log-returns: loss over that of the newest price alone, and the chance of such a lead by luck")
    head = f"  {'':5}{'':>4} {'':5}{'late':>5}{'rows':>9}" + "".join(f"{way:>11}" for way in RETURN_WAYS)
    print(head + f"{'p: carried under newest price':>31}{'last close':>12}{'time left under unchanged':>27}")
    for name, some in groups(lates):
        ratios = "".join(f"{ratio(some, way):11.5f}" for way in RETURN_WAYS)
        pairs = {("carried", NAIVE): 31, ("carried", "last close"): 12, ("time left", "unchanged"): 27}
        print(f"{name}{ratios}" + "".join(f"{chance(some, *pair):>{width}}" for pair, width in pairs.items()))


def show_volatility(lates: Sequence[Late]) -> None:
    print("\nVolatility: loss over that of the last window's, at the close; the share that carrying saves of what")
    print(
        "a new forecast would save then, and the chance of that by luck; bounded: in candles of the panel, moves cut at"
    )
    print("ten standard deviations; the last window carried likewise")
    head = (
        f"  {'':5}{'':>4} {'':5}{'late':>5}{'rows':>9}{'unchanged':>11}{'carried':>9}{'fresh':>8}{'saved':>7}{'p':>8}"
    )
    print(head + f"{'bounded':>10}{'saved':>7}{'p':>8}{'last window':>14}")
    for name, some in groups(lates):
        ways = ("unchanged", "carried", "bounded", *(("fresh",) if "fresh" in some[0].losses else ()))
        of = {way: ratio(some, way) for way in ways}
        saved, fresh = {"carried": "", "bounded": ""}, ""
        if "fresh" in of:
            gap, fresh = of["unchanged"] - of["fresh"], f"{of['fresh']:.4f}"
            saved = {way: f"{(of['unchanged'] - of[way]) / gap:.0%}" for way in saved}
        print(
            f"{name}{of['unchanged']:11.4f}{of['carried']:9.4f}{fresh:>8}{saved['carried']:>7}"
            f"{chance(some, 'carried', 'unchanged'):>8}{of['bounded']:10.4f}{saved['bounded']:>7}"
            f"{chance(some, 'bounded', 'unchanged'):>8}{ratio(some, 'last window'):14.4f}"
        )


def show(walk: Walk, recording: Recording, scored: Sequence[Scored], since_ms: int) -> None:
    minutes = {symbol: Minutes(run) for (symbol, ms), run in recording.series.items() if ms == MINUTE_MS}
    lates = [
        late_of(one, minutes[one.topic.symbol], late_min, since_ms)
        for one in scored
        if one.topic.horizon_min <= LONGEST_MIN and not (one.is_return and one.unseen)
        for late_min in LATE_MIN[panel_of(one.topic.horizon_min).name]
    ]
    minute = next(plan for plan in walk.plans() if plan.panel == MINUTE)
    profile(walk.trained(minute), recording, since_ms)
    show_returns([one for one in lates if head_of(one.topic).kind is Kind.RETURN])
    show_volatility([one for one in lates if head_of(one.topic).kind.is_volatility])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet klines")
    parser.add_argument("--out", type=Path, help="where the walk is kept; a run that was cut off goes on there")
    parser.add_argument("--start", help="UTC day of the first training; three months before the end")
    parser.add_argument("--end", help="UTC day where the walk ends; where the klines do")
    parser.add_argument("--since", help="UTC day from which on rows count; the first training")
    parser.add_argument("--quick", action="store_true", help="the last 30 days, one training")
    given = parser.parse_args(arguments)
    configure_logging("info", service="benchmark", simulated=False)
    out = given.out or Path(tempfile.mkdtemp(prefix="carry-"))
    out.mkdir(parents=True, exist_ok=True)
    replace_json(out / "training.json", {"seeds": 1})
    asked = Asked(
        topics=topics(VOLATILITY_MIN),
        data_dir=out / "data",
        data=given.data,
        venues=(),
        start=given.start,
        end=given.end,
        stride=1,  # the minute after a forecast has one as well
        out=out / "walk",
        training_file=out / "training.json",
        unseen=(UNSEEN,),
        baselines=(),
        command="python -m benchmarks.studies.carry",
    )
    walk, recording = walk_of(asked)
    if given.quick:
        walk = replace(walk, start_ms=walk.end_ms - QUICK_DAYS * DAY_MS, every_days=QUICK_DAYS)
    folder = folder_of(asked, walk, recording)
    print("\n".join(introduction(walk, recording, folder)), flush=True)
    with progress_of("carry") as told:
        records = run(walk, recording, folder, told)
    since_ms = moment_ms(given.since, "--since")
    show(walk, recording, scored_topics(walk, folder, records), walk.start_ms if since_ms is None else since_ms)


if __name__ == "__main__":
    main()
