"""From what is kept warm to an answer: forecasts made when candles close or champions change, looked up when asked."""

import math
import threading
from collections.abc import Iterable, Mapping
from typing import Protocol

import structlog

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, Clock, is_ahead, iso
from core.errors import StaleKlines, UnusableForecast, WorkerError
from core.seldom import Seldom
from core.settings import NoModelPolicy
from core.topic import Target, Topic
from inference.base import ASKED_ONLY, Asked, Base, Bases, BaseSource
from inference.champions import NOTHING as NONE_CHOSEN
from inference.champions import Champions, Chosen
from inference.memory import give_back_heap
from inference.question import NODE, Questions
from inference.stretches import Stretches, starts
from inference.topic_state import CLOCK_SET_BACK, Limits, MadeForecast, TopicState, known_of
from inference.waits import NO_WAITS, Waits
from klines.klines import Klines
from ledger.answer_log import Ledger
from ledger.answers import Answer
from market.listings import Listings
from market.price_ratio import Ratio
from market.venue import Opening, Price
from model.features import rows_needed
from model.forecaster import (
    ADDS_NOTHING,
    NAIVE,
    NETWORK,
    PERSISTENCE,
    UNKNOWN_START,
    BiRNNForecaster,
    Forecasts,
    HeadForecast,
    Naive,
    Reasons,
    Start,
    carried,
    value,
)
from model.heads import LONGEST_LOOKBACK, Head, head_of, panel_of, panels_for
from model.registry.versions import Registry
from model.stretch import NONE
from node.decimals import decimal_text
from node.dry_run_heights import BLOCK_MS, epoch_blocks

OPENING_ROWS = 180  # minutes kept of a symbol that is forecast from longer candles
CANDLE_AWAITED_MS = 5 * SECOND_MS  # a base's candle that is late
POLL_S = 0.5  # how often champions.json is looked at
# Kept beyond what a forecast counts: it bears holes of long ago, and so much may be missing before it is short of rows.
SPARE_MS = 25 * HOUR_MS
# A nonce's window is long over by then. Who asks later asked by hand before, or the chain began anew under its old id;
# the old price would reach it looking fresh.
RECALL_MS = 2 * HOUR_MS

log = structlog.get_logger()


class Market(Protocol):
    """What the service reads of the live market; none of it waits."""

    def snapshot(self, interval_ms: int) -> Mapping[str, Klines]: ...

    def anchor(self, symbol: str) -> Price | None: ...

    def opening(self, symbol: str, since_ms: int) -> Opening | None: ...

    def last_before(self, symbol: str, moment_ms: int) -> Price | None: ...

    def kline_fault(self, symbol: str, interval_ms: int) -> str: ...

    def price_fault(self, symbol: str) -> str: ...

    @property
    def stream_fault(self) -> str: ...

    def source(self, symbol: str, interval_ms: int) -> str: ...


class TruthRatios(Protocol):
    """What the service reads of the truth venue; it does not wait."""

    def ratio(self, symbol: str, now_ms: int) -> Ratio | None: ...

    def fault(self, symbol: str) -> str: ...


def rows_to_keep(topics: Iterable[Topic]) -> dict[tuple[str, int], int]:
    """How many klines of each (symbol, interval_ms) the answers to these topics read, whatever champions come: their
    networks may have any lookback. How an interval began is told by minutes, whatever candles forecast the rest."""
    rows: dict[tuple[str, int], int] = {}
    for panel, plan in panels_for(topics).items():
        longest = max(panel.steps(head) for head in plan.heads) + 1
        needed = max(rows_needed(panel.reading(LONGEST_LOOKBACK)), longest)
        for symbol in plan.symbols:
            rows[symbol, panel.interval_ms] = needed + SPARE_MS // panel.interval_ms
        for symbol in {topic.symbol for topic in plan.topics}:
            rows.setdefault((symbol, MINUTE_MS), OPENING_ROWS)
    return rows


