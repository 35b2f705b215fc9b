"""The catalogue and the config against the topics on chain."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from chain.shapes import TopicSeen
from cli.live.chains import LiveNetwork, LiveTopic
from cli.live.question import Question, question_of, renamed, twins_of
from core.clock import DAY_MS, MINUTE_MS, SECOND_MS
from core.errors import ConfigError
from core.losses import LOSS_NAMES
from core.topic import (
    CLASSIFICATION,
    CatalogueTopic,
    Target,
    Topic,
    Volatility,
    catalogue,
    default_symbol,
    horizon_text,
    parse_horizon,
)
from node.worker_entry import ENDPOINT, refusal, worker_entry
from truth.contract import HORIZON, LOSS, MOST_OFF, Fault, contract_faults, lag_ms

_WE = re.compile(r"we (answer for|answer|train for)")


class State(StrEnum):
    """How a topic stands against the catalogue, in the order in which topics are shown."""

    NEW = "new"  # active, and not in the catalogue
    CHANGED = "changed"
    ENDED = "ended"  # in the catalogue or the config, and not active any more
    FAULT = "not read"
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A topic on chain beside the catalogue; None: not known."""

    network: str
    topic_id: int
    state: State
    name: str  # on chain
    asked: Question
    loss: str
    configured: bool
    changes: Sequence[str]  # what differs from the catalogue, a line each; of a fault the reason
    twins: Sequence[int]  # testnet topics of the same question, the best first
    weight: str | None
    free_inferers: int | None
    free_forecasters: int | None
    paid_a_day: Decimal | None  # to all inferers, in uallo
    place_a_day: Decimal | None  # to the median inferer
    paid_by: str  # of which epochs that is; empty: not known
    entry: Mapping[str, object] | None  # to paste into config.json
    refused: str  # why this release does not answer by the entry; empty: it does


def rows_of(
    network: LiveNetwork, configured: Sequence[Topic], testnet: Collection[int] | None, most_off: float = MOST_OFF
) -> list[Row]:
    """Return a network's topics: those that are active, in the catalogue or in the config; by state, then by id.

    Args:
        configured: topics of the config, of all networks.
        testnet: the testnet's active topics; None: they were not read.
        most_off: see ``contract_faults``.
    """
    ours = {topic.topic_id: topic for topic in configured if topic.network == network.chain_id}
    found = []
    for topic_id, live in network.topics.items():
        known = catalogue().get((network.chain_id, topic_id))
        if known or topic_id in ours or live.fault or live.is_active is not False:
            found.append(_row(network, live, known, ours.get(topic_id), testnet, most_off))
    order = list(State)
    return sorted(found, key=lambda row: (order.index(row.state), row.topic_id))


def _row(
    network: LiveNetwork,
    live: LiveTopic,
    known: CatalogueTopic | None,
    ours: Topic | None,
    testnet: Collection[int] | None,
    most_off: float,
) -> Row:
    seen, block_ms = live.seen, network.block_ms
    asked = _asked(seen, known, ours, block_ms, most_off)
    changes = _changes(seen, known, ours, block_ms, most_off) if seen and live.is_active is not False else []
    if live.fault:
        state, changes = State.FAULT, [live.fault]
    elif live.is_active is False:
        state = State.ENDED
        changes = ["not active any more" if seen else "there is no such topic on chain"]
    elif known is None:
        state = State.NEW
    else:
        state = State.CHANGED if changes else State.SAME
    loss = _loss(seen, known)
    entry = _entry(live.topic_id, asked, loss, known, ours) if state in {State.NEW, State.CHANGED, State.SAME} else None
    epochs = _epochs_a_day(seen, block_ms)
    paid = live.paid if epochs else None
    return Row(
        network=network.chain_id,
        topic_id=live.topic_id,
        state=state,
        name=seen.metadata if seen else "",
        asked=asked,
        loss=loss,
        configured=ours is not None,
        changes=changes,
        twins=[] if state is State.ENDED else twins_of(network.chain_id, live.topic_id, asked, testnet),
        weight=seen.weight if seen else None,
        free_inferers=_free(network.most_inferers, live.inferers),
        free_forecasters=_free(network.most_forecasters, live.forecasters),
        paid_a_day=paid.total * epochs if paid and epochs else None,
        place_a_day=paid.median * epochs if paid and epochs else None,
        paid_by=f"{paid.source}, {paid.epochs} epoch{'s' if paid.epochs > 1 else ''}" if paid else "",
        entry=entry,
        refused=refusal(entry, network.chain_id) if entry else "",
    )


