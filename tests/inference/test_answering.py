"""Which forecast answers, by the state of the market and of the models; no network, no threads."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from core.clock import HOUR_MS, MINUTE_MS, iso
from core.errors import StaleKlines, UnusableForecast
from core.settings import NoModelPolicy, Objective
from core.topic import Target, Topic
from inference.answering import InferenceService
from inference.base import ASKED_ONLY, Bases
from inference.forecast_cache import ForecastCache, rows_to_keep
from inference.stretches import Stretches
from klines.klines import Klines
from ledger.answer_log import Ledger
from ledger.answers import Answer
from market.live.live_market import opening_of
from market.price_ratio import PriceRatio
from market.venue import Opening, Price
from model.answer import carried
from model.features import rows_needed
from model.panels import HOUR, LONGEST_LOOKBACK, MINUTE, SHORTEST_LOOKBACK, Panel
from model.registry.champions import Champion
from model.registry.versions import Registry
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.inference.stand import BTC_8H, ETH_10M, SOL_15M, TOPICS, limits, publish, topic

LOG_RETURN_10M = replace(ETH_10M, topic_id=3, target=Target.LOG_RETURN)
ASKED = (ETH_10M, LOG_RETURN_10M, SOL_15M, BTC_8H)


@dataclass
class Still:
    """A market that stands still until the test moves it."""

    series: dict[int, dict[str, Klines]] = field(default_factory=dict)
    prices: dict[str, Price] = field(default_factory=dict)
    stream_fault: str = ""
    before: dict[tuple[str, int], Price] = field(default_factory=dict)  # the last price before a moment
    venue_of: dict[int, str] = field(default_factory=dict)  # by opening time of a candle; absent: the only venue

    def snapshot(self, interval_ms: int) -> Mapping[str, Klines]:
        return dict(self.series[interval_ms])

    def anchor(self, symbol: str) -> Price | None:
        return self.prices.get(symbol)

    def opening(self, symbol: str, since_ms: int) -> Opening | None:
        return opening_of(self.series[MINUTE_MS][symbol], since_ms, lambda open_ms: self.venue_of.get(open_ms, ""))

    def last_before(self, symbol: str, moment_ms: int) -> Price | None:
        return self.before.get((symbol, moment_ms))

    def kline_fault(self, symbol: str, interval_ms: int) -> str:
        return ""

    def price_fault(self, symbol: str) -> str:
        return ""

    def source(self, symbol: str, interval_ms: int) -> str:
        return "binance"


@dataclass
class Scored:
    """A truth venue whose prices are so much higher; nothing is known of other symbols."""

    ratios: dict[str, float] = field(default_factory=dict)

    def ratio(self, symbol: str, now_ms: int) -> PriceRatio | None:
        value = self.ratios.get(symbol)
        return PriceRatio(value=value, flow=1.0, rows=60, newest_ms=now_ms, spread=0.0) if value else None

    def fault(self, symbol: str) -> str:
        return "" if symbol in self.ratios else "unknown"


class Bench:
    """A service over a market that stands still. Its thread is not started: the test says when it looks."""

    def __init__(
        self,
        folder: Path,
        policy: NoModelPolicy,
        registry: type[Registry] = Registry,
        asked: Sequence[Topic] = ASKED,
        bases: Bases = ASKED_ONLY,
        stretches: Stretches | None = None,
    ) -> None:
        self.rows = {key[1]: count for key, count in rows_to_keep(TOPICS).items()}
        self.clock = FakeClock(START_MS + 30 * MINUTE_MS + 10_000)
        self.registry = registry(folder)
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite3'}", asked, "BINANCE", self.clock, folder)
        self.market = Still()
        self.truth = Scored()
        self.forecasts = ForecastCache(asked, self.market, self.registry, self.clock)
        self.service = InferenceService(
            self.forecasts,
            asked,
            self.market,
            self.ledger,
            self.clock,
            limits=limits(policy),
            market="BINANCE",
            bases=bases,
            stretches=stretches or Stretches(Objective.LOSS, folder),
            truth=self.truth,
        )
        self.fill()
        self.tell()

    def fill(self) -> None:
        """Fresh candles and prices as of now."""
        now_ms = self.clock.now_ms()
        for interval_ms, rows in self.rows.items():
            start_ms = now_ms // interval_ms * interval_ms - rows * interval_ms
            self.market.series[interval_ms] = {
                symbol: random_walk_klines(rows, interval_ms, seed=n, start_ms=start_ms)
                for n, symbol in enumerate(("BTCUSDT", "ETHUSDT", "SOLUSDT"))
            }
        self.price(2000.0)

    def price(self, price: float) -> None:
        asof_ms = self.clock.now_ms() - 500
        self.market.prices = dict.fromkeys(("BTCUSDT", "ETHUSDT", "SOLUSDT"), Price(price=price, asof_ms=asof_ms))

    def cut(self, symbol: str, keep: Callable[[Klines], Klines]) -> None:
        """Change one symbol's minute candles, and tell the service."""
        series = self.market.series[MINUTE_MS]
        series[symbol] = keep(series[symbol])
        self.forecasts.candles_closed(MINUTE_MS)

    def close(self) -> None:
        self.ledger.close()

    def infer(self, topic_id: int, token: str, height: int | None, network: str | None = None) -> Answer:
        return self.service.answer(self.service.questions.topic(token, topic_id, network), height)

    def tell(self) -> None:
        """Candles of both panels have closed."""
        for interval_ms in self.market.series:
            self.forecasts.candles_closed(interval_ms)

    def promote(self, output: float, *topics: Topic, panel: Panel = MINUTE) -> str:
        version = publish(self.registry, output, self.clock.now_ms(), panel)
        self.registry.promote(topics, version, self.clock.now_ms())
        self.forecasts.choose()
        return version


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with closing(Bench(tmp_path, NoModelPolicy.PERSISTENCE)) as bench:
        yield bench


