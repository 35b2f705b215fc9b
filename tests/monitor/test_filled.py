"""An inference of the network that was not read in time is made from the losses, if the formula is the chain's."""

from collections.abc import Callable
from decimal import Decimal

import numpy as np

from chain.synthesis import Regrets
from ledger.epochs import Arrival, Detail, Epoch, Inferer, Stage
from monitor.chain.filled import EpochRow, filled
from monitor.chain.results import results_of

WORKERS = ("a", "b", "c", "d")
MISSED = 70  # place of the epoch whose inference was not read


def economy(epochs: int = 80, published: Callable[[str], str] = str) -> list[EpochRow]:
    """Epochs of four workers around a truth of 100, newest first, settled two epochs later; ``a`` is ours."""
    rng = np.random.default_rng(5)
    regrets, absent, rows = Regrets(), Regrets(), list[Epoch]()
    for place in range(epochs):
        for regret, name in ((regrets, "combined_loss"), (absent, "combined_loss_without")):
            if place >= 2:
                old = rows[place - 2]
                regret.settle(getattr(old, name), {one.address: one.loss or "" for one in old.inside.inferers})
        values = {
            name: str(100 + float(rng.normal(0, spread))) for name, spread in zip(WORKERS, (1, 2, 3, 9), strict=True)
        }
        others = {name: value for name, value in values.items() if name != "a"}
        mean, mean_of_others = (str(np.mean([float(value) for value in some.values()])) for some in (values, others))
        combined = regrets.inference(values) or mean
        without = absent.inference(others) or mean_of_others
        epoch = Epoch(
            "net-1",
            1,
            30 * place + 30,
            0,
            0,
            Stage.SETTLED.value,
            worker="a",
            arrival=Arrival.EQUAL.value,
            active=True,
            value=values["a"],
            combined=published(combined),
            combined_without=published(without),
            combined_loss=loss_of(combined),
            combined_loss_without=loss_of(without),
            settled_height=30 * place + 90,
            detail=Detail(tuple(Inferer(name, value, loss_of(value)) for name, value in values.items())).packed(),
        )
        rows.append(epoch)
    return [(epoch, None) for epoch in reversed(rows)]


def loss_of(value: str) -> str:
    return str(np.log10((float(value) - 100) ** 2))


def without_one(rows: list[EpochRow]) -> tuple[list[EpochRow], Epoch]:
    place = len(rows) - 1 - MISSED
    missed = rows[place][0]
    gone = missed._replace(combined=None, combined_without=None)
    return [*rows[:place], (gone, None), *rows[place + 1 :]], missed


def test_an_inference_that_was_missed_is_made_by_the_chain_s_formula() -> None:
    rows, missed = without_one(economy())
    found, nonces = filled(rows)
    assert nonces == {missed.nonce}
    made = next(epoch for epoch, _ in found if epoch.nonce == missed.nonce)
    for own, there in ((made.combined, missed.combined), (made.combined_without, missed.combined_without)):
        assert abs(Decimal(own or 0) - Decimal(there or 0)) < Decimal("1e-12")
    assert [one.epoch.nonce for one in results_of(rows) if one.synthesised] == [missed.nonce]


def test_a_chain_with_another_formula_is_left_alone() -> None:
    rows, _ = without_one(economy(published=lambda text: str(float(text) * 1.01)))
    assert filled(rows) == (rows, set())


def test_a_short_record_is_left_alone() -> None:
    rows, _ = without_one(economy())
    short = rows[:30]
    assert filled(short) == (short, set())


def test_where_nothing_is_missing_nothing_is_touched() -> None:
    rows = economy(epochs=5)
    assert filled(rows) == (rows, set())