def _asked(
    seen: TopicSeen | None, known: CatalogueTopic | None, ours: Topic | None, block_ms: float | None, most_off: float
) -> Question:
    """Return the question by the name on chain, else by the catalogue or the config; its horizon must be the lag's."""
    asked = question_of(seen.metadata) if seen else Question("", "", "")
    if known and (not seen or not renamed(known, seen.metadata)):
        asked = Question(known.asset, known.target, known.horizon)
    elif ours and not asked.target:
        asked = Question(ours.token.upper(), ours.target.value, ours.horizon)
    lag = lag_ms(seen, block_ms) if seen else None
    if not asked.target or lag is None:
        return asked
    asked_ms = _horizon_ms(asked.horizon)
    fits = asked_ms and abs(lag / asked_ms - 1) <= most_off
    return asked if fits else asked._replace(horizon=_rounded(lag))


def _rounded(lag: float) -> str:
    """
    >>> _rounded(601_000.0), _rounded(28_780_000.0), _rounded(86_000_000.0)
    ('10m', '8h', '24h')
    """
    minutes = lag / MINUTE_MS
    step = 60 if minutes > 90 else 5 if minutes > 4 else 1
    return horizon_text(max(step, round(minutes / step) * step))


def _changes(
    seen: TopicSeen, known: CatalogueTopic | None, ours: Topic | None, block_ms: float | None, most_off: float
) -> list[str]:
    if known is None:
        faults = contract_faults(ours, seen, block_ms, most_off) if ours else []
        return [fault.what for fault in faults] if ours else _disagreeing(seen, block_ms, most_off)
    found = [f"name {seen.metadata[:80]!a}: {what}" for what in renamed(known, seen.metadata)]
    if known.target == CLASSIFICATION:
        return found if seen.is_multi else [*found, "a single value, the catalogue several labelled ones"]
    faults = contract_faults(_topic(known), seen, block_ms, most_off)
    found += [_WE.sub("the catalogue has", fault.what.partition(": ")[2]) for fault in faults if _counts(fault)]
    if not seen.in_seconds and seen.epoch_length != known.epoch_length_blocks:
        found.append(f"an epoch has {seen.epoch_length} blocks, the catalogue {known.epoch_length_blocks}")
    return found


def _counts(fault: Fault) -> bool:
    return fault.is_sure or fault.name == LOSS


def _disagreeing(seen: TopicSeen, block_ms: float | None, most_off: float) -> list[str]:
    """Say that a new topic's name and its lag ask for different horizons."""
    named, lag = question_of(seen.metadata), lag_ms(seen, block_ms)
    named_ms = _horizon_ms(named.horizon)
    if lag is None or not named_ms or abs(lag / named_ms - 1) <= most_off:
        return []
    return [f"{HORIZON}: the name says {named.horizon}, and the ground-truth lag is {lag / MINUTE_MS:,.1f} minutes"]


def _horizon_ms(text: str) -> int:
    """Return a horizon of a name in milliseconds; 0 if it is longer than any that can be answered."""
    try:
        return parse_horizon(text) * MINUTE_MS
    except ConfigError:
        return 0


def _topic(known: CatalogueTopic) -> Topic:
    return Topic(
        topic_id=known.topic_id,
        token=known.asset,
        symbol=default_symbol(known.asset),
        target=Target(known.target),
        horizon_min=parse_horizon(known.horizon),
        loss=LOSS_NAMES.get(known.loss, known.loss),
        volatility=Volatility(known.volatility) if known.volatility else Volatility.STD_HORIZON,
        network=known.network,
    )


def _loss(seen: TopicSeen | None, known: CatalogueTopic | None) -> str:
    given = seen.loss_method.strip().lower() if seen else known.loss if known else ""
    return LOSS_NAMES.get(given, given)


def _entry(
    topic_id: int, asked: Question, loss: str, known: CatalogueTopic | None, ours: Topic | None
) -> dict[str, object] | None:
    if not asked.asset:
        return None
    volatility = None
    if asked.target == Target.VOLATILITY:
        volatility = (known and known.volatility) or Volatility.STD_HORIZON.value
    parameters = {
        "Token": asked.asset,
        "Target": asked.target,
        "Horizon": asked.horizon,
        "Loss": loss,
        "Volatility": volatility,
    }
    return worker_entry(topic_id, parameters, (ours and ours.endpoint) or ENDPOINT)


def _epochs_a_day(seen: TopicSeen | None, block_ms: float | None) -> Decimal | None:
    if seen is None or not seen.epoch_length or not (seen.in_seconds or block_ms):
        return None
    return Decimal(DAY_MS / (seen.epoch_length * (SECOND_MS if seen.in_seconds or not block_ms else block_ms)))


def _free(most: int | None, taken: int | None) -> int | None:
    return None if most is None or taken is None else max(0, most - taken)