def hole(klines: Klines) -> Klines:
    middle = klines.end_ms - 20 * klines.interval_ms
    return klines.between(0, middle).merge(klines.between(middle + klines.interval_ms, 2**62))


def test_rows_kept_are_what_forecasts_read() -> None:
    rows = rows_to_keep(TOPICS)
    assert set(rows) == {
        ("BTCUSDT", MINUTE_MS),  # the leader, though no topic of the minute panel asks for it
        ("ETHUSDT", MINUTE_MS),
        ("SOLUSDT", MINUTE_MS),
        ("BTCUSDT", HOUR_MS),
        ("ETHUSDT", HOUR_MS),
    }
    needed = {panel.interval_ms: rows_needed(panel) for panel in (MINUTE, HOUR)}
    assert all(count > needed[interval_ms] for (_, interval_ms), count in rows.items())
    assert all(
        count >= rows_needed((MINUTE if interval_ms == MINUTE_MS else HOUR).reading(LONGEST_LOOKBACK))
        for (_, interval_ms), count in rows.items()
    )
    long = rows_to_keep([topic(9, "ETH", 7 * 24 * 60, Target.VOLATILITY)])
    assert long.pop(("ETHUSDT", MINUTE_MS)) == 180  # minutes say how an interval began, whatever its panel
    assert min(long.values()) > max(rows_needed(HOUR), 7 * 24)


@pytest.mark.parametrize("lookback", [SHORTEST_LOOKBACK, LONGEST_LOOKBACK])
@pytest.mark.parametrize(("panel", "asked"), [(MINUTE, SOL_15M), (HOUR, BTC_8H)], ids=["minute", "hour"])
def test_a_champion_of_any_lookback_answers_from_the_klines_that_are_kept(
    bench: Bench, panel: Panel, asked: Topic, lookback: int
) -> None:
    version = bench.promote(0.1, asked, panel=panel.reading(lookback))
    assert bench.service.answer(asked, None).version == version


def test_before_champions_are_read_there_is_no_answer_that_could_be_the_wrong_one(bench: Bench) -> None:
    with pytest.raises(StaleKlines, match="starting"):
        bench.infer(1, "ETH", None)
    bench.forecasts.choose()
    assert bench.infer(1, "ETH", None).version == "persistence"


def test_a_champion_put_to_use_between_two_candles_reads_the_candles_that_closed_together(bench: Bench) -> None:
    bench.forecasts.choose()
    bench.market.series[MINUTE_MS]["BTCUSDT"] = Klines.empty(MINUTE_MS)  # the next candles are just coming in
    version = bench.promote(0.5, ETH_10M)
    assert bench.infer(1, "ETH", None).version == version


