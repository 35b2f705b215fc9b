"""One answer against the candles that came true: truth, losses, direction and error. Pure: nothing here waits.

The losses of both naive forecasts stand beside the answer's. The one that counts knows what the answer knew: the newest
price, the whole minutes of the interval that had closed by then, and of a volatility the window up to the newest candle
that the answer read. It is the number that inference serves where no network does, before the stretch. The plain one
knows the base alone.
"""

import math

import numpy as np

from core.clock import MINUTE_MS, iso
from core.errors import StaleKlines
from core.losses import loss_named
from core.topic import Target, Topic
from klines.klines import Floats, Klines
from klines.spans import Span, interval_name
from klines.truth import TRADED_ROWS, price_at, truth_of, volatility
from ledger.answers import Answer
from ledger.scores import Score, start_ms_of
from model.heads import head_of
from model.known import NOTHING, Known

BASIS_POINTS = 1e4


def span_of(topic: Topic, start_ms: int, interval_ms: int) -> Span:
    """Return the candles that a score may read, of an interval that begins at ``start_ms``.

    From the window before the base (of a return, from the candles by which a quiet price is judged) up to the candle
    after the end.
    """
    before_ms = TRADED_ROWS * interval_ms
    if topic.target is Target.VOLATILITY:
        before_ms = max(before_ms, topic.horizon_ms + 2 * interval_ms)  # the answer's window may end before the base
    first_ms = (start_ms - before_ms - 1) // interval_ms * interval_ms
    return first_ms, -(-(start_ms + topic.horizon_ms) // interval_ms) * interval_ms + interval_ms


def missing_ms(topic: Topic, start_ms: int, klines: Klines) -> int | None:
    """Return when the first candle opens that a score needs and ``klines`` lacks; None if it has all."""
    interval_ms, times = klines.interval_ms, klines.open_time_ms
    is_run = topic.target is Target.VOLATILITY
    first_ms = ((start_ms - topic.horizon_ms if is_run else start_ms) - 1) // interval_ms * interval_ms
    last_ms = (start_ms + topic.horizon_ms - 1) // interval_ms * interval_ms
    first, last = np.searchsorted(times, [first_ms, last_ms])
    has_both = last < len(times) and times[first] == first_ms and times[last] == last_ms
    if has_both and (not is_run or last - first == (last_ms - first_ms) // interval_ms):
        return None
    needed = range(first_ms, last_ms + 1, interval_ms if is_run else max(interval_ms, last_ms - first_ms))
    return next(opened_ms for opened_ms in needed if not len(klines.between(opened_ms, opened_ms + 1)))


def missing_words(topic: Topic, open_ms: int, interval_ms: int, venue: str) -> str:
    """Return the reason of an answer whose candles do not come."""
    name = f"{topic.symbol}-{interval_name(interval_ms)}"
    return f"the candle of {iso(open_ms)} is missing in {name} of {venue}; scored when it is there"


def another_question(topic: Topic, answer: Answer, market: str) -> str:
    """Return why an answer has nothing to do with the topic of today; empty if it answers the topic's question."""
    if answer.answers(topic, market):
        return ""
    then = f"{answer.target} of {answer.symbol} in {answer.horizon_min}m on {answer.market}"
    return f"was asked {then}, the topic is now {topic.asked} of {topic.symbol} in {topic.horizon_min}m on {market}"


def unscored(answer: Answer, scored_ms: int, venue: str, reason: str) -> Score:
    """Return the score of an answer that cannot be scored."""
    start_ms = start_ms_of(answer)
    return Score(
        network=answer.network,
        topic_id=answer.topic_id,
        height=answer.height or 0,
        answered_ms=answer.answered_ms,
        version=answer.version,
        forecast=answer.forecast,
        start_ms=start_ms,
        end_ms=start_ms + answer.horizon_min * MINUTE_MS,
        scored_ms=scored_ms,
        reason=reason,
        venue=venue,
    )


def scored(topic: Topic, answer: Answer, klines: Klines, venue: str, std: float, scored_ms: int) -> Score:
    """Return the score of an answer.

    Args:
        topic: whose question it answers.
        klines: of one venue, ``span_of`` or more; ``missing_ms`` finds none missing.
        venue: name of the klines' venue.
        std: of past returns over the horizon; read by the losses of returns alone.
    Raises:
        MalformedKlines: the candles cannot tell the topic's truth.
        ValueError: the answer is not a number.
    """
    start_ms, value = start_ms_of(answer), float(answer.value)
    klines = klines.between(*span_of(topic, start_ms, klines.interval_ms))
    truth = truth_of(topic, klines, start_ms, venue)
    base, naive, plain = _naive(topic, answer, klines, venue)
    losses = _losses(topic, truth.value, [value, naive, plain], base, std)
    blank = unscored(answer, scored_ms, venue, "")
    if not all(map(math.isfinite, losses)):
        return blank._replace(reason=f"a loss is not finite: answer {value:g}, truth {truth.value:g}, naive {naive:g}")
    return blank._replace(
        value=value,
        truth=truth.value,
        truth_sd=truth.sd,
        naive=naive,
        plain_naive=plain,
        loss=losses[0],
        naive_loss=losses[1],
        plain_naive_loss=losses[2],
        right_direction=_right(value - base, truth.value - base),
        error_bp=_error_bp(topic, value, truth.value),
        loss_name=topic.loss,
    )


def _naive(topic: Topic, answer: Answer, klines: Klines, venue: str) -> tuple[float, float, float]:
    """Return the number of no change, the naive forecast that knows what the answer knew, and the plain one."""
    start_ms = start_ms_of(answer)
    if topic.target is Target.VOLATILITY:
        before = volatility(klines, start_ms - topic.horizon_ms, start_ms, venue, topic.volatility).value
        try:
            last = volatility(klines, answer.asof_ms - topic.horizon_ms, answer.asof_ms, venue, topic.volatility).value
        except StaleKlines:  # a hole before the base, where the score itself needs no candle
            last = before
        known = known_of(answer, klines, venue, start_ms)
        if known is NOTHING:
            return before, last, before
        whole = head_of(topic).kind.measure.whole(known, last / topic.unit, topic.horizon_min)
        return before, float(whole) * topic.unit, before
    if topic.target is Target.LOG_RETURN:
        return 0.0, float(known_of(answer, klines, venue, start_ms).moved), 0.0
    base = price_at(klines, start_ms, venue).value
    return base, answer.anchor * answer.truth_ratio, base


def known_of(answer: Answer, klines: Klines, venue: str, start_ms: int) -> Known:
    """Return what the answer knew of its interval: whole minutes up to its newest price, and the move to that price.

    A price of another venue than the candles' is left out: the difference between venues would look like a move. So is
    what follows a hole.
    """
    seen_ms = answer.base_ms + answer.elapsed_ms
    if seen_ms <= start_ms:
        return NOTHING
    closes = _closes(klines, start_ms, seen_ms) if klines.interval_ms == MINUTE_MS else np.empty(0)
    if not len(closes):
        closes = np.array([price_at(klines, start_ms, venue).value])
    minutes, returns = len(closes) - 1, np.diff(np.log(closes))
    is_told = answer.anchor_asof_ms == seen_ms and answer.venue in {"", venue}
    return Known(
        elapsed_ms=seen_ms - start_ms if is_told else minutes * MINUTE_MS,
        minutes=minutes,
        total=float(returns.sum()),
        squares=float(returns @ returns),
        running=math.log(answer.anchor / float(closes[-1])) if is_told else 0.0,
    )


def _closes(klines: Klines, start_ms: int, end_ms: int) -> Floats:
    """Return the closes from ``start_ms`` to ``end_ms`` without a hole; none if no candle closed at the start."""
    first_ms = start_ms - klines.interval_ms
    first, last = np.searchsorted(klines.open_time_ms, [first_ms, end_ms - klines.interval_ms + 1])
    follows = klines.open_time_ms[first:last] == first_ms + klines.interval_ms * np.arange(last - first)
    return klines.close[first : first + np.count_nonzero(follows)]


def _losses(topic: Topic, truth: float, forecasts: list[float], base: float, std: float) -> list[float]:
    """Return the topic's loss of each forecast. A loss of returns is of log-returns, for a price topic too.

    One by one: in an array the last digit of a power depends on the place.
    """
    loss, y, ps = loss_named(topic.loss), np.float64(truth), [*map(np.float64, forecasts)]
    with np.errstate(all="ignore"):
        if loss.of_returns and topic.target is Target.PRICE:
            y, ps = np.log(y / base), [np.log(p / base) for p in ps]
        return [float(loss(np, y, p, std)) for p in ps]


def _right(moved: float, came: float) -> bool | None:
    return None if moved == 0 or came == 0 else (moved > 0) == (came > 0)


def _error_bp(topic: Topic, value: float, truth: float) -> float | None:
    """Return the error in basis points: of a log-return the difference, else relative to the truth."""
    if topic.target is Target.LOG_RETURN:
        return (value - truth) * BASIS_POINTS
    return (value / truth - 1) * BASIS_POINTS if truth > 0 else None
