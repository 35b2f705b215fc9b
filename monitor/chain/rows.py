"""An epoch's row, and how it grows with what is read from the chain. Nothing here asks a host or the database."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from chain.shapes import Inference, NetworkInference, Reputers, Settled
from core.topic import Topic
from ledger.answers import Answer
from ledger.epochs import Arrival, Detail, Epoch, Inferer, Stage

LARGEST = Decimal("1e100")  # of a number that is kept: no price, loss or amount comes near it


def opened(topic: Topic, nonce: int, block_ms: int | None) -> Epoch:
    """Return the row of an epoch of which nothing is known but its nonce."""
    return Epoch(topic.network or "", topic.topic_id, nonce, block_ms, 0, Stage.OPEN.value, worker=topic.worker)


def with_value(epoch: Epoch, value: str | None) -> Epoch:
    """Return the row with our worker's value on chain; None: the chain was read in time and had none."""
    if value is None:
        return epoch if epoch.value is not None else epoch._replace(arrival=Arrival.ABSENT.value)
    return epoch._replace(value=value)


def with_inferences(epoch: Epoch, inferences: Sequence[Inference]) -> Epoch:
    """Return the row with the epoch's active set; an empty one: no worker was in it."""
    values = {one.inferer: one.value for one in inferences}
    own = values.get(epoch.worker)
    return epoch._replace(
        stage=Stage.CLOSED.value,
        active=epoch.worker in values if epoch.worker else None,
        value=epoch.value if own is None else own,
        detail=Detail(tuple(Inferer(address, number(value)) for address, value in values.items())).packed(),
    )


def is_of(network: NetworkInference, epoch: Epoch) -> bool:
    """True if the network's inference was made of the epoch's active set: it does not carry the epoch's nonce."""
    ours = {one.address: one.value for one in epoch.inside.inferers}
    return bool(network.inferers) and all(
        are_equal(value, ours.get(address) or "") for address, value in network.inferers.items()
    )


def with_network(epoch: Epoch, network: NetworkInference) -> Epoch:
    """Return the row with the network's inference."""
    inside = epoch.inside
    inferers = tuple(one._replace(one_out=number(network.one_out.get(one.address))) for one in inside.inferers)
    return epoch._replace(
        combined=number(network.combined),
        naive=number(network.naive),
        combined_without=number(network.one_out.get(epoch.worker)),
        detail=inside._replace(inferers=inferers).packed(),
    )


def with_settled(epoch: Epoch, settled: Settled, height: int | None) -> Epoch:
    """Return the row with losses, scores and rewards.

    Args:
        height: of the block that settled the epoch; None if it is not known.
    """
    losses, inside, worker = settled.losses, epoch.inside, epoch.worker
    of_losses: Mapping[str, str] = losses.inferers if losses else {}
    known = {one.address: one for one in inside.inferers}
    inferers = tuple(
        known.get(address, Inferer(address))._replace(
            loss=number(of_losses.get(address)),
            score=number(settled.scores.get(address)),
            reward=number(settled.rewards.get(address)),
        )
        for address in dict.fromkeys((*known, *of_losses, *settled.scores))
    )
    reward = settled.rewards.get(worker)
    if reward is None and settled.rewards and worker in of_losses:
        reward = "0"  # seen: the block names all whom it paid
    return epoch._replace(
        stage=Stage.SETTLED.value,
        # Scored is who is in the active set.
        active=worker in of_losses if worker and of_losses and not inside.inferers else epoch.active,
        combined_loss=number(losses.combined) if losses else None,
        naive_loss=number(losses.naive) if losses else None,
        combined_loss_without=number(losses.one_out.get(worker)) if losses else None,
        loss=number(of_losses.get(worker)),
        score=number(settled.scores.get(worker)),
        score_ema=number(settled.score_emas.get(worker)),
        reward=number(reward),
        settled_height=height,
        detail=inside._replace(inferers=inferers).packed() if inferers else epoch.detail,
    )


def with_reputers(epoch: Epoch, reputers: Reputers) -> Epoch:
    """Return the row with each reputer's own losses."""
    if not reputers.losses:
        return epoch
    losses = {address: dict(one.inferers) for address, one in reputers.losses.items()}
    return epoch._replace(detail=epoch.inside._replace(reputers=losses, stakes=dict(reputers.stakes)).packed())


def judged(epoch: Epoch, answer: Answer | None) -> Epoch:
    """Return the row with its arrival, and with the names of what could not be seen."""
    arrival = epoch.arrival
    if epoch.value is not None:
        same = answer is not None and are_equal(epoch.value, answer.value)
        arrival = Arrival.EQUAL.value if same else Arrival.OTHER.value
    return epoch._replace(arrival=arrival, missing=",".join(_unseen(epoch._replace(arrival=arrival))))


def _unseen(epoch: Epoch) -> Iterable[str]:
    if epoch.block_ms is None:
        yield "block_ms"
    if epoch.stage == Stage.OPEN:
        return
    if epoch.detail is None:
        yield "inferers"
    elif not epoch.inside.inferers:
        return  # nobody answered: there is nothing else to see
    if epoch.worker and epoch.arrival == Arrival.UNKNOWN:
        yield "value"
    if epoch.combined is None:
        yield from ("combined", "naive")
    if epoch.stage == Stage.CLOSED:
        return
    if epoch.combined_loss is None:
        yield from ("combined_loss", "naive_loss")
    if epoch.worker and epoch.active is not False:
        own = {"loss": epoch.loss, "score": epoch.score, "score_ema": epoch.score_ema, "reward": epoch.reward}
        yield from (name for name, text in own.items() if text is None)


def number(text: str | None) -> str | None:
    """Return a decimal as the chain wrote it; None for a text that nothing can be calculated with.

    The chain writes NaN where it cannot calculate a value, and a topic of several labelled values has a list.

    >>> number("0.50"), number("NaN"), number('[["up","0.5"],["down","0.25"]]'), number("1e9999"), number(None)
    ('0.50', None, None, None, None)
    """
    try:
        value = Decimal(text or "")
    except InvalidOperation:
        return None
    return text if value.is_finite() and abs(value) < LARGEST else None


def are_equal(one: str, other: str) -> bool:
    """True if two texts are the same decimal.

    >>> are_equal("1E-7", "0.00000010"), are_equal("0.1", "0.10000000000000000001"), are_equal("nan", "nan")
    (True, False, False)
    """
    try:
        return Decimal(one) == Decimal(other)
    except InvalidOperation:
        return False
