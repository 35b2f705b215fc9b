"""The epochs of a topic over a past span, answered again by a published network and scored as the monitor scores."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from admission.replay import BLOCK_MS, epochs_between
from cli.replay.forecasts import forecasts_at, parts
from core.clock import DAY_MS, MINUTE_MS
from core.errors import UnusableForecast
from core.topic import Target, Topic
from inference.stretches import Stretches, starts
from klines.klines import Klines
from klines.truth import price_at
from ledger.answers import Answer
from ledger.scores import Score, ScoreBook, start_ms_of
from market.store.home_store import HomeStore
from model.answer import UNKNOWN_START, Start, carried, value
from model.forecaster import BiRNNForecaster, HeadForecast
from model.heads import head_of
from model.known import Known
from model.panels import panel_of
from monitor.candles import Candles
from monitor.scoring import known_of, missing_ms, scored, span_of
from node.decimals import decimal_text
from node.dry_run_heights import epoch_blocks

LATEST_ANSWER_MS = DAY_MS  # after its base; answers of the ledger are looked for by the time they were given
NO_WINDOW = "candles of the network's window are missing"
NO_TRUTH = "candles of the interval are missing, or it is not over"
Progress = Callable[[int, int], None]  # done, wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch: what was answered, and what the network would have answered then."""

    given: Answer  # of the ledger, or made up from the typical wait where nothing was answered
    was_given: bool
    recorded: Score | None  # of the answer that was given; None without one
    replayed: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The epochs of a span, in order of time."""

    epochs: list[Epoch] = field(default_factory=list)
    unanswered: Counter[str] = field(default_factory=Counter)  # epochs that could not be replayed, by reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayer:
    """Answers a topic's epochs again.

    Args:
        forecaster: the network.
        store: minutes and hours of its symbols.
        candles: of the same store, for the truth.
        stretches: those of today; earlier ones are not kept.
    """

    topic: Topic
    forecaster: BiRNNForecaster
    store: HomeStore
    candles: Candles
    stretches: Stretches

    def run(self, asked: Sequence[tuple[Answer, Score | None, bool]], show: Progress) -> Replay:
        """Answer every epoch again and score the answers.

        Args:
            asked: answers by the start of their interval, their scores, and whether they were really given.
        """
        found = Replay()
        interval_ms = panel_of(self.topic.horizon_min).interval_ms
        closes_ms = [answer.asof_ms // interval_ms * interval_ms for answer, _, _ in asked]
        order = np.argsort(closes_ms, kind="stable").tolist()
        for first, last in parts([closes_ms[place] for place in order], interval_ms):
            part = [asked[place] for place in order[first:last]]
            closes = np.unique([closes_ms[place] for place in order[first:last]])
            by_close = forecasts_at(self.forecaster, self.topic, self.store, closes)
            for number, (answer, recorded, was_given) in enumerate(part):
                show(first + number, len(asked))
                forecast = by_close.get(answer.asof_ms // interval_ms * interval_ms)
                replayed = self._again(answer, forecast) if forecast else NO_WINDOW
                if isinstance(replayed, str):
                    found.unanswered[replayed] += 1
                else:
                    found.epochs.append(Epoch(given=answer, was_given=was_given, recorded=recorded, replayed=replayed))
        found.epochs.sort(key=lambda epoch: epoch.replayed.start_ms)
        return found

    def _again(self, answer: Answer, forecast: HeadForecast) -> Score | str:
        """Return the score of the network's answer, or why it gives none."""
        topic, start_ms = self.topic, start_ms_of(answer)
        read = self._klines(start_ms)
        if read is None:
            return NO_TRUTH
        venue, klines, before = read
        known = known_of(answer, klines, venue, start_ms)
        base_price, start = float("nan"), UNKNOWN_START
        if topic.target is Target.PRICE:
            # As serving has it: a price starts from its anchor, of whatever venue.
            known = Known(elapsed_ms=max(0, answer.base_ms + answer.elapsed_ms - start_ms))
            base_price = price_at(klines, start_ms, venue).value * answer.truth_ratio
        elif topic.target is Target.VOLATILITY:
            start = before
            if answer.venue in {"", venue}:
                close = price_at(klines, forecast.asof_ms, venue).value
                forecast = carried(forecast, close, answer.anchor, answer.anchor_asof_ms - forecast.asof_ms)
        try:
            number = value(
                topic,
                forecast,
                answer.anchor * answer.truth_ratio,
                known,
                self.stretches.of(topic, known),
                base_price=base_price,
                start=start,
            )
        except UnusableForecast:
            return "the network's forecast lies outside the sanity band"
        again = answer._replace(value=decimal_text(number), version=forecast.version, forecast="network")
        std = self.candles.deviation(topic, start_ms)
        score = scored(topic, again, klines, venue, std, 0)
        return score.reason or score

    def _klines(self, start_ms: int) -> tuple[str, Klines, Start] | None:
        """Return the venue, the candles that tell the truth, and where a volatility starts from; None without them."""
        topic = self.topic
        for series in self.candles.series_of(topic):
            first_ms, end_ms = span_of(topic, start_ms, series.interval_ms)
            klines = self.candles.read(series, first_ms, end_ms)
            if missing_ms(topic, start_ms, klines) is not None:
                continue
            start = UNKNOWN_START
            if topic.target is Target.VOLATILITY and series.interval_ms == MINUTE_MS:
                day = self.candles.read(series, start_ms - DAY_MS - topic.horizon_ms - MINUTE_MS, start_ms)
                epoch_min = max(1, round(epoch_blocks(topic) * BLOCK_MS / MINUTE_MS))
                day = day.between(0, start_ms)
                start = starts(day, head_of(topic), epoch_min).get(start_ms, UNKNOWN_START)
            return series.venue, klines, start
        return None


