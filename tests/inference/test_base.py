"""When an interval begins, what is known of it, and how long its question is held."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from admission.readiness import FILE, Days, Readiness, Standing, write_admission
from chain.follower import Block
from core.clock import MINUTE_MS, SECOND_MS
from core.errors import StaleKlines
from core.settings import BaseRule, NoModelPolicy, Objective
from core.topic import Target
from inference.base import Asked, Base, Bases, BaseSource
from inference.stretches import Stretches
from inference.waits import TooEarly, Waits
from klines.returns import realised_volatility
from market.venue import Price
from model.stretch import Stretch
from node.dry_run_heights import BLOCK_MS, block_height
from tests.fakes.clock import START_MS
from tests.inference.stand import ETH_10M, SOL_15M
from tests.inference.test_answering import Bench

NETWORK = ETH_10M.network
RETURN_10M = replace(ETH_10M, topic_id=3, target=Target.LOG_RETURN)
NONCE = 7_000_000  # a height such as a real chain's
NONCE_MS = START_MS + 30 * MINUTE_MS + 59_000


@dataclass
class KnownChain:
    """A chain whose blocks and windows the test sets."""

    times: dict[int, int] = field(default_factory=lambda: {NONCE: NONCE_MS})
    newest: Block | None = field(default_factory=lambda: Block(height=NONCE, time_ms=NONCE_MS))
    block_ms: float | None = 5_000.0
    ends: dict[int, int] = field(default_factory=dict)

    def time_of(self, height: int) -> int | None:
        return self.times.get(height)

    def window_end(self, topic_id: int, height: int) -> int | None:
        return self.ends.get(height)


def bases(chain: KnownChain | None = None, rule: BaseRule = BaseRule.MINUTE) -> Bases:
    return Bases(rule=rule, node_delay_ms=4_000, chains={NETWORK: chain} if chain else {})


ASKED_MS = NONCE_MS + 3_000  # in the next minute


def test_the_base_is_the_nonce_block_s_time_cut_down_to_the_minute() -> None:
    base = bases(KnownChain()).of(ETH_10M, NONCE, ASKED_MS, ASKED_MS, may_wait=True)
    assert base == Base(ms=START_MS + 30 * MINUTE_MS, source=BaseSource.CHAIN, block_ms=NONCE_MS)


def test_a_block_of_the_minute_that_our_clock_has_yet_to_begin_is_its_base() -> None:
    chain = KnownChain(times={NONCE: START_MS + 500})
    base = bases(chain).of(ETH_10M, NONCE, START_MS - 400, START_MS - 300, may_wait=True)
    assert base == Base(ms=START_MS, source=BaseSource.CHAIN, block_ms=START_MS + 500)


def test_without_a_chain_it_is_guessed_from_the_asking() -> None:
    base = bases().of(ETH_10M, NONCE, ASKED_MS, ASKED_MS, may_wait=True)
    assert base == Base(ms=START_MS + 30 * MINUTE_MS, source=BaseSource.GUESS)


def test_a_height_of_the_dry_run_node_tells_its_time() -> None:
    height = block_height(ASKED_MS) - 1
    base = bases().of(ETH_10M, height, ASKED_MS, ASKED_MS, may_wait=True)
    block_ms = height * BLOCK_MS
    assert base == Base(ms=block_ms // MINUTE_MS * MINUTE_MS, source=BaseSource.DRY_RUN, block_ms=block_ms)


@pytest.mark.parametrize(
    ("ago_ms", "source"),
    [(4 * MINUTE_MS, BaseSource.DRY_RUN), (6 * MINUTE_MS, BaseSource.GUESS), (-MINUTE_MS, BaseSource.GUESS)],
)
def test_only_heights_of_the_last_five_minutes_are_the_dry_run_node_s(ago_ms: int, source: BaseSource) -> None:
    asked = replace(ETH_10M, horizon_min=60)
    assert bases().of(asked, block_height(ASKED_MS - ago_ms), ASKED_MS, ASKED_MS, may_wait=True).source is source


@pytest.mark.parametrize("above", [1, 3])
def test_a_height_just_above_the_newest_is_waited_for_three_seconds(above: int) -> None:
    rule = bases(KnownChain())
    with pytest.raises(StaleKlines, match="awaited"):
        rule.of(ETH_10M, NONCE + above, ASKED_MS, ASKED_MS + 2_900, may_wait=True)
    assert rule.of(ETH_10M, NONCE + above, ASKED_MS, ASKED_MS + 3_000, may_wait=True).source is BaseSource.GUESS
    assert rule.of(ETH_10M, NONCE + above, ASKED_MS, ASKED_MS, may_wait=False).source is BaseSource.GUESS


@pytest.mark.parametrize(
    ("height", "chain"),
    [
        pytest.param(NONCE + 4, KnownChain(), id="far above the newest"),
        pytest.param(NONCE - 5_000, KnownChain(), id="hours old"),
        pytest.param(NONCE, KnownChain(times={NONCE: ASKED_MS + MINUTE_MS}), id="a time that is not yet"),
        pytest.param(NONCE, KnownChain(times={}, newest=None), id="nothing known"),
    ],
)
def test_what_the_chain_does_not_tell_is_guessed(height: int, chain: KnownChain) -> None:
    assert bases(chain).of(ETH_10M, height, ASKED_MS, ASKED_MS, may_wait=True).source is BaseSource.GUESS


@pytest.mark.parametrize(("horizon_min", "age_min"), [(60, 10), (10, 5), (4, 2)])
def test_an_old_base_gives_way_to_the_answer_s_own_moment(horizon_min: int, age_min: int) -> None:
    asked = replace(ETH_10M, horizon_min=horizon_min)
    base_ms = NONCE_MS // MINUTE_MS * MINUTE_MS
    for late_ms, source in ((0, BaseSource.CHAIN), (1, BaseSource.ASKED)):
        now_ms = base_ms + age_min * MINUTE_MS + late_ms
        found = bases(KnownChain()).of(asked, NONCE, now_ms, now_ms, may_wait=True)
        assert (found.source, found.block_ms) == (source, NONCE_MS)


@pytest.mark.parametrize(
    ("height", "rule", "own"),
    [(None, BaseRule.MINUTE, None), (NONCE, BaseRule.ASKED, None), (NONCE, BaseRule.MINUTE, "asked")],
)
def test_the_rule_asked_begins_with_the_answer(height: int | None, rule: BaseRule, own: str | None) -> None:
    found = bases(KnownChain(), rule).of(replace(ETH_10M, base=own), height, ASKED_MS, ASKED_MS + 7, may_wait=True)
    assert found == Base(ms=ASKED_MS + 7, source=BaseSource.ASKED)


# --- what is known ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    asked = (ETH_10M, RETURN_10M, SOL_15M)
    with closing(Bench(tmp_path, NoModelPolicy.PERSISTENCE, asked=asked, bases=bases())) as bench:
        bench.clock.sleep(62)  # the interval began 72 s ago, its first minute has closed
        bench.fill()
        bench.tell()
        bench.forecasts.choose()
        yield bench


def height_of(bench: Bench, elapsed_ms: int) -> int:
    """A height of the dry-run node whose interval began so long ago."""
    return (bench.clock.now_ms() - elapsed_ms) // MINUTE_MS * MINUTE_MS // BLOCK_MS


def close_at(bench: Bench, symbol: str, moment_ms: int) -> float:
    klines = bench.market.series[MINUTE_MS][symbol]
    return float(klines.close[np.searchsorted(klines.open_time_ms, moment_ms - MINUTE_MS)])


def test_a_return_knows_how_its_interval_began(bench: Bench) -> None:
    now_ms = bench.clock.now_ms()
    base_ms = now_ms // MINUTE_MS * MINUTE_MS - MINUTE_MS
    start = close_at(bench, "ETHUSDT", base_ms)
    bench.market.prices["ETHUSDT"] = Price(price=start * 1.002, asof_ms=now_ms - 400)
    given = bench.service.answer(RETURN_10M, base_ms // BLOCK_MS)
    assert float(given.value) == pytest.approx(math.log(1.002), rel=1e-12)
    assert (given.base_ms, given.base_source, given.block_ms) == (base_ms, "dry_run", base_ms)
    assert given.elapsed_ms == now_ms - 400 - base_ms
    headers = dict(given.headers(now_ms))
    assert headers[b"x-elapsed-ms"] == b"%d" % given.elapsed_ms
    assert headers[b"x-base-source"] == b"dry_run"


def test_a_return_s_forecast_counts_for_the_rest(bench: Bench) -> None:
    bench.promote(0.5, RETURN_10M)
    now_ms = bench.clock.now_ms()
    base_ms = now_ms // MINUTE_MS * MINUTE_MS - MINUTE_MS
    start = close_at(bench, "ETHUSDT", base_ms)
    bench.market.prices["ETHUSDT"] = Price(price=start * 1.002, asof_ms=now_ms - 400)
    whole = float(bench.service.answer(RETURN_10M, None).value)
    given = bench.service.answer(RETURN_10M, base_ms // BLOCK_MS)
    left = 1 - given.elapsed_ms / RETURN_10M.horizon_ms
    assert float(given.value) == pytest.approx(math.log(1.002) + whole * left, rel=1e-12)


def test_a_price_of_another_venue_ends_no_known_move(bench: Bench) -> None:
    """The newest close of the base's venue does."""
    now_ms = bench.clock.now_ms()
    base_ms = now_ms // MINUTE_MS * MINUTE_MS - MINUTE_MS
    bench.market.prices["ETHUSDT"] = Price(price=2000.0 * 1.001, asof_ms=now_ms - 400, venue="kraken")
    start, close = (close_at(bench, "ETHUSDT", moment) for moment in (base_ms, base_ms + MINUTE_MS))
    given = bench.service.answer(RETURN_10M, base_ms // BLOCK_MS)
    assert float(given.value) == pytest.approx(math.log(close / start), rel=1e-12)
    assert given.elapsed_ms == MINUTE_MS


def test_a_candle_of_another_venue_ends_no_known_move(bench: Bench) -> None:
    now_ms = bench.clock.now_ms()
    base_ms = now_ms // MINUTE_MS * MINUTE_MS - MINUTE_MS
    bench.market.prices["ETHUSDT"] = Price(price=2000.0 * 1.001, asof_ms=now_ms - 400, venue="kraken")
    bench.market.venue_of = {base_ms: "kraken"}
    given = bench.service.answer(RETURN_10M, base_ms // BLOCK_MS)
    assert (float(given.value), given.elapsed_ms) == (0.0, 0)


def test_a_stale_price_does_not_hold_a_return(bench: Bench) -> None:
    bench.market.prices.clear()
    base_ms = bench.clock.now_ms() // MINUTE_MS * MINUTE_MS - MINUTE_MS
    start, close = (close_at(bench, "ETHUSDT", moment) for moment in (base_ms, base_ms + MINUTE_MS))
    assert float(bench.service.answer(RETURN_10M, base_ms // BLOCK_MS).value) == pytest.approx(math.log(close / start))


def test_a_late_candle_is_waited_for_then_the_last_trade_counts_then_the_asking(bench: Bench) -> None:
    now_ms = bench.clock.now_ms()
    base_ms = now_ms // MINUTE_MS * MINUTE_MS
    series = bench.market.series[MINUTE_MS]
    series["ETHUSDT"] = series["ETHUSDT"].between(0, base_ms - MINUTE_MS)  # the candle that closed at the base is late
    bench.forecasts.candles_closed(MINUTE_MS)
    height = base_ms // BLOCK_MS
    asked = Asked(ms=now_ms, may_hold=True)
    with pytest.raises(StaleKlines, match=r"candle of ETHUSDT that closed .* is awaited"):
        bench.service.answer(RETURN_10M, height, asked=asked)
    bench.clock.sleep(5)
    bench.price(2000.0)
    assert bench.service.make(
        RETURN_10M, bench.clock.now_ms(), Base(ms=base_ms, source=BaseSource.DRY_RUN), asked
    ).base.source is (BaseSource.ASKED)
    bench.market.before["ETHUSDT", base_ms] = Price(price=1999.0, asof_ms=base_ms - 300)
    given = bench.service.answer(RETURN_10M, height, asked=asked)
    assert float(given.value) == pytest.approx(math.log(2000 / 1999), rel=1e-12)
    assert (given.base_ms, given.base_source) == (base_ms, "dry_run")


def test_the_same_parts_make_no_new_number_and_another_part_does(bench: Bench) -> None:
    now_ms = bench.clock.now_ms()
    base = Base(ms=now_ms // MINUTE_MS * MINUTE_MS, source=BaseSource.DRY_RUN)

    def set_price(price: float, age_ms: int) -> None:
        bench.market.prices["ETHUSDT"] = Price(price=price, asof_ms=now_ms - age_ms)

    set_price(2000.0, 400)
    made = bench.service.make(RETURN_10M, now_ms, base)
    assert bench.service.make(RETURN_10M, now_ms + 50, base) is made
    minute_more = bench.service.make(RETURN_10M, now_ms, base._replace(ms=base.ms - MINUTE_MS))
    set_price(2000.0, 300)
    later = bench.service.make(RETURN_10M, now_ms, base)
    set_price(2001.0, 300)
    dearer = bench.service.make(RETURN_10M, now_ms, base)
    assert [one.elapsed_ms - made.elapsed_ms for one in (minute_more, later, dearer)] == [MINUTE_MS, 100, 100]
    assert dearer.number > later.number == made.number


def test_a_volatility_takes_the_known_minutes_as_they_were(bench: Bench) -> None:
    now_ms = bench.clock.now_ms()
    base_ms = now_ms // MINUTE_MS * MINUTE_MS - MINUTE_MS
    start, close = (close_at(bench, "SOLUSDT", moment) for moment in (base_ms, base_ms + MINUTE_MS))
    price = close * 1.001
    bench.market.prices["SOLUSDT"] = Price(price=price, asof_ms=now_ms - 400)
    naive = bench.service.make(SOL_15M, now_ms).forecast.volatility
    assert naive
    first, running, elapsed_ms = math.log(close / start), math.log(1.001), now_ms - 400 - base_ms
    rest = (15 - elapsed_ms / MINUTE_MS) * naive**2
    squares = first**2 + running**2 + rest
    expected = math.sqrt((squares - ((first + running) ** 2 + rest) / 15) / 14) * 15**0.5
    assert float(bench.service.answer(SOL_15M, base_ms // BLOCK_MS).value) == pytest.approx(expected, rel=1e-12)


def test_a_price_s_target_is_a_horizon_after_the_base(bench: Bench) -> None:
    bench.promote(0.5, ETH_10M)
    now_ms = bench.clock.now_ms()
    base_ms = now_ms // MINUTE_MS * MINUTE_MS - MINUTE_MS
    whole = math.log(float(bench.service.answer(ETH_10M, None).value) / 2000.0)
    given = bench.service.answer(ETH_10M, base_ms // BLOCK_MS)
    left = 1 - given.elapsed_ms / ETH_10M.horizon_ms
    assert math.log(float(given.value) / 2000.0) == pytest.approx(whole * left, rel=1e-9)


def test_a_hundred_questions_for_one_height_have_one_value(bench: Bench) -> None:
    height = height_of(bench, MINUTE_MS)
    given = set()
    for n in range(100):
        bench.price(2000.0 + n)
        bench.clock.sleep(0.01)
        given.add(bench.service.answer(RETURN_10M, height).value)
    assert len(given) == 1


# --- the stretch ------------------------------------------------------------------------------------------------------


def stretching(tmp_path: Path, objective: Objective, fitted: dict[str, dict[str, float]] | None = None) -> Bench:
    if fitted is not None:
        standing = Standing(
            eligible=False, known_s=60, days=Days(median=None, p90=None, never=1.0), holds=None, criteria={}
        )
        entries = {
            key: Readiness(
                network=NETWORK,
                topic_id=1,
                standing=standing,
                shown={},
                stretch=Stretch.from_json(stretch),
                objective="admission",
                short="more days",
            )
            for key, stretch in fitted.items()
        }
        write_admission(tmp_path, START_MS, entries)
    stretches = Stretches(objective, tmp_path)
    stretches.poll()
    asked = (ETH_10M, RETURN_10M, SOL_15M)
    bench = Bench(tmp_path, NoModelPolicy.PERSISTENCE, asked=asked, bases=bases(), stretches=stretches)
    bench.clock.sleep(62)
    bench.fill()
    bench.tell()
    bench.forecasts.choose()
    return bench


@pytest.mark.parametrize(
    ("objective", "own", "factor"),
    [
        (Objective.ADMISSION, None, 2.5),
        (Objective.AUTO, None, 2.5),  # a testnet's
        (Objective.LOSS, None, 1.0),
        (Objective.ADMISSION, "loss", 1.0),
        (Objective.LOSS, "admission", 2.5),
    ],
)
def test_a_return_is_stretched_by_its_topic_s_factor(
    tmp_path: Path, objective: Objective, own: str | None, factor: float
) -> None:
    with closing(stretching(tmp_path, objective, {RETURN_10M.key: {"factor": 2.5}})) as bench:
        base_ms = bench.clock.now_ms() // MINUTE_MS * MINUTE_MS - MINUTE_MS
        start = close_at(bench, "ETHUSDT", base_ms)
        bench.market.prices["ETHUSDT"] = Price(price=start * 1.002, asof_ms=bench.clock.now_ms() - 400)
        given = bench.service.answer(replace(RETURN_10M, objective=own), base_ms // BLOCK_MS)
        assert float(given.value) == pytest.approx(factor * math.log(1.002), rel=1e-12)


def test_a_price_is_stretched_about_the_base_s(tmp_path: Path) -> None:
    with closing(stretching(tmp_path, Objective.ADMISSION, {ETH_10M.key: {"factor": 2.0}})) as bench:
        base_ms = bench.clock.now_ms() // MINUTE_MS * MINUTE_MS - MINUTE_MS
        start = close_at(bench, "ETHUSDT", base_ms)
        bench.market.prices["ETHUSDT"] = Price(price=start * 1.002, asof_ms=bench.clock.now_ms() - 400)
        given = bench.service.answer(ETH_10M, base_ms // BLOCK_MS)
        assert float(given.value) == pytest.approx(start * 1.002**2, rel=1e-12)


def test_before_anything_was_fitted_the_known_time_says_how_far(tmp_path: Path) -> None:
    with closing(stretching(tmp_path, Objective.ADMISSION)) as bench:
        base_ms = bench.clock.now_ms() // MINUTE_MS * MINUTE_MS - MINUTE_MS
        start = close_at(bench, "ETHUSDT", base_ms)
        bench.market.prices["ETHUSDT"] = Price(price=start * 1.002, asof_ms=bench.clock.now_ms() - 400)
        given = bench.service.answer(RETURN_10M, base_ms // BLOCK_MS)
        factor = max(1.0, 0.33 * math.sqrt(10 / (given.elapsed_ms / MINUTE_MS)))
        assert float(given.value) == pytest.approx(factor * math.log(1.002), rel=1e-12)


def test_a_volatility_is_stretched_about_the_middle_beyond_the_trailing_fit(tmp_path: Path) -> None:
    fitted = {"factor": 1.5, "middle": 0.1, "intercept": 0.02, "slope": -0.4}
    with closing(stretching(tmp_path, Objective.ADMISSION, {SOL_15M.key: fitted})) as bench:
        base_ms = bench.clock.now_ms() // MINUTE_MS * MINUTE_MS - MINUTE_MS
        plain = bench.service.make(
            replace(SOL_15M, objective="loss"), bench.clock.now_ms(), Base(ms=base_ms, source=BaseSource.DRY_RUN)
        )
        klines = bench.market.series[MINUTE_MS]["SOLUSDT"].closed(base_ms)
        log = np.log(realised_volatility(klines, 15))
        dev = log[-1] - np.mean(log[-1 - 15 * np.arange(96)])  # a topic that the catalogue does not know: a horizon
        b = 0.02 - 0.4 * dev
        x = math.log(plain.number / 15**0.5) - log[-1] - b
        expected = math.exp(log[-1] + b + 0.1 + 1.5 * (x - 0.1)) * 15**0.5
        given = bench.service.answer(SOL_15M, base_ms // BLOCK_MS)
        assert float(given.value) == pytest.approx(expected, rel=1e-9)


def test_a_torn_file_of_stretches_leaves_those_in_use(tmp_path: Path) -> None:
    with closing(stretching(tmp_path, Objective.ADMISSION, {RETURN_10M.key: {"factor": 2.5}})) as bench:
        stretches = bench.service._stretches
        for content in ('{"topics": {"a": {"stretch": {"factor": 0.5}}}}', '{"topics": 3}', "[]", "{"):
            (tmp_path / FILE).write_text(content)
            stretches.poll()
            known = bench.service.make(RETURN_10M, bench.clock.now_ms())
            assert known.number == 0.0
            assert stretches.fitted[RETURN_10M.key].factor == 2.5


# --- how long ---------------------------------------------------------------------------------------------------------


def due_ms(waits: Waits, base: Base, *, now_ms: int, height: int = NONCE, topic: object = RETURN_10M) -> int | None:
    try:
        waits.check(topic, height, base, now_ms, now_ms)  # type: ignore[arg-type]
    except TooEarly as early:
        return early.due_ms
    return None


CHAIN_BASE = Base(ms=NONCE_MS // MINUTE_MS * MINUTE_MS, source=BaseSource.CHAIN, block_ms=NONCE_MS)
DRY_BASE = CHAIN_BASE._replace(source=BaseSource.DRY_RUN)


def waits(setting: str, chain: KnownChain | None = None, *, in_turn: bool = False) -> Waits:
    network = frozenset({NETWORK})
    return Waits(
        setting=setting,
        chains={NETWORK: chain} if chain else {},
        in_turn=network if in_turn else frozenset(),
    )


def test_the_latest_moment_that_lands_is_three_blocks_before_the_window_ends() -> None:
    chain = KnownChain(ends={NONCE: NONCE + 12}, block_ms=6_000.0)
    assert due_ms(waits("auto", chain), CHAIN_BASE, now_ms=ASKED_MS) == NONCE_MS + (12 - 3) * 6_000


def test_a_short_window_leaves_no_time_to_wait() -> None:
    assert due_ms(waits("auto", KnownChain(ends={NONCE: NONCE + 3})), CHAIN_BASE, now_ms=ASKED_MS) is None


def test_it_is_two_minutes_after_the_base_at_most() -> None:
    chain = KnownChain(ends={NONCE: NONCE + 600})
    assert due_ms(waits("auto", chain), CHAIN_BASE, now_ms=ASKED_MS) == CHAIN_BASE.ms + 120_000


def test_seconds_are_counted_from_the_base_and_end_with_the_window() -> None:
    chain = KnownChain(ends={NONCE: NONCE + 12})
    assert due_ms(waits("75.5", chain), CHAIN_BASE, now_ms=ASKED_MS) == CHAIN_BASE.ms + 75_500
    assert due_ms(waits("120", chain), CHAIN_BASE, now_ms=ASKED_MS) == NONCE_MS + 9 * 5_000
    assert due_ms(waits("30", chain), CHAIN_BASE, now_ms=CHAIN_BASE.ms + 31_000) is None


def test_a_window_that_is_not_known_yet_is_waited_for_three_seconds() -> None:
    rule = waits("auto", KnownChain())
    with pytest.raises(TooEarly):
        rule.check(RETURN_10M, NONCE, CHAIN_BASE, ASKED_MS, ASKED_MS + 2_000)
    rule.check(RETURN_10M, NONCE, CHAIN_BASE, ASKED_MS, ASKED_MS + 3_000)


@pytest.mark.parametrize("wait", ["60", "0.0"])
def test_a_moment_that_has_passed_is_not_waited_for_while_the_window_is_not_known(wait: str) -> None:
    assert due_ms(waits(wait, KnownChain()), CHAIN_BASE, now_ms=ASKED_MS) is None  # 62 s after the base
    assert due_ms(waits("62.1", KnownChain()), CHAIN_BASE, now_ms=ASKED_MS) == CHAIN_BASE.ms + 62_100


@pytest.mark.parametrize("setting", ["auto", "120"])
def test_no_answer_waits_until_its_base_is_too_old(setting: str) -> None:
    asked, chain = replace(RETURN_10M, horizon_min=3), KnownChain(ends={NONCE: NONCE + 60})
    due = due_ms(waits(setting, chain), CHAIN_BASE, now_ms=ASKED_MS, topic=asked)
    assert due is not None
    late_ms = due + 1_000  # woken late
    assert bases(chain).of(asked, NONCE, ASKED_MS, late_ms, may_wait=True) == CHAIN_BASE
    assert due_ms(waits(setting, chain), CHAIN_BASE, now_ms=ASKED_MS, topic=replace(asked, horizon_min=2)) is None


@pytest.mark.parametrize("source", [BaseSource.GUESS, BaseSource.ASKED])
def test_only_a_base_that_is_sure_is_worth_waiting_for(source: BaseSource) -> None:
    base = CHAIN_BASE._replace(source=source)
    assert due_ms(waits("60", KnownChain(ends={NONCE: NONCE + 60})), base, now_ms=ASKED_MS) is None


def test_a_node_that_may_not_wait_is_answered_at_once() -> None:
    rule, asked = waits("auto", KnownChain(ends={NONCE: NONCE + 60})), replace(RETURN_10M, held=False)
    assert due_ms(rule, CHAIN_BASE, now_ms=ASKED_MS, topic=asked) is None
    early_ms, own = CHAIN_BASE.ms + 40_000, replace(asked, wait="45")  # unless somebody has tried it
    assert due_ms(rule, CHAIN_BASE, now_ms=early_ms, topic=own) == CHAIN_BASE.ms + 45_000


def test_the_dry_run_node_s_window_is_known_without_a_chain() -> None:
    epoch = replace(RETURN_10M, epoch_length_blocks=12)
    rule = waits("auto")
    assert due_ms(rule, DRY_BASE, now_ms=ASKED_MS - MINUTE_MS, height=NONCE - 12, topic=epoch) is None
    assert due_ms(rule, DRY_BASE, now_ms=ASKED_MS, topic=epoch) == NONCE_MS + 12 * BLOCK_MS - 15 * SECOND_MS


def test_a_node_that_starts_its_topics_in_turn_is_not_held_after_a_silence() -> None:
    rule = waits("auto", KnownChain(ends={NONCE + n: NONCE + n + 60 for n in range(600)}), in_turn=True)
    asked = replace(RETURN_10M, epoch_length_blocks=60)  # five minutes
    assert due_ms(rule, CHAIN_BASE, now_ms=ASKED_MS, topic=asked) is None
    later = CHAIN_BASE._replace(ms=CHAIN_BASE.ms + 5 * MINUTE_MS, block_ms=NONCE_MS + 5 * MINUTE_MS)
    assert due_ms(rule, later, now_ms=ASKED_MS + 5 * MINUTE_MS, height=NONCE + 60, topic=asked) is not None
    last = CHAIN_BASE._replace(ms=CHAIN_BASE.ms + 20 * MINUTE_MS, block_ms=NONCE_MS + 20 * MINUTE_MS)
    assert due_ms(rule, last, now_ms=ASKED_MS + 20 * MINUTE_MS, height=NONCE + 240, topic=asked) is None
