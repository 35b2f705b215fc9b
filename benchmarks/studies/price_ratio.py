"""Measure the gain of a running price ratio for price topics, and the grounds of the ratio's settings.

    python -m benchmarks.studies.price_ratio --data FOLDER

FOLDER has the folders spot/ and um/ of Parquet klines named SYMBOL-INTERVAL-*.parquet. The first part is real: hours of
BNBUSDT spot against minutes of the BNBUSDT perpetual, compared at hourly closes. The newest price of one forecasts the
price of the other, with and without the ratio.

The second part is SEMI-SYNTHETIC, because there is no second feed in minutes: one is laid over the real minutes of BTC
and ETH, with the statistics of the first part's basis and a steady offset of 0.05 %. Two laws are fitted: an AR(1)
alone, and a lasting AR(1) with a noise on top, which fits the autocovariances. The opens right after the closes show
that half of that noise is gone within a moment: in a third law the other half lasts minutes, how many is a guess. Two
more laws look for what breaks an estimator: the third with wrong minutes, and with jumps. The settings are chosen on
the first period and reported on the second. Under a minute on one core.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from core.clock import HOUR_MS, MINUTE_MS, iso
from klines.klines import PRICE_COLUMNS, Floats, Ints, Klines
from market.live.truth_ratio import MOST_AGE_MS, MOST_NOISE
from market.price_ratio import HALF_LIFE_ROWS, LEAST_ROWS, WINDOW_ROWS, price_ratio
from market.store.recording import load_recording
from model.judging.significance import mean_over_time

PAIR, SYMBOLS = "BNBUSDT", ("BTCUSDT", "ETHUSDT")
BP = 1e4  # basis points
SEED = 20

HOURS_BACK = (1, 2, 3, 6, 12, 24)
HOURS_AHEAD = (1, 8, 24)
HOURS_OLD = (1, 2, 4, 8, 12, 24, 48)
FITTED_LAGS = 24  # hours

OFFSET = 5e-4
BRIEF_MIN = 5  # a guess: the klines show only changes within a moment and within an hour
AHEAD_MIN = (5, 10, 20, 60)
CHOSEN_AHEAD_MIN = (5, 10, 20)
OLD_MIN = (0, 15, 30, 60, 120, 240, 480, 720)
FEW = (1, 3, 5, 10, 20, 60)
PERIODS = {"chosen on": "2023-09-15", "reported on": "2024-01-15"}
PERIOD_MIN = 60 * 1440
EVERY_MIN = 3  # a row is every third minute
CHUNK = 8192
REPEATED = 2000

Estimator = Callable[[Floats], Floats]  # (R, WINDOW_ROWS) ln(ratio) of minutes, oldest first -> (R,)


# -- estimators --------------------------------------------------------------------------------------------------------


def last_mean(minutes: int) -> Estimator:
    return lambda windows: windows[:, -minutes:].mean(axis=1)


def last_median(minutes: int) -> Estimator:
    return lambda windows: np.median(windows[:, -minutes:], axis=1)


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """``(R,)`` of ``(R, M)`` values and weights: the first at which half the weight is reached."""
    order = np.argsort(values, axis=1)
    passed = np.cumsum(np.broadcast_to(weights, values.shape)[np.arange(len(values))[:, None], order], axis=1)
    place = (passed < passed[:, -1:] / 2).sum(axis=1)[:, None]
    found: Floats = np.take_along_axis(values, np.take_along_axis(order, place, axis=1), axis=1)[:, 0]
    return found


def fading(minutes: int, half_life_min: float = HALF_LIFE_ROWS) -> Floats:
    """``(minutes,)`` weights that halve with the age, oldest first."""
    weights: Floats = 0.5 ** (np.arange(minutes)[::-1] / half_life_min)
    return weights


def fading_median(half_life_min: float, minutes: int = WINDOW_ROWS) -> Estimator:
    return lambda windows: weighted_median(windows[:, -minutes:], fading(minutes, half_life_min))


def fading_spread(windows: Floats) -> Floats:
    """``(R,)`` median distance from the served median, with its weights."""
    level = weighted_median(windows, fading(WINDOW_ROWS))
    return weighted_median(np.abs(windows - level[:, None]), fading(WINDOW_ROWS))


def middle_of(*minutes: int) -> Estimator:
    """The median of several medians."""
    return lambda windows: np.median([last_median(some)(windows) for some in minutes], axis=0)


def newest_where_apart(short: int, long: int, most: float) -> Estimator:
    """The long median, or the short one where it is so many median distances away: the level has jumped."""

    def estimate(windows: Floats) -> Floats:
        slow, fast = last_median(long)(windows), last_median(short)(windows)
        spread = np.median(np.abs(windows[:, -long:] - slow[:, None]), axis=1)
        return np.where(np.abs(fast - slow) > most * spread, fast, slow)

    return estimate


ESTIMATORS: Mapping[str, Estimator] = {
    **{f"mean of {minutes}": last_mean(minutes) for minutes in (10, 30, 60, 120, 180)},
    **{f"median of {minutes}": last_median(minutes) for minutes in (1, 5, 10, 15, 20, 30, 60, 120, 180)},
    **{f"fading median, {half:g} min": fading_median(half) for half in (5, 7, 10, 15, 20, 40)},
    "median of medians of 10, 30, 90": middle_of(10, 30, 90),
    **{f"of 60, of 10 where {most:g} spreads apart": newest_where_apart(10, 60, most) for most in (2.0, 3.0)},
}
SERVED = f"fading median, {HALF_LIFE_ROWS:g} min"


# -- real: two feeds that meet every hour ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Meetings:
    """Closes of two feeds at the hours that both have. N in time order, without a hole."""

    close_ms: Ints  # (N,)
    spot: Floats  # (N,) USDT
    perpetual: Floats  # (N,)
    after: Floats  # (N,) ln(spot / perpetual) of the opens that follow; NaN at a missing open

    @property
    def log_ratio(self) -> Floats:
        """``(N,)`` of spot over perpetual."""
        found: Floats = np.log(self.spot / self.perpetual)
        return found


def meetings_of(spot: Klines, perpetual: Klines) -> Meetings:
    close_ms, one, other = np.intersect1d(
        spot.open_time_ms + spot.interval_ms, perpetual.open_time_ms + perpetual.interval_ms, return_indices=True
    )
    assert (np.diff(close_ms) == HOUR_MS).all()
    open_ms, first, second = np.intersect1d(spot.open_time_ms, perpetual.open_time_ms, return_indices=True)
    after = np.full(len(close_ms), np.nan)
    _, here, there = np.intersect1d(close_ms, open_ms, return_indices=True)
    after[here] = np.log(spot.open[first[there]] / perpetual.open[second[there]])
    return Meetings(close_ms=close_ms, spot=spot.close[one], perpetual=perpetual.close[other], after=after)


def trailing(log_ratio: Floats, hours: int, old: int = 0) -> Floats:
    """``(N,)`` median of the last meetings, the newest of them so many hours ago; NaN where there are too few."""
    found = np.full(len(log_ratio), np.nan)
    medians = np.median(sliding_window_view(log_ratio, hours), axis=1)
    found[hours - 1 + old :] = medians[: len(medians) - old]
    return found


def root_mean_square(values: Floats) -> float:
    return float(np.sqrt(np.nanmean(values**2)))


def show_real(meetings: Meetings) -> None:
    log_ratio, half = meetings.log_ratio, len(meetings.log_ratio) // 2
    print(f"REAL: {PAIR} spot over perpetual at {len(log_ratio)} hourly closes, {_day(meetings.close_ms)}")
    print(
        f"  ln(ratio) in basis points: mean {log_ratio.mean() * BP:.2f}, deviation {log_ratio.std() * BP:.2f}, "
        f"lowest {log_ratio.min() * BP:.1f}, highest {log_ratio.max() * BP:.1f}; by the next opens it has changed by "
        f"{root_mean_square(log_ratio - meetings.after) * BP:.2f}"
    )
    errors = {hours: root_mean_square((log_ratio - trailing(log_ratio, hours, 1))[:half]) for hours in HOURS_BACK}
    hours_back = min(errors, key=lambda hours: errors[hours])
    text = ", ".join(f"{hours} h {error * BP:.2f}" for hours, error in errors.items())
    print(
        f"  error of the next hour, first half, by the number of hours in the median: {text}; the least: {hours_back} h"
    )
    print("  How fast a ratio goes stale: root mean square error by the age of its newest hour, bp")
    print("  " + " " * 34 + f"{'no ratio':>10}" + "".join(f"{f'{old} h':>8}" for old in HOURS_OLD))
    for name, part in (("first half", slice(None, half)), ("second half", slice(half, None))):
        for hours in dict.fromkeys((1, hours_back)):
            cells = [root_mean_square((log_ratio - trailing(log_ratio, hours, old))[part]) for old in HOURS_OLD]
            row = "".join(f"{error * BP:8.2f}" for error in cells)
            none = root_mean_square(log_ratio[part]) * BP
            print(f"  {name + f', median of {hours} h':34}{none:10.2f}{row}")
    print("  The price h later from the other feed's price now: MSE with the ratio over that without it, second half;")
    print("  p: chance of such a gain by luck (Diebold and Mariano), one-sided")
    print(f"  {'':34}{'horizon':>8}{'rows':>7}{'MSE without':>13}{'with':>10}{'ratio':>8}{'p':>8}")
    for hours in dict.fromkeys((1, hours_back)):
        level = np.exp(trailing(log_ratio, hours))
        for name, truth, serving, factor in (
            ("spot from perpetual", meetings.spot, meetings.perpetual, level),
            ("perpetual from spot", meetings.perpetual, meetings.spot, 1 / level),
        ):
            for ahead in HOURS_AHEAD:
                rows = np.arange(half, len(truth) - ahead)
                text = _gain(truth[rows + ahead], serving[rows], factor[rows], rows, ahead)
                print(f"  {f'{name}, median of {hours} h':34}{f'{ahead} h':>8}{text}")


def _gain(came: Floats, price: Floats, factor: Floats, ticks: Ints, steps: int) -> str:
    without, with_it = (came - price) ** 2, (came - price * factor) ** 2
    lead = mean_over_time(with_it - without, ticks, steps)
    share = with_it.mean() / without.mean()
    return f"{len(came):7,}{without.mean():13.4g}{with_it.mean():10.4g}{share:8.4f}{lead.p_below:8.4f}"


def _day(close_ms: Ints) -> str:
    return f"{iso(int(close_ms[0]))[:10]} to {iso(int(close_ms[-1]))[:10]}"


# -- semi-synthetic: a second feed over real minutes -------------------------------------------------------------------


def ar1(keeps: float, minutes: int, rng: np.random.Generator) -> Floats:
    """``(minutes,)`` AR(1) noise of variance 1."""
    shocks = (1 - keeps**2) ** 0.5 * rng.standard_normal(minutes)
    found, now = np.empty(minutes), float(rng.standard_normal())
    for minute, shock in enumerate(shocks.tolist()):
        now = keeps * now + shock
        found[minute] = now
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """How ln(ratio) moves from minute to minute, about the offset."""

    name: str
    lasts: float  # correlation of the slow part with itself an hour later
    slow: float  # standard deviations
    noise: float  # of every minute anew
    brief: float = 0.0  # of a part that halves in BRIEF_MIN
    wrong: float = 0.0  # share of minutes whose close one feed has wrong, by 1 %
    jumps_a_day: float = 0.0  # of 0.2 % up or down, which stay

    def drawn(self, minutes: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return ``(minutes,)`` of ln(ratio) as read, with wrong minutes, and as it truly was."""
        was = OFFSET + self.slow * ar1(self.lasts ** (1 / 60), minutes, rng)
        was += self.brief * ar1(0.5 ** (1 / BRIEF_MIN), minutes, rng) + self.noise * rng.standard_normal(minutes)
        jumps = rng.random(minutes) < self.jumps_a_day / 1440
        was += 0.002 * (np.cumsum(jumps) % 2)  # up and down in turn, so that the ratio stays near 1
        wrong = (rng.random(minutes) < self.wrong) * rng.choice([-0.01, 0.01], minutes)
        return was + wrong, was