def test_persistence_is_the_newest_price_no_return_and_the_last_volatility(bench: Bench) -> None:
    bench.forecasts.choose()
    bench.price(2010.0)
    assert bench.infer(1, "ETH", None).value == "2010.0"
    assert bench.infer(3, "ETH", None).value == "0"
    assert float(bench.infer(82, "SOL", None).value) > 0


def test_a_price_moves_with_the_anchor_and_a_return_does_not(bench: Bench) -> None:
    version = bench.promote(0.5, ETH_10M, LOG_RETURN_10M)
    move = float(bench.infer(3, "ETH", None).value)
    assert move > 0
    for price in (2000.0, 2022.0):
        bench.price(price)
        answer = bench.infer(1, "ETH", None)
        assert (answer.version, answer.anchor) == (version, price)
        assert float(answer.value) == pytest.approx(price * math.exp(move), rel=1e-12)
        assert float(bench.infer(3, "ETH", None).value) == move


def test_a_price_is_told_at_the_level_it_is_scored_at_and_nothing_else_is(bench: Bench) -> None:
    bench.forecasts.choose()
    before = {asked.key: bench.infer(asked.topic_id, asked.token, None) for asked in ASKED}
    bench.truth.ratios = {"ETHUSDT": 1.0005}
    for asked in ASKED:
        after = bench.infer(asked.topic_id, asked.token, None)
        moved = asked.target is Target.PRICE and asked.symbol == "ETHUSDT"
        factor = 1.0005 if moved else 1.0
        assert float(after.value) == pytest.approx(float(before[asked.key].value) * factor, rel=1e-12)
        assert after.truth_ratio == factor
        assert after.anchor == before[asked.key].anchor
        assert (b"x-truth-ratio" in dict(after.headers(after.answered_ms))) is moved
        unknown = asked.target is Target.PRICE and asked.symbol != "ETHUSDT"
        assert bench.service.truth_fault(asked) == ("unknown" if unknown else "")


def test_the_first_answer_to_a_height_stands(bench: Bench) -> None:
    bench.forecasts.choose()
    first = bench.infer(1, "ETH", 5)
    bench.price(2050.0)
    assert bench.infer(1, "ETH", 5) is first
    assert bench.infer(1, "ETH", 6).value == "2050.0"


def test_an_answer_is_given_again_while_its_nonce_may_be_open_and_then_no_more(bench: Bench) -> None:
    bench.forecasts.choose()
    first = bench.infer(1, "ETH", 5)
    bench.clock.sleep(2 * 3600)
    assert bench.infer(1, "ETH", 5) is first
    for seconds in (1, 24 * 3600, -48 * 3600):  # in the end the clock is set back to before it was given
        bench.clock.sleep(seconds)
        bench.fill()
        bench.tell()
        with pytest.raises(UnusableForecast, match=f"height 5 was answered {iso(first.answered_ms)}"):
            bench.infer(1, "ETH", 5)
        assert bench.infer(1, "ETH", None).value == "2000.0"


def too_old(bench: Bench) -> None:
    bench.promote(0.5, ETH_10M)
    bench.clock.sleep(169 * 3600)
    bench.fill()
    bench.tell()


@pytest.mark.parametrize("policy", NoModelPolicy)
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(lambda b: b.cut("ETHUSDT", hole), "missing between", id="hole in the window"),
        pytest.param(lambda b: b.cut("BTCUSDT", hole), "klines of BTCUSDT are missing", id="hole in the leader's"),
        pytest.param(lambda b: b.cut("ETHUSDT", lambda k: k.tail(100)), "100 klines", id="short history"),
        pytest.param(too_old, "MAX_MODEL_AGE_H", id="too old a champion"),
    ],
)
def test_a_champion_that_cannot_answer_is_persistence_or_refused(
    tmp_path: Path, policy: NoModelPolicy, spoil: Callable[[Bench], None], reason: str
) -> None:
    with closing(Bench(tmp_path, policy)) as bench:
        spoil(bench)
        if spoil is not too_old:
            bench.promote(0.5, ETH_10M)
        assert reason in bench.service.instead_of_champion(ETH_10M)
        if policy is NoModelPolicy.PERSISTENCE:
            answer = bench.infer(1, "ETH", 7)
            assert (answer.version, answer.value) == ("persistence", "2000.0")
            return
        with pytest.raises(UnusableForecast, match=reason) as caught:
            bench.infer(1, "ETH", 7)
        assert "NO_MODEL_POLICY" in str(caught.value)