def recorded(
    book: ScoreBook, topic: Topic, market: str, since_ms: int, until_ms: int
) -> Iterator[tuple[Answer, Score | None]]:
    """Yield the answers to a topic's question of today whose intervals begin in a span, end excluded, with scores."""
    for batch in book.stream((topic,), since_ms - LATEST_ANSWER_MS, until_ms + LATEST_ANSWER_MS):
        for answer, score in batch:
            if since_ms <= start_ms_of(answer) < until_ms and answer.answers(topic, market):
                yield answer, score


def made_up(
    topic: Topic,
    candles: Candles,
    starts_ms: Sequence[int],
    since_ms: int,
    until_ms: int,
    *,
    known_min: int,
    block_ms: float,
    nonce_ms: int,
    market: str,
) -> Iterator[Answer]:
    """Yield questions of the epochs in a span that nobody answered, as if asked when whole minutes were known.

    Args:
        starts_ms: of the answered epochs, rising; an epoch within half an epoch of one of them was answered.
        known_min: minutes of each interval that are known.
        block_ms, nonce_ms: as for ``epochs_between``.
    """
    epochs = epochs_between(topic, since_ms, until_ms, block_ms, nonce_ms)
    there = np.array([-(2**62), *starts_ms, 2**62])
    after = np.searchsorted(there, epochs.base_ms)
    apart = np.minimum(there[after] - epochs.base_ms, epochs.base_ms - there[after - 1])
    series = candles.series_of(topic)[0]
    panel_ms = panel_of(topic.horizon_min).interval_ms
    for base_ms in epochs.base_ms[apart > epochs.length_ms / 2].tolist():
        seen_ms = base_ms + known_min * MINUTE_MS
        newest = candles.read(series, seen_ms - MINUTE_MS, seen_ms).between(seen_ms - MINUTE_MS, seen_ms)
        if not len(newest):
            continue
        yield Answer(
            network=topic.network or "",
            topic_id=topic.topic_id,
            height=None,
            value="",
            version="",
            symbol=topic.symbol,
            target=topic.asked,
            horizon_min=topic.horizon_min,
            anchor=float(newest.close[-1]),
            anchor_asof_ms=seen_ms,
            asof_ms=seen_ms // panel_ms * panel_ms,
            answered_ms=seen_ms,
            market=market,
            venue=series.venue,
            asked_ms=seen_ms,
            base_ms=base_ms,
            elapsed_ms=known_min * MINUTE_MS,
        )