class InferenceService:
    """Answers questions from memory.

    ``infer`` runs on the event loop and reads one immutable ``TopicState`` and one ``Price``, so what it answers is
    never half of one champion and half of another. Everything slow happens in ``candles_closed`` and in the thread
    that looks for champions.
    """

    def __init__(
        self,
        topics: Iterable[Topic],
        live: Market,
        registry: Registry,
        ledger: Ledger,
        clock: Clock,
        *,
        limits: Limits,
        market: str,
        bases: Bases = ASKED_ONLY,
        waits: Waits = NO_WAITS,
        stretches: Stretches | None = None,
        truth: TruthRatios | None = None,
        listings: Listings | None = None,
    ) -> None:
        self.questions = Questions(topics)
        self.ledger = ledger
        self.market_name = market
        self.limits = limits
        self._clock = clock
        self._live = live
        self._truth = truth
        self._listings = listings
        self._bases = bases
        self._waits = waits
        self._stretches = stretches
        self._naive = Naive()
        self._asked = {topic.key: topic.asked for topic in self.questions.topics}
        self._champions = Champions(registry, self.questions.topics, clock)
        self._chosen = NONE_CHOSEN
        self._chosen_once = False
        self._windows: dict[int, Mapping[str, Klines]] = {}  # by interval: the candles that were closed together
        self._forecasts: dict[str, tuple[Forecasts, Reasons]] = {}  # by version
        self._fallbacks: dict[tuple[str, Head], tuple[HeadForecast | None, str]] = {}  # naive, or why there is none
        self._states: Mapping[str, TopicState] = {}  # by Topic.key; replaced, never changed
        self._made: dict[
            str, tuple[tuple[object, ...], MadeForecast]
        ] = {}  # by Topic.key: the newest, and what it is made of
        newest = ((topic.key, ledger.newest(topic)) for topic in self.questions.topics)
        self._last = {key: answer for key, answer in newest if answer}  # by Topic.key
        self._forecasting = threading.Lock()  # candles against champions; a request never takes it
        self._stopping = threading.Event()
        self._seldom = Seldom()
        self._looking = threading.Thread(target=self._look_for_champions, name="champions", daemon=True)

    @property
    def topics(self) -> tuple[Topic, ...]:
        """The configured topics."""
        return self.questions.topics

    def start(self) -> None:
        """Begin to follow the registry, and to hold symbols against the venues' lists."""
        self._looking.start()
        if self._listings:
            self._listings.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the threads."""
        self._stopping.set()
        if self._listings:
            self._listings.stop()
        if self._looking.is_alive():
            self._looking.join(timeout_s)

    # Asked on the event loop.

    def infer(self, topic_id: int | None, token: str, height: int | None, network: str | None = None) -> Answer:
        """The answer to a question, at once; the same one whenever it is asked again.

        Args:
            topic_id: may be None where one topic has this token.
            token: as config.json names it.
            height: block height of the nonce; None is a question that is not remembered.
            network: chain id; may be None where one network has this topic id.
        Raises:
            BadQuestion: the question is wrong.
            StaleKlines, UnusableForecast: there is no answer now, and nothing is remembered; or there is one that was
                given too long ago, and there will be no other.
        """
        return self.answer(self.questions.topic(token, topic_id, network), height)

    def answer(self, topic: Topic, height: int | None, asker: str = NODE, asked: Asked | None = None) -> Answer:
        """``infer`` for a topic that is already known.

        Args:
            asker: NODE or HAND. The answer is the same; one that was asked for by hand is not ``last``.
            asked: when the question came, and what it may wait for; None: just now, and for nothing.
        Raises:
            as ``infer``; StaleKlines also where what the question may wait for is not there yet.
            TooEarly: the answer is worth waiting for.
        """
        self._refuse_another_pair(topic)  # nor is it answered again
        now_ms = self._clock.now_ms()
        if height is not None and (known := self.ledger.recall(topic, height)):
            if now_ms - known.answered_ms > RECALL_MS or is_ahead(known.answered_ms, now_ms):
                raise UnusableForecast(
                    f"topic {topic.key}: height {height} was answered {iso(known.answered_ms)}, not within the "
                    f"last {RECALL_MS // HOUR_MS} h, and gets no second answer; if the chain began anew, "
                    "move the ledger away"
                )
            self._told(topic, known, asker)
            return known
        asked = asked or Asked(ms=now_ms)
        base = self._bases.of(topic, height, asked.ms, now_ms, may_wait=asked.may_hold)
        if asked.may_wait and height is not None:
            self._waits.check(topic, height, base, asked.ms, now_ms)
        made = self._make(topic, now_ms, base, asked)
        answer = Answer(
            topic_id=topic.topic_id,
            height=height,
            network=topic.network or "",
            value=made.value,
            version=made.forecast.version,
            forecast=NAIVE if made.forecast.is_naive else NETWORK,
            symbol=topic.symbol,
            target=self._asked[topic.key],
            horizon_min=topic.horizon_min,
            anchor=made.anchor.price,
            anchor_asof_ms=made.anchor.asof_ms,
            asof_ms=made.forecast.asof_ms,
            answered_ms=now_ms,
            market=self.market_name,
            venue=made.anchor.venue,
            asked_ms=asked.ms,
            base_ms=made.base.ms,
            base_source=made.base.source.value,
            block_ms=made.base.block_ms,
            elapsed_ms=made.elapsed_ms,
            truth_ratio=made.truth_ratio,
        )
        standing = self.ledger.keep(answer)
        self._told(topic, standing, asker)
        return standing

    def _told(self, topic: Topic, answer: Answer, asker: str) -> None:
        if asker == NODE:
            self._last[topic.key] = answer

    def make(self, topic: Topic, now_ms: int, base: Base | None = None, asked: Asked | None = None) -> MadeForecast:
        """The number for a topic as of now, without giving it as an answer.

        Args:
            base: when the interval begins; None is now.
            asked: as for ``answer``.
        Raises:
            StaleKlines: market older than allowed. UnusableForecast: no forecast, one outside the sanity band, or a
                symbol that a venue lists as another pair.
        """
        self._refuse_another_pair(topic)
        return self._make(topic, now_ms, base or Base(ms=now_ms, source=BaseSource.ASKED), asked)

    def _make(self, topic: Topic, now_ms: int, base: Base, asked: Asked | None) -> MadeForecast:
        """``make`` for a symbol that no venue contradicts. What is as it was a moment ago makes the same number."""
        state = self._states.get(topic.key)
        if state is None:
            fault = self._kline_fault(topic)
            interval_ms = panel_of(topic.horizon_min).interval_ms
            starting = f"starting: no {interval_ms // MINUTE_MS}m candles of {topic.symbol} yet"
            raise StaleKlines(f"topic {topic.key}: {fault or starting}")
        anchor = self._anchor(state, now_ms)
        opening = self._opening(topic, base, asked, now_ms)
        if opening is None and topic.target is not Target.PRICE and base.source is not BaseSource.ASKED:
            base = Base(ms=now_ms, source=BaseSource.ASKED, block_ms=base.block_ms)
        forecast, reason = self._forecast(state, now_ms)
        ratio = self.truth_ratio(topic, now_ms)
        scored = ratio.value if ratio else 1.0
        fitted = self._stretches.fitted if self._stretches else None
        parts = (topic, state, anchor, base, opening, forecast, reason, scored, fitted)
        before = self._made.get(topic.key)
        if before and before[0] == parts:
            return before[1]
        made = self._put_together(topic, state, anchor, base, opening, forecast, reason, scored)
        self._made[topic.key] = parts, made
        return made

    def _put_together(
        self,
        topic: Topic,
        state: TopicState,
        anchor: Price,
        base: Base,
        opening: Opening | None,
        forecast: HeadForecast,
        reason: str,
        scored: float,
    ) -> MadeForecast:
        """The number that comes of its parts. The time is none of them: it says which parts can be used."""
        is_believed = topic.target is Target.PRICE or not state.why_no_anchor(anchor)  # a price's was looked at
        known = known_of(topic, anchor, base, opening, is_believed=is_believed)
        # Of a return nothing is carried.
        if topic.target is Target.VOLATILITY and state.window_close and is_believed:
            forecast = carried(forecast, state.window_close, anchor.price, anchor.asof_ms - forecast.asof_ms)
        number = value(
            topic,
            forecast,
            anchor.price * scored,
            known,
            self._stretches.of(topic, known) if self._stretches else NONE,
            base_price=opening.first * scored if opening else math.nan,
            start=state.starts.get(base.ms, UNKNOWN_START),
        )
        return MadeForecast(
            number=number,
            value=decimal_text(number),
            forecast=forecast,
            anchor=anchor,
            reason=reason,
            base=base,
            elapsed_ms=int(known.elapsed_ms),
            truth_ratio=scored,
        )

    def _refuse_another_pair(self, topic: Topic) -> None:
        if self._listings and (refusal := self._listings.refusal(topic)):
            raise UnusableForecast(f"topic {topic.key}: {topic.symbol} {refusal}")

    def _opening(self, topic: Topic, base: Base, asked: Asked | None, now_ms: int) -> Opening | None:
        """How the interval began; None where it begins now, or nothing is known of how it began.

        Raises:
            StaleKlines: the base's candle is late, and the question may wait for it.
        """
        if base.source is BaseSource.ASKED:
            return None
        opening = self._live.opening(topic.symbol, base.ms)
        if opening is None and asked and asked.may_hold and 0 <= now_ms - asked.ms < CANDLE_AWAITED_MS:
            raise StaleKlines(f"topic {topic.key}: the candle of {topic.symbol} that closed {iso(base.ms)} is awaited")
        if opening is None and (before := self._live.last_before(topic.symbol, base.ms)):
            opening = Opening(venue=before.venue, first=before.price, last=before.price, end_ms=base.ms)
        return opening

    def is_answerable(self, topic: Topic) -> bool:
        """Whether a question for a topic, held until the market is back, could be answered now."""
        try:
            self.make(topic, self._clock.now_ms())
        except StaleKlines:
            return False
        except WorkerError:
            return True  # for good or ill: whoever is held is to hear of it
        return True

    def truth_ratio(self, topic: Topic, now_ms: int) -> Ratio | None:
        """What the anchor of a price topic is multiplied by; None where it is not."""
        if self._truth is None or topic.target is not Target.PRICE:
            return None
        return self._truth.ratio(topic.symbol, now_ms)

    def truth_fault(self, topic: Topic) -> str:
        """Why a topic's ratio to the truth venue is not known; empty where it is, or is not wanted."""
        if self._truth is None or topic.target is not Target.PRICE:
            return ""
        return self._truth.fault(topic.symbol)

    def not_ready(self) -> dict[str, str]:
        """``Topic.key`` -> why it cannot be answered now; empty when all can."""
        now_ms = self._clock.now_ms()
        reasons: dict[str, str] = {}
        for topic in self.topics:
            try:
                self.make(topic, now_ms)
            except WorkerError as error:
                reasons[topic.key] = str(error)
        return reasons

    def state(self, topic: Topic) -> TopicState | None:
        """What is known about a topic; None before the first candles."""
        return self._states.get(topic.key)

    def instead_of_champion(self, topic: Topic) -> str:
        """Why the naive forecast would answer a topic now; empty when the champion does."""
        state = self._states.get(topic.key)
        return state.why_no_champion(self._clock.now_ms(), self.limits) if state else ""

    def why_naive(self, topic: Topic) -> str | None:
        """Why a topic's answer would be the naive forecast now; empty if a network makes it, None before any candle."""
        state = self._states.get(topic.key)
        if state is None:
            return None
        instead = self.instead_of_champion(topic)
        return instead or (ADDS_NOTHING if state.forecast and state.forecast.is_naive else "")

    def anchor(self, topic: Topic) -> Price | None:
        """The newest trade price of the topic's symbol."""
        return self._live.anchor(topic.symbol)

    def candles_of(self, topic: Topic) -> str:
        """The venue that told the newest candle that the topic is forecast from; empty where there is but one."""
        return self._live.source(topic.symbol, panel_of(topic.horizon_min).interval_ms)

    @property
    def stream_fault(self) -> str:
        """Why the market's stream tells nothing now; empty while it does."""
        return self._live.stream_fault

    def last(self, topic: Topic) -> Answer | None:
        """The answer that the node was given last; those asked for by hand since the start do not count."""
        return self._last.get(topic.key)

    def versions(self) -> set[str]:
        """Every version that may answer now."""
        return {PERSISTENCE, *self._chosen.versions}

    def now_ms(self) -> int:
        """The service's clock."""
        return self._clock.now_ms()

    def _anchor(self, state: TopicState, now_ms: int) -> Price:
        """The newest price, which a price forecast starts from and must be fresh for.

        A return or a volatility is made from candles alone: they must be fresh, and the price is only told beside it.
        """
        topic = state.topic
        limit_ms = self.limits.klines_of_ms(state.panel.interval_ms)
        if is_ahead(state.klines_end_ms, now_ms):
            raise StaleKlines(
                f"topic {topic.key}: newest candle of {topic.symbol} closed {iso(state.klines_end_ms)}, "
                f"now it is {iso(now_ms)}: {CLOCK_SET_BACK}; candles by the new time are awaited"
            )
        if now_ms - state.klines_end_ms > limit_ms:
            raise StaleKlines(
                f"topic {topic.key}: {self._missing_market(topic)} (newest candle closed "
                f"{iso(state.klines_end_ms)}, at most {limit_ms // SECOND_MS} s ago is allowed: MAX_KLINE_AGE_S)"
            )
        anchor = self.anchor(topic)
        if topic.target is not Target.PRICE:
            if anchor and anchor.asof_ms > state.klines_end_ms and not is_ahead(anchor.asof_ms, now_ms):
                return anchor
            return Price(price=state.close, asof_ms=state.klines_end_ms, venue=self.candles_of(topic))
        if anchor is None or now_ms - anchor.asof_ms > self.limits.anchor_ms:
            fault = self._live.price_fault(topic.symbol)
            raise StaleKlines(
                f"topic {topic.key}: newest price of {topic.symbol} is of "
                f"{iso(anchor.asof_ms) if anchor else 'never'}, at most {self.limits.anchor_ms // SECOND_MS} s ago is "
                f"allowed: MAX_ANCHOR_AGE_S; {fault or 'no request for it has failed'}"
            )
        if is_ahead(anchor.asof_ms, now_ms):
            raise StaleKlines(
                f"topic {topic.key}: newest price of {topic.symbol} is of {iso(anchor.asof_ms)}, "
                f"now it is {iso(now_ms)}: {CLOCK_SET_BACK}; a price by the new time is awaited"
            )
        if fault := state.why_no_anchor(anchor):
            raise StaleKlines(f"topic {topic.key}: {fault}")
        return anchor

    def _forecast(self, state: TopicState, now_ms: int) -> tuple[HeadForecast, str]:
        """The champion's forecast, or the naive one and why."""
        reason = state.why_no_champion(now_ms, self.limits)
        if not reason and state.forecast:
            return state.forecast, ""
        if self.limits.policy is NoModelPolicy.REFUSE:
            raise UnusableForecast(f"topic {state.topic.key}: {reason}; NO_MODEL_POLICY is refuse")
        if state.fallback is None:
            raise UnusableForecast(f"topic {state.topic.key}: {reason}; naive: {state.fallback_fault}")
        return state.fallback, reason

    def _missing_market(self, topic: Topic) -> str:
        interval_ms = panel_of(topic.horizon_min).interval_ms
        return self._kline_fault(topic) or f"no newer {interval_ms // MINUTE_MS}m candle of {topic.symbol} was told"

    def _kline_fault(self, topic: Topic) -> str:
        return self._live.kline_fault(topic.symbol, panel_of(topic.horizon_min).interval_ms)

    # In the background.

    def candles_closed(self, interval_ms: int) -> None:
        """Forecast anew from the newest candles of an interval: one pass per network, all symbols and heads in it."""
        with self._forecasting:
            self._windows[interval_ms] = self._live.snapshot(interval_ms)
            for version, forecaster in self._chosen.versions.items():
                if forecaster.panel.interval_ms == interval_ms:
                    self._run(version, forecaster)
            self._fall_back(interval_ms)
            self._publish_states()
        give_back_heap()

    def choose(self) -> None:
        """Put new champions to use, if there are any: their forecasts are made before anyone is told of them."""
        chosen = self._champions.poll()
        if chosen is None and self._chosen_once:
            return
        with self._forecasting:
            self._chosen_once = True
            if chosen is not None:
                self._adopt(chosen)
            self._publish_states()

    def _adopt(self, chosen: Chosen) -> None:
        for version, forecaster in chosen.versions.items():
            if version not in self._forecasts:
                self._run(version, forecaster)
        before, self._chosen = self._chosen, chosen
        self._forecasts = {version: self._forecasts[version] for version in chosen.versions}
        for key, forecaster in chosen.forecasters.items():
            old = before.forecasters.get(key)
            if old is None or old.version != forecaster.version:
                log.info(
                    "champion_in_use",
                    topic=key,
                    version=forecaster.version,
                    before=old.version if old else PERSISTENCE,
                )

    def _run(self, version: str, forecaster: BiRNNForecaster) -> None:
        """One pass of one network. A symbol that is left out keeps what was forecast for it before, until too old."""
        before, _ = self._forecasts.get(version, ({}, {}))
        try:
            forecasts, reasons = forecaster.forecast(self._windows.get(forecaster.panel.interval_ms, {}))
        except Exception as error:
            if count := self._seldom.due("forecast_failed", version):
                log.exception("forecast_failed", version=version, count=count)
            forecasts, reasons = {}, dict.fromkeys((topic.symbol for topic in self.topics), f"{version}: {error!r}")
        self._forecasts[version] = ({**before, **forecasts}, reasons)

    def _publish_states(self) -> None:
        """Put what is known of every topic together and swap it in with one assignment."""
        if not self._chosen_once:
            return  # or the naive forecast would answer for a champion that is still being read
        states: dict[str, TopicState] = {}
        for topic in self.topics:
            panel, head = panel_of(topic.horizon_min), head_of(topic)
            klines = self._windows.get(panel.interval_ms, {}).get(topic.symbol)
            if klines is None or not len(klines):
                continue
            forecaster = self._chosen.forecasters.get(topic.key)
            forecasts, reasons = self._forecasts[forecaster.version] if forecaster else ({}, {})
            fallback, fallback_fault = self._fallbacks[topic.symbol, head]
            forecast = forecasts.get((topic.symbol, head))
            asof_ms = forecast.asof_ms if forecast else 0
            last_read = klines.between(asof_ms - panel.interval_ms, asof_ms)
            states[topic.key] = TopicState(
                topic=topic,
                panel=panel,
                klines_end_ms=klines.end_ms,
                close=float(klines.close[-1]),
                newest=self._newest(topic.symbol),
                champion=forecaster.version if forecaster else "",
                created_ms=forecaster.manifest.created_ms if forecaster else 0,
                forecast=forecast,
                window_close=float(last_read.close[0]) if len(last_read) else None,
                fault=self._chosen.faults.get(topic.key) or reasons.get(topic.symbol, ""),
                fallback=fallback,
                fallback_fault=fallback_fault,
                starts=self._starts(topic),
            )
        self._states = states

    def _starts(self, topic: Topic) -> Mapping[int, Start]:
        """What a stretch of a volatility is measured from, by base, of the bases that a question may still have."""
        minutes = self._windows.get(MINUTE_MS, {}).get(topic.symbol)
        if topic.target is not Target.VOLATILITY or minutes is None or not self._stretches:
            return {}
        epoch_min = max(1, round(epoch_blocks(topic) * BLOCK_MS / MINUTE_MS))
        return starts(minutes, head_of(topic), epoch_min)

    def _newest(self, symbol: str) -> Price:
        """The close of a symbol's newest candle: within an hour a price may go far from an hour's last one."""
        windows = [window[symbol] for window in self._windows.values() if len(window.get(symbol, ()))]
        klines = max(windows, key=lambda window: window.end_ms)
        return Price(price=float(klines.close[-1]), asof_ms=klines.end_ms)

    def _fall_back(self, interval_ms: int) -> None:
        """The naive forecast of every question that is answered from an interval's candles, each once."""
        windows = self._windows[interval_ms]
        for symbol, head in {(topic.symbol, head_of(topic)) for topic in self.topics}:
            if panel_of(head.horizon_min).interval_ms == interval_ms and len(windows.get(symbol, ())):
                self._fallbacks[symbol, head] = self._persistence(windows[symbol], symbol, head)

    def _persistence(self, klines: Klines, symbol: str, head: Head) -> tuple[HeadForecast | None, str]:
        try:
            return self._naive.forecast(klines, symbol, head), ""
        except WorkerError as error:
            return None, str(error)

    def _look_for_champions(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._stretches:
                    self._stretches.poll()
                if self._bases.chains:
                    self.ledger.note_block_times(self._bases.block_time, self._clock.now_ms() - RECALL_MS)
                self.choose()
            except Exception:
                if count := self._seldom.due("champions_not_read"):
                    log.exception("champions_not_read", remedy="the ones in use stay", count=count)
            self._stopping.wait(POLL_S)
