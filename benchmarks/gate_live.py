"""How often champions lose their topic by what they answered: those without harm, and those that do harm.

``python -m benchmarks.gate --live`` prints it. All decisions are the updater's own
(``updater.live_losses.why_worse``), asked at each of its looks: in between the newest look stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.clock import DAY_MS, MINUTE_MS
from core.settings import Objective
from core.sources import NETWORK
from core.topic import Target, Topic
from klines.klines import Floats, Ints
from ledger.scores import Columns
from model.judging.comparison import LEAST_HORIZONS, LEVEL, compare
from model.judging.live import looks
from model.registry.champions import Champion
from model.stretch import Stretch
from tests.noise import SIGMA, Noise, ahead, noise_forecasts, returns
from updater.live_losses import live_losses, why_worse

EPOCH_MIN = 5
WEEK_MIN = 7 * 24 * 60
STRETCH = 2.5
OFTEN_ROWS = 12  # of the look that counts every hour, for comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How long a champion of a horizon answers, every five minutes."""

    name: str
    horizon_min: int
    life_min: int = WEEK_MIN


SERVICES = (
    Service(name="5 min", horizon_min=5),
    Service(name="15 min", horizon_min=15),
    Service(name="1 h", horizon_min=60),
    Service(name="4 h", horizon_min=240),
    Service(name="8 h, MAX_MODEL_AGE_H=672", horizon_min=480, life_min=4 * WEEK_MIN),
)
SYMBOL = "ETHUSDT"
TOPIC = Topic(topic_id=1, token=SYMBOL[:3], symbol=SYMBOL, target=Target.LOG_RETURN, horizon_min=5)
CHAMPION = Champion(
    version="minute-20240101T000000Z-000000",
    manifest_sha256="0" * 64,
    since_ms=0,
    previous=None,
    network=None,
    token=TOPIC.token,
    symbol=SYMBOL,
    target=TOPIC.target,
    horizon_min=5,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answered:
    """A champion's answers of its life, and the naive forecast's."""

    topic: Topic
    start_min: Ints  # (N,)
    truth: Floats  # (N,) log-returns
    naive: Floats  # (N,)
    value: Floats  # (N,)
    stretch: float

    @property
    def rows(self) -> list[int]:
        """The rows that each look reads."""
        return looks(self.start_min, self.topic.horizon_min)

    def demoted_after(self) -> int | None:
        """Minutes of service until the updater demotes it; None if it never does."""
        for rows in self.rows:
            objective = Objective.LOSS if self.stretch == 1 else Objective.ADMISSION
            if why_worse(
                self.topic,
                live_losses(self.topic, CHAMPION, self._columns(rows), objective, Stretch(factor=self.stretch)),
            ):
                return int(self.start_min[rows - 1]) + self.topic.horizon_min
        return None

    def demoted_if_asked_often(self) -> bool:
        """True if a test of 5 % of all rows so far, every hour, would ever demote it."""
        losses, naive = (self.truth - self.value) ** 2, (self.truth - self.naive) ** 2
        steps = self.topic.horizon_min
        return any(
            compare(self.start_min[:rows], losses[:rows], naive[:rows], steps).surely_worse
            for rows in range(OFTEN_ROWS, len(naive) + 1, OFTEN_ROWS)
        )

    def _columns(self, rows: int) -> Columns:
        truth, naive, value = self.truth[:rows], self.naive[:rows], self.value[:rows]
        start_ms, nothing = self.start_min[:rows] * MINUTE_MS, np.zeros(rows)
        return Columns(
            height=np.arange(rows),
            start_ms=start_ms,
            end_ms=start_ms + self.topic.horizon_ms,
            version=np.full(rows, CHAMPION.version, np.object_),
            forecast=np.full(rows, NETWORK, np.object_),
            loss=(truth - value) ** 2,
            naive_loss=(truth - naive) ** 2,
            plain_naive_loss=truth**2,
            right_direction=nothing,
            value=value,
            truth=truth,
            truth_sd=nothing,
            naive=naive,
            plain_naive=nothing,
            error_bp=nothing,
        )


def answered(
    service: Service,
    noise: Noise,
    share: float,
    seed: int,
    *,
    stormy: bool,
    memory: float = 1.0,
    stretch: float = 1.0,
    known: float = 0.0,
) -> Answered:
    """Make a champion that forecasts the naive forecast and noise, on a random walk.

    Args:
        share: size of the noise over that of the move.
        memory: horizons that the noise looks back over.
        known: share of the interval that is known when it is answered.
    """
    rng, steps = np.random.default_rng(seed), service.horizon_min
    back, seen = max(1, round(memory * steps)), round(known * steps)
    walk = returns(rng, service.life_min + back + steps, stormy=stormy)[:1]
    truth = ahead(walk, steps)[0, back:]
    forecast = share * steps**0.5 * noise_forecasts(rng, walk, noise, back)[0, : len(truth)]
    naive = ahead(walk, seen)[0, back : back + len(truth)] if seen else np.zeros(len(truth))
    start_min = np.arange(0, service.life_min - steps, EPOCH_MIN)
    truth, forecast, naive = (SIGMA * column[start_min] for column in (truth, forecast, naive))
    return Answered(
        topic=replace(TOPIC, horizon_min=steps),
        start_min=start_min,
        truth=truth,
        naive=naive,
        value=stretch * (naive + forecast),
        stretch=stretch,
    )


COLUMNS = {  # memory of the noise in horizons, stretch, share of the interval that is known
    "1 horizon": (1.0, 1.0, 0.0),
    "1/8": (0.125, 1.0, 0.0),
    "1 candle": (0.0, 1.0, 0.0),
    f"x{STRETCH:g}, 1/5 known": (1.0, STRETCH, 0.2),
}
HARMLESS = 0.01  # share of the noise: it loses a ten-thousandth more than the naive forecast


def show_harmless(markets: int, services: Sequence[Service]) -> None:
    print(
        f"\nLive: champions as good as the naive forecast, demoted in their whole life, in % (stated: {LEVEL:.0%}); "
        f"{markets} a figure"
    )
    print(f"  {'horizon':26} {'looks':>5}  {'walk':8} {'noise':22} " + "".join(f"{name:>18}" for name in COLUMNS))
    found: list[tuple[float, float]] = []
    for service in services:
        for stormy in (False, True):
            for noise in Noise:
                cells = []
                for memory, stretch, known in COLUMNS.values():
                    made = [
                        answered(
                            service, noise, HARMLESS, seed, stormy=stormy, memory=memory, stretch=stretch, known=known
                        )
                        for seed in range(markets)
                    ]
                    rate = float(np.mean([one.demoted_after() is not None for one in made]))
                    cells.append((rate, 1.96 * (rate * (1 - rate) / markets) ** 0.5))
                found += cells
                print(
                    f"  {service.name:26} {len(made[0].rows):5}  {'stormy' if stormy else 'calm':8} {noise.value:22} "
                    + "".join(f"{100 * rate:12.1f} ± {100 * half:3.1f}" for rate, half in cells),
                    flush=True,
                )
    overall = float(np.mean([rate for rate, _ in found]))
    above = sum(rate - half > LEVEL for rate, half in found)
    print(
        f"  mean of all {100 * overall:.1f}; highest {100 * max(rate for rate, _ in found):.1f}; "
        f"surely above {LEVEL:.0%}: {above} of {len(found)}"
    )


def show_often(markets: int) -> None:
    service = SERVICES[0]
    made = [answered(service, Noise.UNRELATED, HARMLESS, seed, stormy=False) for seed in range(markets)]
    often = float(np.mean([one.demoted_if_asked_often() for one in made]))
    print(f"  a test of {LEVEL:.0%} at every hour instead, {service.name}: {100 * often:.0f} % of {markets}")


def show_harm(champions: int) -> None:
    shares = (0.05, 0.1, 0.2, 0.3, 0.5)
    print(f"\nLive: champions that are noise, by how much worse than naive they truly are; {champions} a figure")
    print("  demoted in % within a day and within a week by what they answered")
    print(f"  {'horizon':26} " + "".join(f"{share**2:>14.2%}" for share in shares))
    for name, stretch, known in (("", 1.0, 0.0), (f", x{STRETCH:g}, 1/5 known", STRETCH, 0.2)):
        for service in SERVICES[:4]:
            cells = []
            for share in shares:
                after = [
                    answered(
                        service, Noise.UNRELATED, share, seed, stormy=False, stretch=stretch, known=known
                    ).demoted_after()
                    for seed in range(champions)
                ]
                day, week = (
                    100 * float(np.mean([one is not None and one <= days * DAY_MS // MINUTE_MS for one in after]))
                    for days in (1, 7)
                )
                cells.append(f"{day:8.0f} {week:4.0f} ")
            print(f"  {service.name + name:26} " + "".join(cells), flush=True)


def show_live(quick: bool) -> None:
    """Print all figures."""
    print(f"\nThe first look comes with {LEAST_HORIZONS} horizons of answers")
    show_harmless(60 if quick else 600, SERVICES[:2] if quick else SERVICES)
    show_often(40 if quick else 200)
    show_harm(20 if quick else 100)