def test_a_symbol_left_out_once_is_answered_from_the_window_before_until_that_is_too_old(bench: Bench) -> None:
    version = bench.promote(0.5, ETH_10M)
    before = bench.infer(1, "ETH", None)
    bench.clock.sleep(60)
    bench.fill()
    bench.cut("BTCUSDT", lambda k: k.tail(0))
    still = bench.infer(1, "ETH", None)
    assert (still.version, still.asof_ms) == (version, before.asof_ms)


@pytest.mark.parametrize("policy", NoModelPolicy)
@pytest.mark.parametrize(
    ("asked", "age_s", "fresh"),
    [
        pytest.param(ETH_10M, 29, True, id="price, anchor just fresh"),
        pytest.param(ETH_10M, 31, False, id="price, anchor stale"),
        pytest.param(LOG_RETURN_10M, 160, True, id="return, candles just fresh"),
        pytest.param(LOG_RETURN_10M, 200, False, id="return, candles stale"),
        pytest.param(SOL_15M, 200, False, id="volatility, candles stale"),
        pytest.param(BTC_8H, 1900, True, id="hourly candle just fresh"),
        pytest.param(BTC_8H, 2000, False, id="hourly candle stale"),
    ],
)
def test_a_stale_market_is_refused_under_either_policy(
    tmp_path: Path, policy: NoModelPolicy, asked: Topic, age_s: int, fresh: bool
) -> None:
    with closing(Bench(tmp_path, policy)) as bench:
        minute = publish(bench.registry, 0.1, bench.clock.now_ms())
        hour = publish(bench.registry, 0.1, bench.clock.now_ms(), HOUR)
        bench.registry.promote([ETH_10M, LOG_RETURN_10M, SOL_15M], minute, bench.clock.now_ms())
        bench.registry.promote([BTC_8H], hour, bench.clock.now_ms())
        bench.forecasts.choose()
        bench.clock.sleep(age_s)
        assert (asked.key not in bench.service.not_ready()) is fresh
        if fresh:
            assert bench.service.answer(asked, 5).version in {minute, hour}
            return
        with pytest.raises(StaleKlines, match=r"MAX_(ANCHOR|KLINE)_AGE_S"):
            bench.service.answer(asked, 5)


@pytest.mark.parametrize("asked", [pytest.param(t, id=str(t.target)) for t in (ETH_10M, LOG_RETURN_10M, SOL_15M)])
@pytest.mark.parametrize(
    ("back_s", "fresh"),
    [pytest.param(5, True, id="corrected a little"), pytest.param(20, False, id="set back")],
)
def test_what_lies_in_the_future_is_not_fresh(bench: Bench, asked: Topic, back_s: int, fresh: bool) -> None:
    version = bench.promote(0.1, *ASKED[:3])
    bench.clock.sleep(-10 - back_s)  # candles closed ten seconds ago, the price is half a second old
    if fresh:
        bench.price(2000.0)
        assert bench.service.answer(asked, 5).version == version
        return
    with pytest.raises(StaleKlines, match=r"newest candle .* clock was set back"):
        bench.service.answer(asked, 5)


def test_a_price_of_the_future_is_refused_or_not_told(bench: Bench) -> None:
    bench.forecasts.choose()
    bench.clock.sleep(-8)
    with pytest.raises(StaleKlines, match=r"newest price .* clock was set back"):
        bench.service.answer(ETH_10M, 5)
    answer = bench.service.answer(LOG_RETURN_10M, 5)
    assert answer.anchor_asof_ms == answer.asof_ms


def test_a_forecast_from_candles_of_the_future_is_not_the_champions(bench: Bench) -> None:
    bench.promote(0.1, ETH_10M)
    bench.clock.sleep(-60)
    bench.fill()
    bench.cut("BTCUSDT", lambda k: k.tail(0))  # so the forecast by the old time stays
    assert "clock was set back" in bench.service.instead_of_champion(ETH_10M)
    assert bench.infer(1, "ETH", None).version == "persistence"


def test_an_absurd_forecast_is_refused_and_not_remembered(bench: Bench) -> None:
    bench.promote(100.0, ETH_10M)
    with pytest.raises(UnusableForecast, match="sane is"):
        bench.infer(1, "ETH", 5)
    version = bench.promote(0.5, ETH_10M)
    assert bench.infer(1, "ETH", 5).version == version


