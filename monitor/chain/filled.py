"""The network's inference in epochs where the monitor read the values and losses, but not the network's inference."""

from collections.abc import Sequence
from decimal import Decimal

from chain.synthesis import Regrets
from ledger.answers import Answer
from ledger.epochs import Epoch

LEAST_SETTLED = 40  # epochs behind the regrets: the share of their unknown start is below 1.5 % then
COMPARED = 3  # newest published inferences that the formula must give
CLOSE = Decimal("0.001")  # of the published one

EpochRow = tuple[Epoch, Answer | None]  # an epoch, and our answer to its nonce


def filled(rows: Sequence[EpochRow]) -> tuple[list[EpochRow], set[int]]:
    """Fill in the network's inference, with and without our value, by the chain's own synthesis where that fits.

    Args:
        rows: newest first.
    Returns:
        the rows, and the nonces of those in which something was filled in.
    """
    if not any(_lacks(epoch) for epoch, _ in rows):
        return list(rows), set()
    made = _synthesised([epoch for epoch, _ in reversed(rows)])
    published = [epoch for epoch, _ in rows if epoch.combined is not None and epoch.nonce in made][:COMPARED]
    if len(published) < COMPARED or not all(_is_close(made[epoch.nonce][0], epoch.combined) for epoch in published):
        return list(rows), set()
    known = {epoch.nonce: made[epoch.nonce] for epoch, _ in rows if _lacks(epoch) and epoch.nonce in made}
    return [
        (
            epoch._replace(combined=known[epoch.nonce][0], combined_without=known[epoch.nonce][1])
            if epoch.nonce in known
            else epoch,
            answer,
        )
        for epoch, answer in rows
    ], set(known)


def _lacks(epoch: Epoch) -> bool:
    return epoch.combined is None and epoch.detail is not None


def _synthesised(epochs: Sequence[Epoch]) -> dict[int, tuple[str, str | None]]:
    """The network's inference with and without our value by nonce, of epochs in their order."""
    made, regrets, absent = {}, Regrets(), Regrets()
    waiting, settled = list[Epoch](), 0
    for epoch in epochs:
        while waiting and (waiting[0].settled_height or 0) <= epoch.nonce:
            one = waiting.pop(0)
            losses = {worker.address: worker.loss for worker in one.inside.inferers if worker.loss is not None}
            regrets.settle(one.combined_loss or "0", losses)
            if one.combined_loss_without is not None:
                absent.settle(one.combined_loss_without, losses)
            settled += 1
        values = {worker.address: worker.value for worker in epoch.inside.inferers if worker.value is not None}
        if settled >= LEAST_SETTLED and (inference := regrets.inference(values)) is not None:
            others = {address: value for address, value in values.items() if address != epoch.worker}
            made[epoch.nonce] = inference, absent.inference(others) if len(others) < len(values) else None
        if epoch.combined_loss is not None and epoch.settled_height is not None:
            waiting.append(epoch)
    return made


def _is_close(made: str, published: str | None) -> bool:
    return published is not None and abs(Decimal(made) - Decimal(published)) <= CLOSE * abs(Decimal(published))
