"""Measure what the gate promotes: noise on random walks, small true edges, and networks over months of rounds.

    python -m benchmarks.gate [--quick] [--live]

All decisions are those of the updater's own functions (model.judging.gate, and updater.judging for trained networks).
Seeded; docs/decisions/0004 explains the figures.
"""

import argparse
import logging
import math
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog
from pydantic import JsonValue

from benchmarks.gate_live import show_live
from core.clock import DAY_MS, MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Floats
from model.judging.comparison import LEAST_HORIZONS, LEVEL, Comparison, compare
from model.judging.gate import OLD_H, Contest, decide, scored_from, why_demoted
from model.judging.significance import student_tail
from model.panels import panels_for
from model.registry.artefact import Artefact
from model.registry.versions import Registry
from model.training.panel import train_panel
from tests.fakes.klines import random_walk_klines
from tests.noise import SIZES, Noise, Size, ahead, noise_forecasts, promotions, returns
from updater.judging import judge
from updater.round import artefact_of
from updater.training_settings import training_config

FAST = (SIZES[1], SIZES[3], SIZES[4])


def rate(promoted: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Share promoted, and half of its confidence interval of 95 %; symbols of a market are not independent."""
    by_market = promoted.mean(axis=1)
    return float(by_market.mean()), 1.96 * float(by_market.std()) / len(by_market) ** 0.5


@dataclass(frozen=True, slots=True)
class Figure:
    """The share of one kind of noise that the gate promotes."""

    mean: float
    half: float
    walk: str
    noise: Noise
    column: str
    size: Size

    @classmethod
    def of(cls, size: Size, walk: str, noise: Noise, column: str, markets: int, seed: int) -> "Figure":
        share, memories = COLUMNS[column]
        memory = max(1, round(memories * size.steps))
        promoted = promotions(size, noise, share, markets, seed, stormy=walk == "stormy", memory=memory)
        return cls(*rate(promoted), walk, noise, column, size)

    def __str__(self) -> str:
        return f"{100 * self.mean:7.1f} ± {100 * self.half:3.1f} "


def show_false_positives(markets: int, sizes: Sequence[Size]) -> None:
    print(f"\nRandom walks: promoted of challengers that are noise, in % (stated: {LEVEL:.0%}), of {markets} markets")
    print(f"  {'horizon':32} {'horizons':>8}  {'walk':8} {'noise':22} " + "".join(f"{name:>14}" for name in COLUMNS))
    found: list[Figure] = []
    for size in sizes:
        for walk in ("calm", "stormy"):
            for noise in Noise:
                cells = [Figure.of(size, walk, noise, name, markets, seed) for seed, name in enumerate(COLUMNS)]
                found += cells
                print(
                    f"  {size.name:32} {size.horizons:8.0f}  {walk:8} {noise.value:22} " + "".join(map(str, cells)),
                    flush=True,
                )
    overall = float(np.mean([one.mean for one in found]))
    above = sum(one.mean - one.half > LEVEL for one in found)
    print(f"  mean of all {100 * overall:.1f}; surely above {LEVEL:.0%}: {above} of {len(found)}")
    print(f"  the {AGAIN} highest once more, on {5 * markets} other markets: the highest of many is so by luck as well")
    for one in sorted(found, key=lambda figure: -figure.mean)[:AGAIN]:
        again = Figure.of(one.size, one.walk, one.noise, one.column, 5 * markets, 100)
        print(
            f"  {one.size.name:32} {'':8}  {one.walk:8} {one.noise.value:22} {one}, again {again} ({one.column})",
            flush=True,
        )


AGAIN = 5
COLUMNS = {  # size of the noise over that of the move; horizons that it looks back over
    "1%, 1 horizon": (0.01, 1.0),
    "1%, 10": (0.01, 10.0),
    "1%, 1/8": (0.01, 0.125),
    "1%, 1 candle": (0.01, 0.0),
    "5%, 1": (0.05, 1.0),
}


def show_variances(tries: int) -> None:
    """Why model.judging.significance counts cosines: other errors of the mean, on the hardest noise."""
    print(f"\nOne-sided tests of 5 % without any allowance, noise against the past, in %; {tries} tries a figure")
    print(f"  {'horizons':>8}  {'Bartlett 2 h, HLN, t':>22} {'Bartlett 4 h, HLN, t':>22} {'cosines, t (ours)':>18}")
    steps = 24
    for horizons in (12, 20, 60, 250):
        rng, rows = np.random.default_rng(horizons), horizons * steps
        wins: Counter[str] = Counter()
        for _ in range(tries):
            walk = rng.standard_normal((1, rows + 2 * steps))
            lead = (ahead(walk, steps)[:, steps:] * ahead(walk, steps)[:, :-steps])[0][:rows]
            for lags in (2 * steps, 4 * steps):
                wins[f"{lags}"] += student_tail(-_bartlett_t(lead, lags, steps), rows - 1) < 0.05
            ours = compare(np.arange(rows), 1 + 1e-3 * lead, np.ones(rows), steps).better
            wins["ours"] += ours is not None and ours < 0.05
        cells = [f"{100 * wins[name] / tries:.1f}" for name in (str(2 * steps), str(4 * steps), "ours")]
        print(f"  {horizons:8}  {cells[0]:>22} {cells[1]:>22} {cells[2] if horizons >= LEAST_HORIZONS else 'none':>18}")


def _bartlett_t(lead: Floats, lags: int, steps: int) -> float:
    """Newey and West's statistic with the correction of Harvey, Leybourne and Newbold (1997)."""
    rows, centred = len(lead), lead - lead.mean()
    covariances = np.fft.irfft(np.abs(np.fft.rfft(centred, 2 * rows)) ** 2)[: lags + 1] / rows
    variance = float(2 * covariances @ (1 - np.arange(lags + 1) / (lags + 1)) - covariances[0])
    small_sample = ((rows + 1 - 2 * steps + steps * (steps - 1) / rows) / rows) ** 0.5
    return float(small_sample * lead.mean() / (variance / rows) ** 0.5)


def show_power(markets: int) -> None:
    edges = (0.0005, 0.001, 0.002, 0.005, 0.01)
    print(f"\nTrue edges: promoted in %, by the share of the variance that is forecast; {markets} markets a figure")
    print(f"  {'horizon':32} " + "".join(f"{edge:>9.2%}" for edge in edges))
    for size in SIZES[:5]:
        cells = [rate(promotions(size, Noise.UNRELATED, 0.01, markets, 7, edge=edge))[0] for edge in edges]
        print(f"  {size.name:32} " + "".join(f"{100 * cell:8.0f} " for cell in cells), flush=True)


@dataclass(slots=True)
class Months:
    """The history of a topic over many rounds."""

    rounds: int = 0
    passed: int = 0  # challengers that differ from naive and beat it
    noise_served: int = 0  # rounds after which something other than naive answers
    demoted: int = 0
    excess: float = 0.0  # loss of the answers above naive's, in units of naive's, summed over rounds


def months(seed: int, *, rounds: int, alike: float, share: float) -> Months:
    """A topic of five minutes on a random walk, trained anew every six hours; each network is noise.

    Args:
        alike: correlation between the noise of one network and the next.
        share: size of the noise over that of the move.
    """
    rng, judge, every, seen = np.random.default_rng(seed), 2880, 72, Months()  # candles of five minutes
    candles = judge + every * (rounds + 1)
    came_true, lasting = rng.standard_normal(candles), rng.standard_normal(candles)
    ticks = np.arange(candles)
    naive = came_true**2
    champion: tuple[Floats, int] | None = None  # its losses, and when it was made

    def versus_naive(losses: Floats, start: int, end: int) -> Comparison:
        return compare(ticks[start:end], losses[start:end], naive[start:end], 1)

    for turn in range(rounds):
        now = judge + turn * every
        if champion and now - champion[1] >= 28 * every:
            champion = None  # MAX_MODEL_AGE_H
        if champion and now > champion[1]:
            since = max(champion[1] - judge, scored_from(ticks[champion[1] - judge : now], champion[1], 1))
            if why_demoted(versus_naive(champion[0], since, now)):
                champion, seen.demoted = None, seen.demoted + 1
        noise = alike**0.5 * lasting + (1 - alike) ** 0.5 * rng.standard_normal(candles)
        losses = (came_true - share * noise) ** 2
        contest = Contest(naive=versus_naive(losses, now - judge, now))
        seen.passed += decide(contest).promoted
        if champion:
            beside = compare(ticks[now - judge : now], losses[now - judge : now], champion[0][now - judge : now], 1)
            age_h = (now - champion[1]) / 12
            contest = replace(contest, champion=beside, champion_age_h=age_h)
        if decide(contest).promoted:
            champion = losses, now
        seen.rounds += 1
        if champion:
            seen.noise_served += 1
            seen.excess += float((champion[0] - naive)[now : now + every].mean())
    return seen


def show_months(topics: int, rounds: int) -> None:
    print(f"\nMonths: five-minute topics on random walks, a round every six hours; {topics} topics, {rounds} rounds")
    print("  noise  networks alike   pass a round   noise serves   demoted a round   loss above naive")
    for alike in (0.0, 0.5, 0.9):
        for share in (0.01, 0.05):
            found = [months(seed, rounds=rounds, alike=alike, share=share) for seed in range(topics)]
            total = sum(one.rounds for one in found)
            print(
                f"  {share:5.0%}  {alike:14.1f}   "
                f"{sum(one.passed for one in found) / total:12.1%}   "
                f"{sum(one.noise_served for one in found) / total:12.1%}   "
                f"{sum(one.demoted for one in found) / total:15.2%}   "
                f"{sum(one.excess for one in found) / total:16.4%}",
                flush=True,
            )


def rounds_served(size: Size, share: float, seed: int, *, every: int = 360, week: int = 28) -> int:
    """Rounds until a champion that is noise of this share is demoted; ``week`` if never.

    Args:
        every: candles from round to round.
        week: rounds until it would be too old.
    """
    rng, steps = np.random.default_rng(seed), size.steps
    walk = returns(rng, size.rows + week * every + 2 * steps, stormy=False)[:1]
    came_true = ahead(walk, steps)[0, steps:]
    forecast = share * steps**0.5 * noise_forecasts(rng, walk, Noise.UNRELATED, steps)[0, : len(came_true)]
    losses, naive = (came_true - forecast) ** 2, came_true**2
    for turn in range(1, week):
        ticks = np.arange(size.rows + turn * every - steps)  # whose truth is known
        scored = ticks[ticks >= scored_from(ticks, size.rows, steps)]
        if why_demoted(compare(scored, losses[scored], naive[scored], steps)):
            return turn
    return week


def show_demotions(champions: int) -> None:
    shares = (0.01, 0.05, 0.1, 0.2, 0.3)
    print(f"\nDemotion: champions that are noise, by how much worse than naive they truly are; {champions} a figure")
    print("  demoted in % within a day (4 rounds) and within a week (28)")
    print(f"  {'horizon':32} " + "".join(f"{share**2:>14.2%}" for share in shares))
    for size in SIZES[:3]:
        cells = []
        for share in shares:
            served = np.array([rounds_served(size, share, seed) for seed in range(champions)])
            cells.append(f"{100 * float((served <= 4).mean()):8.0f} {100 * float((served < 28).mean()):4.0f} ")
        print(f"  {size.name:32} " + "".join(cells), flush=True)


def served_loss(policy: str, *, noise: float, drift: float, rounds: int, seed: int) -> float:
    """Return the mean true loss of the serving network less that of a fresh one, in units of naive's.

    There is a round every six hours.

    Args:
        policy: "newest", "never old", "as it is" or "always old".
        noise: of the difference of two networks' losses over six hours, standard deviation.
        drift: what a network loses in a week.
    """
    rng, judge, week = np.random.default_rng(seed), 40, 28
    true = 0.005 * rng.standard_normal(rounds)
    series = noise / 2**0.5 * rng.standard_normal((rounds, rounds))  # by network and time
    ticks, good = np.arange(judge), compare(np.arange(1000), np.full(1000, 0.7), np.ones(1000), 1)

    def losses(network: int, now: int) -> Floats:
        at = np.arange(now - judge, now)
        aged: Floats = 1 + true[network] + drift / week * np.maximum(at - network, 0) + series[network, at]
        return aged

    champion, total = judge, 0.0
    for now in range(judge, rounds):
        age = now - champion
        age_h = {"never old": 0.0, "always old": math.inf}.get(policy, 6.0 * age)
        contest = Contest(
            naive=good,
            champion=compare(ticks, losses(now, now), losses(champion, now), 1),
            champion_age_h=age_h,
        )
        if policy == "newest" or age >= week or decide(contest).promoted:
            champion = now
        total += true[champion] + drift / week * (now - champion)
    return total / (rounds - judge)


def show_replacement(seeds: int) -> None:
    policies = ("newest", "never old", "as it is", "always old")
    print("\nReplacement: true loss of what serves less a fresh network's, in % of naive; networks differ by 0.5 %")
    print(
        f"  as it is: old after {OLD_H:.0f} h; noise is that of the difference of two networks' losses over six hours"
    )
    print("  noise  lost in a week " + "".join(f"{policy:>12}" for policy in policies))
    for noise in (0.03, 0.09):
        for drift in (0.0, 0.005, 0.02, 0.05):
            cells = [
                np.mean([served_loss(policy, noise=noise, drift=drift, rounds=400, seed=s) for s in range(seeds)])
                for policy in policies
            ]
            print(f"  {noise:5.0%}  {drift:14.1%} " + "".join(f"{100 * cell:12.2f}" for cell in cells), flush=True)


def show_pipeline(markets: int) -> None:
    """Networks as the updater trains and judges them: features, training, calibration, the ONNX network, the gate."""
    tokens = ("BTC", "ETH", "SOL")
    heads = ((Target.PRICE, 5), (Target.LOG_RETURN, 15), (Target.PRICE, 60))
    topics = [
        Topic(topic_id=number, token=token, symbol=f"{token}USDT", target=target, horizon_min=horizon_min)
        for number, (token, (target, horizon_min)) in enumerate(((t, h) for t in tokens for h in heads), 1)
    ]
    (plan,) = panels_for(topics).values()
    days, began = 14, time.monotonic()
    rows = days * DAY_MS // MINUTE_MS
    counts = {"calibrated": Counter[str](), "with lambda 1": Counter[str]()}
    tiny: dict[str, JsonValue] = {
        "epochs": 1,
        "stride": 23,
        "cell": "rnn",
        "hidden_layer_size": 8,
        "num_layers": 1,
        "seeds": 1,
    }
    config = training_config(plan.panel.name, tiny)
    for market in range(markets):
        klines = {
            symbol: random_walk_klines(rows, seed=1000 * market + number) for number, symbol in enumerate(plan.symbols)
        }
        trained, now_ms = train_panel(plan, klines, config, market), next(iter(klines.values())).end_ms
        challenger = artefact_of(trained, klines, now_ms)
        alone = replace(trained, evidence=())
        for name, made, one in (("calibrated", trained, challenger), ("with lambda 1", alone, unshrunk(challenger))):
            with tempfile.TemporaryDirectory() as folder:
                verdicts = judge(made, one, Registry(Path(folder)), now_ms)
            for verdict in verdicts:
                equal = verdict.adds_nothing
                counts[name]["equal" if equal else "promoted" if verdict.promoted else "refused"] += 1
    print(
        f"\nTrained networks: {markets} random-walk markets of {days} days, {len(topics)} return topics each, one epoch"
    )
    for name, of_name in counts.items():
        asked = of_name.total()
        print(
            f"  {name:13}: {of_name['equal']} of {asked} are the naive forecast itself, {of_name['refused']} refused, "
            f"{of_name['promoted']} promoted although they differ ({of_name['promoted'] / asked:.1%})"
        )
    print(f"  {time.monotonic() - began:.0f} s")


def unshrunk(artefact: Artefact) -> Artefact:
    """A network's returns before calibration."""
    manifest = artefact.manifest
    factors = {symbol: {head: {"lambda": 1.0} for head in manifest.heads} for symbol in manifest.symbols}
    return replace(artefact, manifest=manifest.model_copy(update={"calibration": factors}))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="below a minute, with wider intervals")
    parser.add_argument("--live", action="store_true", help="demotions by what was really answered, and nothing else")
    options = parser.parse_args(arguments)
    quick = options.quick
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if options.live:
        show_live(quick)
        return
    show_false_positives(60 if quick else 400, FAST if quick else SIZES)
    show_variances(300 if quick else 2000)
    show_pipeline(2 if quick else 150)
    show_power(10 if quick else 40)
    show_months(2 if quick else 10, 60 if quick else 120)
    show_demotions(10 if quick else 40)
    show_replacement(1 if quick else 4)


if __name__ == "__main__":
    main()
