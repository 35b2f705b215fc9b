"""From a question to its answer, in memory: nothing here waits or does I/O but the ledger's line in its journal."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, Clock, is_ahead, iso
from core.errors import StaleKlines, UnusableForecast, WorkerError
from core.settings import BaseRule, NoModelPolicy
from core.sources import ADDS_NOTHING, NAIVE, NETWORK, PERSISTENCE
from core.topic import Target, Topic
from inference.base import ASKED_ONLY, Asked, Base, Bases, BaseSource
from inference.forecast_cache import ForecastCache
from inference.question import NODE, Questions
from inference.stretches import Stretches
from inference.topic_state import CLOCK_SET_BACK, Limits, MadeForecast, TopicState, known_of
from inference.waits import NO_WAITS, Waits
from ledger.answer_log import Ledger
from ledger.answers import Answer
from market.listings import Listings
from market.price_ratio import PriceRatio
from market.venue import Opening, Price
from model.answer import UNKNOWN_START, carried, value
from model.forecaster import HeadForecast
from model.panels import panel_of
from node.decimals import decimal_text

CANDLE_AWAITED_MS = 5 * SECOND_MS  # a base's candle that is late
# By then the nonce's window has closed for long. A question that comes later was asked by hand before, or the chain
# began anew under its old id: then the old price would reach the network looking new.
RECALL_MS = 2 * HOUR_MS


class Market(Protocol):
    """The part of the live market that answers read; no call waits."""

    def anchor(self, symbol: str) -> Price | None: ...

    def opening(self, symbol: str, since_ms: int) -> Opening | None: ...

    def last_before(self, symbol: str, moment_ms: int) -> Price | None: ...

    def kline_fault(self, symbol: str, interval_ms: int) -> str: ...

    def price_fault(self, symbol: str) -> str: ...

    @property
    def stream_fault(self) -> str: ...

    def source(self, symbol: str, interval_ms: int) -> str: ...


class TruthRatios(Protocol):
    """The part of the truth venue's feed that answers read; no call waits."""

    def ratio(self, symbol: str, now_ms: int) -> PriceRatio | None: ...

    def fault(self, symbol: str) -> str: ...