def fitted(meetings: Meetings) -> tuple[Law, Law, Law]:
    """Fit three laws: an AR(1), an AR(1) with a noise on top, and one in which a part of that noise lasts minutes.

    The first is fitted by the first autocorrelation. The second is the line through the logarithms of a day's
    autocovariances; what the line lacks at lag 0 is the noise. In the third only the change from a close to the next
    open is noise of the minute.
    """
    centred = meetings.log_ratio - meetings.log_ratio.mean()
    count = len(centred)
    covariance = np.array([centred[lag:] @ centred[: count - lag] / count for lag in range(FITTED_LAGS + 1)])
    slope, height = np.polyfit(np.arange(1, FITTED_LAGS + 1), np.log(covariance[1:]), 1)
    lasts, slow = float(np.exp(slope)), float(np.exp(height))
    noise = max(0.0, float(covariance[0]) - slow)
    instant = min(noise, float(np.nanvar(meetings.log_ratio - meetings.after)) / 2)
    first, all_of_it = float(covariance[1] / covariance[0]), float(covariance[0])
    lasting = Law(name="lasting, noise", lasts=lasts, slow=slow**0.5, noise=noise**0.5)
    return (
        Law(name="AR(1) alone", lasts=first, slow=all_of_it**0.5, noise=0.0),
        lasting,
        replace(lasting, name="lasting, brief, noise", noise=instant**0.5, brief=(noise - instant) ** 0.5),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Real minutes of some symbols, and every third row that has enough minutes before and after."""

    name: str
    klines: Mapping[str, Klines]
    rows: Ints  # (R,) minute that each forecast is made after


def period_of(name: str, day: str, series: Mapping[str, Klines]) -> Period:
    start_ms = int(np.datetime64(day, "ms").astype(np.int64))
    klines = {symbol: run.between(start_ms, start_ms + PERIOD_MIN * MINUTE_MS) for symbol, run in series.items()}
    assert all(len(run) == PERIOD_MIN for run in klines.values()), "the periods have no hole"
    rows = np.arange(WINDOW_ROWS + max(OLD_MIN), PERIOD_MIN - max(AHEAD_MIN), EVERY_MIN)
    return Period(name=name, klines=klines, rows=rows)


def estimates(read: Floats, rows: Ints, estimator: Estimator, old: int = 0) -> Floats:
    """``(R,)`` from the minutes up to each row, or to so many before it."""
    windows = sliding_window_view(read, WINDOW_ROWS)
    first = rows - old - WINDOW_ROWS + 1
    parts = [estimator(windows[first[at : at + CHUNK]]) for at in range(0, len(first), CHUNK)]
    return np.concatenate(parts)


def level_error(was: Floats, rows: Ints, estimate: Floats | float) -> float:
    """Return the root mean square error of an estimate of the basis at the horizons that matter, in basis points."""
    return BP * float(np.sqrt(np.mean([(was[rows + ahead] - estimate) ** 2 for ahead in CHOSEN_AHEAD_MIN])))


def show_choice(laws: Sequence[Law], period: Period, seed: int) -> None:
    """Print each estimator's error under each law, and the worst ratio to the best estimator's error."""
    print(f"\n  {period.name} {_span(period)}: error of the basis {_list(CHOSEN_AHEAD_MIN)} min later, bp")
    drawn = [law.drawn(PERIOD_MIN, np.random.default_rng(seed)) for law in laws]
    errors = {
        name: np.array([level_error(was, period.rows, estimates(read, period.rows, estimator)) for read, was in drawn])
        for name, estimator in ESTIMATORS.items()
    }
    best = np.min(list(errors.values()), axis=0)
    print("  " + " " * 38 + "".join(f"{law.name:>24}" for law in laws) + f"{'at worst over the best':>26}")
    none = [level_error(was, period.rows, 0.0) for _, was in drawn]
    print(f"  {'no ratio':38}" + "".join(f"{error:24.2f}" for error in none))
    for name, found in errors.items():
        worst = float((found / best).max())
        mark = "  <- served" if name == SERVED else ""
        print(f"  {name:38}" + "".join(f"{error:24.2f}" for error in found) + f"{worst:26.2f}{mark}")


def show_ages(laws: Sequence[Law], invented: Sequence[Law], period: Period, seed: int) -> None:
    """Print the errors of the served estimator from old minutes and from few minutes."""
    print(f"\n  {period.name} {_span(period)}: {SERVED}, error in bp by the age of its newest minute, in minutes")
    print(f"  {'':38}{'no ratio':>10}{'no offset':>11}" + "".join(f"{old:8}" for old in OLD_MIN))
    for law in laws:
        read, was = law.drawn(PERIOD_MIN, np.random.default_rng(seed))
        none = level_error(was, period.rows, 0.0), level_error(was - OFFSET, period.rows, 0.0)
        cells = [
            level_error(was, period.rows, estimates(read, period.rows, ESTIMATORS[SERVED], old)) for old in OLD_MIN
        ]
        print(f"  {law.name:38}{none[0]:10.2f}{none[1]:11.2f}" + "".join(f"{error:8.2f}" for error in cells))
    print(
        f"  the limit is {MOST_AGE_MS // MINUTE_MS} min ('no offset': what using none would cost, were there no offset)"
    )
    print("\n  the same from few minutes, by their number")
    print(f"  {'':38}" + "".join(f"{few:8}" for few in FEW))
    for law in (*laws, *invented):
        read, was = law.drawn(PERIOD_MIN, np.random.default_rng(seed))
        cells = [
            level_error(was, period.rows, estimates(read, period.rows, fading_median(HALF_LIFE_ROWS, few)))
            for few in FEW
        ]
        print(f"  {law.name:38}" + "".join(f"{error:8.2f}" for error in cells))
    print(f"  the least number is {LEAST_ROWS}")


def show_gain(laws: Sequence[Law], period: Period, seed: int) -> None:
    """MSE of the price of the second feed."""
    print(f"\n  {period.name} {_span(period)}: the second feed's price h later from the first one's now, {SERVED}")
    print(
        f"  {'':38}{'horizon':>8}{'rows':>7}{'MSE without':>13}{'with':>10}{'ratio':>8}{'p':>8}{'half an hour old':>18}"
    )
    for law in laws:
        for symbol, klines in period.klines.items():
            read, was = law.drawn(PERIOD_MIN, np.random.default_rng(seed))
            second = klines.close * np.exp(was)
            price = klines.close[period.rows]
            factor = np.exp(estimates(read, period.rows, ESTIMATORS[SERVED]))
            older = np.exp(estimates(read, period.rows, ESTIMATORS[SERVED], 30))
            for ahead in AHEAD_MIN:
                came = second[period.rows + ahead]
                old = ((came - price * older) ** 2).mean() / ((came - price) ** 2).mean()
                text = _gain(came, price, factor, period.rows, ahead)
                print(f"  {law.name + ', ' + symbol:38}{f'{ahead} min':>8}{text}{old:18.4f}")


def show_spreads(laws: Sequence[Law], period: Period, series: Mapping[str, Klines], seed: int) -> None:
    """Print the spread of two feeds of one asset, and of two assets."""
    weights = fading(WINDOW_ROWS)
    worth = weights.sum() ** 2 / (weights @ weights)  # so many minutes of one weight
    error = 1.2533 * 1.4826 * MOST_NOISE / worth**0.5  # of a median of normal ones, by their median distance
    print(f"\n  {period.name} {_span(period)}: spread (median distance from the median, fading as it does), bp")
    print(f"  {'':38}" + "".join(f"{f'{share} %':>9}" for share in (1, 25, 50, 75, 95, 99)) + f"{'refused':>10}")
    named = {law.name: law.drawn(PERIOD_MIN, np.random.default_rng(seed))[0] for law in laws}
    base = period.klines[SYMBOLS[0]]
    for symbol, run in series.items():
        if symbol != SYMBOLS[0]:
            other = run.between(int(base.open_time_ms[0]), base.end_ms)
            named[f"REAL, but two assets: {symbol}/{SYMBOLS[0]}"] = np.log(other.close / base.close)
    for name, log_ratio in named.items():
        spread = estimates(log_ratio, period.rows, fading_spread)
        cells = "".join(f"{found * BP:9.2f}" for found in np.percentile(spread, (1, 25, 50, 75, 95, 99)))
        print(f"  {name:38}{cells}{np.mean(spread > MOST_NOISE):10.2%}")
    print(f"  the limit is {MOST_NOISE * BP:g} bp: a ratio of such minutes would err by {error * BP:.1f} bp itself")


def check_served(law: Law, period: Period, seed: int) -> None:
    """Check that ``price_ratio`` gives the values measured here, and print how long a call takes."""
    klines, rows = period.klines[SYMBOLS[0]], period.rows[:: len(period.rows) // 20]
    read, _ = law.drawn(PERIOD_MIN, np.random.default_rng(seed))
    factor = np.exp(read)
    second = replace(klines, **{name: getattr(klines, name) * factor for name in PRICE_COLUMNS})
    expected = np.exp(estimates(read, rows, ESTIMATORS[SERVED]))
    took_s = 0.0
    for row, value in zip(rows.tolist(), expected.tolist(), strict=True):
        newest, same = (run.rows(row + 1 - WINDOW_ROWS, row + 1) for run in (klines, second))
        said = price_ratio(same, newest)
        assert said is not None
        assert abs(said.value / value - 1) < 1e-12
        began_s = time.perf_counter()
        for _ in range(REPEATED // len(rows)):
            price_ratio(same, newest)
        took_s += (time.perf_counter() - began_s) / (REPEATED // len(rows))
    print(f"\n  price_ratio says the same at {len(rows)} moments, in {took_s / len(rows) * 1e6:.0f} us each")


def _span(period: Period) -> str:
    return _day(next(iter(period.klines.values())).open_time_ms)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with spot/ and um/ of Parquet klines")
    given = parser.parse_args(arguments)
    spot = load_recording(given.data / "spot", (PAIR, *SYMBOLS, "SOLUSDT"))
    meetings = meetings_of(spot[PAIR, HOUR_MS], load_recording(given.data / "um", (PAIR,))[PAIR, MINUTE_MS])
    show_real(meetings)
    laws = fitted(meetings)
    print(f"\nSEMI-SYNTHETIC: a second feed over real minutes of BTC and ETH; basis {OFFSET * BP:g} bp on average and")
    for law in laws:
        print(
            f"  {law.name}: correlation over an hour {law.lasts:.3f}, standard deviation {law.slow * BP:.2f} bp; "
            f"brief {law.brief * BP:.2f} bp, noise {law.noise * BP:.2f} bp"
        )
    invented = (
        replace(laws[-1], name="20 % wrong (invented)", wrong=0.2),
        replace(laws[-1], name="jumps (invented)", jumps_a_day=2.0),
    )
    minutes = {symbol: spot[symbol, MINUTE_MS] for symbol in (*SYMBOLS, "SOLUSDT")}
    chosen, reported = (
        period_of(name, day, {symbol: minutes[symbol] for symbol in SYMBOLS}) for name, day in PERIODS.items()
    )
    show_choice((*laws, *invented), chosen, SEED)
    show_choice((*laws, *invented), reported, SEED + 1)
    show_ages(laws, invented[:1], chosen, SEED)
    show_ages(laws, invented[:1], reported, SEED + 1)
    show_gain((*laws, *invented), reported, SEED + 1)
    show_spreads((*laws, *invented), reported, minutes, SEED + 1)
    check_served(laws[-1], reported, SEED + 1)


if __name__ == "__main__":
    main()
