"""The contract of a topic: the topic on chain against what we train for and answer."""

from dataclasses import dataclass
from math import inf

from chain.shapes import TopicSeen
from core.clock import MINUTE_MS, SECOND_MS
from core.losses import LOSS_NAMES
from core.topic import Target, Topic, catalogue, horizon_text

MOST_OFF = 0.25  # of the horizon; the default of ALARM_CONTRACT
HORIZON, LOSS, SIGN, ARITY, UNIT, TOPIC = "horizon", "loss", "sign", "arity", "unit", "topic"  # names of faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A difference between the chain and us that costs a topic's reward."""

    name: str  # HORIZON, LOSS, SIGN, ARITY, UNIT or TOPIC
    what: str  # differs, in a line
    remedy: str  # what to do, in a line
    off: float = inf  # by which share of ours, or by how many robust deviations; inf where neither has a meaning
    is_sure: bool = True  # False: it may be right as it is, so that it neither stops a start nor raises an alarm


def contract_faults(topic: Topic, seen: TopicSeen, block_ms: float | None, most_off: float = MOST_OFF) -> list[Fault]:
    """Return what differs between a topic on chain and the same topic of ours.

    Args:
        block_ms: measured time between two blocks; None: it is not known, so that a lag in blocks is not compared.
        most_off: the difference between lag and horizon that is allowed, as a share of the horizon.
    """
    found = [_horizon(topic, seen, block_ms, most_off), _loss(topic, seen), _sign(topic, seen), _arity(topic, seen)]
    return [fault for fault in found if fault]


def no_such_topic(topic: Topic) -> Fault:
    """Return the fault of a topic that is not on the chain."""
    what = f"topic {topic.key}: the chain has no such topic"
    return Fault(name=TOPIC, what=what, remedy="correct topicId or chainId")


def lag_ms(seen: TopicSeen, block_ms: float | None) -> float | None:
    """Return the ground-truth lag in milliseconds; None if it is in blocks whose time is not known."""
    if seen.in_seconds:
        return float(seen.ground_truth_lag * SECOND_MS)
    return seen.ground_truth_lag * block_ms if block_ms else None


def _horizon(topic: Topic, seen: TopicSeen, block_ms: float | None, most_off: float) -> Fault | None:
    lag = lag_ms(seen, block_ms)
    if lag is None:
        return None
    off = abs(lag / topic.horizon_ms - 1)
    if off <= most_off:
        return None
    if seen.in_seconds or block_ms is None:
        length = f"{seen.ground_truth_lag} s"
    else:
        length = f"{seen.ground_truth_lag} blocks of {block_ms / SECOND_MS:.2f} s"
    return Fault(
        name=HORIZON,
        what=f"topic {topic.key}: the chain asks for the truth {_minutes(lag)} after the base (ground-truth lag "
        f"{length}), and we answer for {topic.horizon}",
        remedy=f"{_set(topic, 'Horizon', 'what the chain asks')}; its name there is {_named(seen)}",
        off=off,
    )


def _minutes(lag: float) -> str:
    """
    >>> _minutes(600_000.0), _minutes(601_000.0), _minutes(60_000.0), _minutes(28_780_000.0)
    ('10m', 'about 10m', '1m', 'about 8h')
    """
    minutes = lag / MINUTE_MS
    whole = max(1, round(minutes / 60) * 60 if minutes > 90 else round(minutes))
    return f"{'' if whole == minutes else 'about '}{horizon_text(whole)}"


def _loss(topic: Topic, seen: TopicSeen) -> Fault | None:
    given = seen.loss_method.strip().lower()
    name = LOSS_NAMES.get(given)
    if name == topic.loss:
        return None
    remedy = _set(topic, "Loss", name or "the loss that this name stands for")
    if not given:
        what = "names no loss"
    elif name is None:
        what = f"scores by {seen.loss_method[:40]!a}, a loss that we do not know"
    else:
        what = f"scores by {name}"
    return Fault(
        name=LOSS,
        what=f"topic {topic.key}: the chain {what}, and we train for {topic.loss}",
        remedy=remedy,
        is_sure=name is not None,
    )


def _sign(topic: Topic, seen: TopicSeen) -> Fault | None:
    """Compare the sign; on some chains ``allow_negative`` is of the losses alone, so this is never sure."""
    if topic.target is not Target.LOG_RETURN or seen.allow_negative:
        return None
    return Fault(
        name=SIGN,
        what=f"topic {topic.key}: the chain allows nothing negative (allow_negative is false), and we answer "
        "log-returns, which are negative half of the time",
        remedy=f"compare Target with the topic's name on chain, {_named(seen)}; on a chain where allow_negative is "
        "about losses this is right as it is",
        is_sure=False,
    )


def _arity(topic: Topic, seen: TopicSeen) -> Fault | None:
    if not seen.is_multi:
        return None
    labels = f" ({', '.join(label[:20] for label in seen.labels[:5])})" if seen.labels else ""
    return Fault(
        name=ARITY,
        what=f"topic {topic.key}: the chain wants several labelled values{labels}, and we answer a single one",
        remedy="take the topic out of the config: no answer of ours can be right",
    )


def _set(topic: Topic, parameter: str, value: str) -> str:
    """Say how a parameter of config.json is set; it may not contradict the catalogue."""
    if (topic.network or "", topic.topic_id) in catalogue():
        return (
            "take the topic out of the config until a release whose catalogue has the chain's question "
            "(`birnn topics --live` shows it)"
        )
    return f"set {parameter} in the topic's parameters to {value}"


def _named(seen: TopicSeen) -> str:
    return f"{seen.metadata[:80]!a}"