def test_topics_of_one_panel_may_have_different_champions(bench: Bench) -> None:
    up, down = bench.promote(0.5, ETH_10M), bench.promote(-0.5, LOG_RETURN_10M)
    answers = bench.infer(1, "ETH", None), bench.infer(3, "ETH", None)
    assert [answer.version for answer in answers] == [up, down]
    assert float(answers[0].value) > 2000
    assert float(answers[1].value) < 0
    assert bench.service.versions() == {"persistence", up, down}


def test_a_version_that_could_not_be_read_is_tried_again(bench: Bench) -> None:
    version = publish(bench.registry, 0.5, bench.clock.now_ms())
    bench.registry.promote([ETH_10M], version, bench.clock.now_ms())
    away = bench.registry.path(version).rename(bench.registry.root / "away")
    bench.forecasts.choose()
    assert bench.infer(1, "ETH", None).version == "persistence"
    assert version in bench.service.instead_of_champion(ETH_10M)
    away.rename(bench.registry.path(version))
    bench.clock.sleep(31)
    bench.fill()
    bench.forecasts.choose()
    assert bench.infer(1, "ETH", None).version == version


class Short(Registry):
    """A registry on a machine that is short of memory, until it is not."""

    short_of = ""

    def path(self, version: str) -> Path:
        if self.short_of == "path":
            raise MemoryError("for the network")
        return super().path(version)

    def champions(self) -> dict[str, Champion]:
        if self.short_of == "champions":
            raise MemoryError("for the list")
        return super().champions()


@pytest.mark.parametrize("short_of", ["path", "champions"])
def test_a_fault_nobody_expected_is_shown_and_tried_again(tmp_path: Path, short_of: str) -> None:
    with closing(Bench(tmp_path, NoModelPolicy.PERSISTENCE, Short)) as bench:
        registry = bench.registry
        assert isinstance(registry, Short)
        good = bench.promote(0.25, ETH_10M)
        version = publish(registry, 0.5, bench.clock.now_ms())
        registry.promote([ETH_10M], version, bench.clock.now_ms())
        registry.short_of = short_of
        bench.forecasts.choose()
        state = bench.service.state(ETH_10M)
        assert state
        assert "MemoryError: for the" in state.fault
        assert bench.infer(1, "ETH", None).version == good
        registry.short_of = ""
        bench.clock.sleep(31)
        bench.fill()
        bench.forecasts.choose()
        assert bench.infer(1, "ETH", None).version == version


def test_a_volatility_learns_from_the_newest_price(bench: Bench) -> None:
    bench.promote(0.0, SOL_15M)
    now_ms = bench.clock.now_ms()
    close = float(bench.market.series[MINUTE_MS]["SOLUSDT"].close[-1])

    def answered(price: float) -> float:
        bench.market.prices = {"SOLUSDT": Price(price=price, asof_ms=now_ms - 500)}
        return bench.service.make(SOL_15M, now_ms).number

    calm, moved = (answered(close * factor) for factor in (1.0, 1.01))
    bench.market.prices = {}
    unmoved = bench.service.make(SOL_15M, now_ms).number
    assert calm < unmoved < moved, "ten seconds without a move are less than was expected"


def test_a_forecast_that_is_older_than_the_newest_candle_is_carried_from_its_own_close(bench: Bench) -> None:
    bench.promote(0.0, SOL_15M)
    before = bench.service.state(SOL_15M)
    assert before
    assert before.forecast
    series, asof_ms = bench.market.series[MINUTE_MS], before.klines_end_ms
    last = series["SOLUSDT"].tail(1)
    newest = replace(last, open_time_ms=last.open_time_ms + MINUTE_MS)
    bench.clock.sleep(60)
    bench.cut("SOLUSDT", lambda klines: klines.merge(newest))  # the leader has none: no window can be cut
    state = bench.service.state(SOL_15M)
    assert state
    assert state.forecast == before.forecast
    assert state.klines_end_ms == asof_ms + MINUTE_MS
    close, now_ms = float(last.close[0]), bench.clock.now_ms()
    bench.market.prices = {"SOLUSDT": Price(price=close * 1.002, asof_ms=now_ms - 500)}
    expected = carried(before.forecast, close, close * 1.002, now_ms - 500 - asof_ms)
    assert expected.volatility != before.forecast.volatility
    assert expected.volatility
    assert bench.service.make(SOL_15M, now_ms).number == expected.volatility * SOL_15M.unit