class InferenceService:
    """Answers questions on the event loop, from state that background threads keep ready.

    Each answer reads one immutable ``TopicState`` and one ``Price``.
    """

    def __init__(
        self,
        forecasts: ForecastCache,
        topics: Iterable[Topic],
        live: Market,
        ledger: Ledger,
        clock: Clock,
        *,
        limits: Limits,
        market: str,
        stretches: Stretches,
        bases: Bases = ASKED_ONLY,
        waits: Waits = NO_WAITS,
        truth: TruthRatios | None = None,
        listings: Listings | None = None,
    ) -> None:
        self.questions = Questions(topics)
        self.ledger = ledger
        self.market_name = market
        self.limits = limits
        self._forecasts = forecasts
        self._clock = clock
        self._live = live
        self._truth = truth
        self._listings = listings
        self._bases = bases
        self._waits = waits
        self._stretches = stretches
        self._targets = {topic.key: topic.asked for topic in self.questions.topics}
        self._made: dict[str, tuple[tuple[object, ...], MadeForecast]] = {}  # by Topic.key: the newest and its parts
        newest = ((topic.key, ledger.newest(topic)) for topic in self.questions.topics)
        self._last = {key: answer for key, answer in newest if answer}  # by Topic.key

    @property
    def topics(self) -> tuple[Topic, ...]:
        """The configured topics."""
        return self.questions.topics

    def answer(self, topic: Topic, height: int | None, asker: str = NODE, asked: Asked | None = None) -> Answer:
        """Return the answer to a question: the same one whenever it is asked again.

        Args:
            height: block height of the nonce; None is a question that is not remembered.
            asker: NODE or HAND. The answer is the same; an answer for HAND does not count as ``last``.
            asked: when the question came, and what it may wait for; None: just now, and for nothing.
        Raises:
            StaleKlines, UnusableForecast: there is no answer now, and nothing is remembered; or the answer was given
                too long ago, and there will be no other. StaleKlines also if the question may wait for something that
                is missing.
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
            self._note_last(topic, known, asker)
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
            target=self._targets[topic.key],
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
        self._note_last(topic, standing, asker)
        return standing

    def adopt(self, rule: BaseRule, truth: TruthRatios | None) -> None:
        """Answer by another base rule and at another venue's price level from now on; for any thread."""
        self._bases = replace(self._bases, rule=rule)
        self._truth = truth

    def _note_last(self, topic: Topic, answer: Answer, asker: str) -> None:
        if asker == NODE:
            self._last[topic.key] = answer

    def make(self, topic: Topic, now_ms: int, base: Base | None = None, asked: Asked | None = None) -> MadeForecast:
        """Make the number for a topic as of now, without giving it as an answer.

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
        """Do as ``make``, for a symbol that no venue contradicts; the same parts as before give the same number."""
        state = self._forecasts.states.get(topic.key)
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
        parts = (topic, state, anchor, base, opening, forecast, reason, scored, self._stretches.fitted)
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
        """Put the number together. The time is no part of it: the time only decides which parts can be used."""
        known = known_of(topic, anchor, base, opening)
        # Of a return nothing is carried.
        if topic.target is Target.VOLATILITY and state.window_close:
            forecast = carried(forecast, state.window_close, anchor.price, anchor.asof_ms - forecast.asof_ms)
        number = value(
            topic,
            forecast,
            anchor.price * scored,
            known,
            self._stretches.of(topic, known),
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
        """Return how the interval began; None if it begins now, or if its beginning is not known.

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
        """True if a question that is held until the market is back can be answered or refused for good now."""
        try:
            self.make(topic, self._clock.now_ms())
        except StaleKlines:
            return False
        except WorkerError:
            return True  # waiting longer would not help
        return True

    def truth_ratio(self, topic: Topic, now_ms: int) -> PriceRatio | None:
        """Return the factor for the anchor of a price topic; None if no factor is known."""
        if self._truth is None or topic.target is not Target.PRICE:
            return None
        return self._truth.ratio(topic.symbol, now_ms)

    def truth_fault(self, topic: Topic) -> str:
        """Return why a topic's ratio to the truth venue is not known; empty if it is known, or not needed."""
        if self._truth is None or topic.target is not Target.PRICE:
            return ""
        return self._truth.fault(topic.symbol)

    def not_ready(self) -> dict[str, str]:
        """Return, by ``Topic.key``, why topics cannot be answered now; empty if all can."""
        now_ms = self._clock.now_ms()
        reasons: dict[str, str] = {}
        for topic in self.topics:
            try:
                self.make(topic, now_ms)
            except WorkerError as error:
                reasons[topic.key] = str(error)
        return reasons

    def state(self, topic: Topic) -> TopicState | None:
        """Return the state of a topic; None before the first candles."""
        return self._forecasts.states.get(topic.key)

    def instead_of_champion(self, topic: Topic) -> str:
        """Return why the naive forecast answers a topic now in a champion's place; empty if the champion answers."""
        state = self._forecasts.states.get(topic.key)
        return state.why_no_champion(self._clock.now_ms(), self.limits) if state else ""

    def why_naive(self, topic: Topic) -> str | None:
        """Return why a topic's answer is the naive forecast now; empty if a network makes it, None before candles."""
        state = self._forecasts.states.get(topic.key)
        if state is None:
            return None
        instead = self.instead_of_champion(topic)
        return instead or (ADDS_NOTHING if state.forecast and state.forecast.is_naive else "")

    def anchor(self, topic: Topic) -> Price | None:
        """Return the newest trade price of the topic's symbol; None before the first."""
        return self._live.anchor(topic.symbol)

    def candles_of(self, topic: Topic) -> str:
        """Return the venue of the newest candle that the topic is forecast from; empty if there is only one venue."""
        return self._live.source(topic.symbol, panel_of(topic.horizon_min).interval_ms)

    @property
    def stream_fault(self) -> str:
        """Why the market's stream sends no prices now; empty while it does."""
        return self._live.stream_fault

    def last(self, topic: Topic) -> Answer | None:
        """Return the last answer to the node; answers by hand since the start do not count."""
        return self._last.get(topic.key)

    def versions(self) -> set[str]:
        """Return every version that may answer now."""
        return {PERSISTENCE, *self._forecasts.versions}

    def now_ms(self) -> int:
        """Return the time by the service's clock."""
        return self._clock.now_ms()

    def _anchor(self, state: TopicState, now_ms: int) -> Price:
        """Return the newest price.

        A price forecast starts from it, so it must be fresh. A return or a volatility is made from candles alone: they
        must be fresh, and the price only stands beside the answer.
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
        return anchor

    def _forecast(self, state: TopicState, now_ms: int) -> tuple[HeadForecast, str]:
        """Return the champion's forecast, or the naive forecast and why."""
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
        return self._kline_fault(topic) or f"no newer {interval_ms // MINUTE_MS}m candle of {topic.symbol} has come"

    def _kline_fault(self, topic: Topic) -> str:
        return self._live.kline_fault(topic.symbol, panel_of(topic.horizon_min).interval_ms)
