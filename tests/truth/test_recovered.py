"""Truths solved for from values and losses: exact where one reputer scored, never a wrong one."""

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.losses import LOSSES, Loss, loss_named
from ledger.epochs import Detail, Inferer
from truth.recovered import Recovered, recover, recover_epoch

Texts = dict[str, str]

# Recorded from a local chain on 2026-11-30: topic 2 at nonce 395, and topic 1 at nonce 987 with a second reputer.
ALONE = (
    {
        "xyvm": "0.000101403638177537",
        "lp78": "0.000114264275222767",
        "42tj": "0.072498000000000007",
        "d7l3": "0.00011485318547484492",
    },
    {
        "xyvm": "-9.248437650383729881132746905977683",
        "lp78": "-8.872632893119080744690468222779938",
        "42tj": "-2.280278727745467910436585197870200",
        "d7l3": "-8.858774570061425339772448454948354",
    },
    Decimal("0.000077647208328274"),
)
AMONG = (
    {
        "xyvm": "2169.27820163",
        "lp78": "2175.20762889",
        "ttdq": "2220.11058912",
        "42tj": "2281.65783487",
        "d7l3": "2173.00746178",
    },
    {
        "xyvm": "1.250121663940488929181915969255571",
        "lp78": "0.4668910631458668603471357707708357",
        "ttdq": "3.337047330519767958872712926497338",
        "42tj": "4.068149661662584147146803212987399",
        "d7l3": "-0.6221199563394938909346897484298438",
    },
    (Decimal("2173.49600044"), Decimal("2172.01193021")),
)
DISAGREE = "the inferers' values and losses do not agree on a truth"
OF_RETURNS = [loss for loss in LOSSES if loss.of_returns]


def published(
    loss: Loss, values: Sequence[float], truths: Sequence[float], stakes: Sequence[float], std: float, *, is_log: bool
) -> tuple[Texts, Texts]:
    """Values and losses as the chain publishes them: averaged over the reputers by stake."""
    made = [np.asarray(loss(np, np.float64(truth), np.array(values), np.float64(std))) for truth in truths]
    sent = [np.log10(one + 1e-100) if is_log else one for one in made]
    mean = np.average(sent, axis=0, weights=stakes)
    return texts(values), texts(mean)


def texts(numbers: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Texts:
    return {f"allo{number}": repr(float(one)) for number, one in enumerate(numbers)}


def told(found: Recovered | str) -> Recovered:
    assert isinstance(found, Recovered), found
    return found


def test_a_recorded_epoch_of_one_reputer_gives_the_planted_truth() -> None:
    values, losses, truth = ALONE
    found = told(recover(values, losses, "mse"))
    assert abs(found.truth / truth - 1) < Decimal("1e-15")
    assert found.error < truth * Decimal("1e-9")
    assert (found.is_log, len(found.inferers)) == (True, 4)


def test_any_two_inferers_of_it_do() -> None:
    values, losses, truth = ALONE
    names = sorted(values)
    for first in names:
        for second in names:
            if first < second:
                pair = {name: losses[name] for name in (first, second)}
                assert abs(told(recover(values, pair, "mse")).truth / truth - 1) < Decimal("1e-9")


def test_a_recorded_epoch_of_two_reputers_gives_a_truth_between_theirs() -> None:
    values, losses, truths = AMONG
    assert min(truths) <= told(recover(values, losses, "mse")).truth <= max(truths)


@pytest.mark.parametrize("is_log", [True, False], ids=["log10", "raw"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_every_loss_is_solved_whether_its_logarithm_is_published_or_not(loss: Loss, is_log: bool) -> None:
    rng = np.random.default_rng(5)
    for _ in range(4):
        std = 0.002
        truth = float(rng.normal(0, std))
        values, losses = published(loss, rng.normal(0, std, 4).tolist(), [truth], [1], std, is_log=is_log)
        for spelling in (loss.name, *loss.spellings):
            found = told(recover(values, losses, spelling))
            assert abs(float(found.truth) - truth) < 1e-6 * std
            assert found.is_log is is_log
        assert found.std is None or found.std == pytest.approx(std, rel=1e-4)


@pytest.mark.parametrize("loss", OF_RETURNS, ids=lambda loss: loss.name)
def test_two_inferers_are_enough_for_it_where_the_deviation_is_known_and_else_it_is_said(loss: Loss) -> None:
    std, truth = 0.002, 0.0011
    values, losses = published(loss, [0.0004, -0.0007], [truth], [1], std, is_log=True)
    assert float(told(recover(values, losses, loss.name, std=std)).truth) == pytest.approx(truth, rel=1e-6)
    assert recover(values, losses, loss.name) == "the inferers with different values are too few for this loss"
    assert recover(values, losses, loss.name, std=std * 1.1) == DISAGREE


@pytest.mark.parametrize("by", [1000.0, 1 / 1000])
def test_a_reputer_who_lies_is_told_from_the_others(by: float) -> None:
    values = [1990.0, 2003.0, 2011.0, 1985.0, 2002.0 * by]
    scored = published(loss_named("mse"), values, [2000.0, 2000.0, 2090.0], [1, 1.2, 0.9], 1, is_log=True)
    assert float(told(recover(*scored, "mse")).truth) == pytest.approx(2000, rel=1e-6)


def test_reputers_of_equal_weight_who_disagree_are_said() -> None:
    scored = published(loss_named("mse"), [1990, 2003, 2011, 1985, 2020], [2000, 2090], [1, 1], 1, is_log=True)
    assert recover(*scored, "mse") == "the reputers score against two truths of about equal weight"


def test_with_each_reputers_losses_the_majority_of_the_stakes_decides() -> None:
    values = [1990.0, 2003.0, 2011.0]
    truths, stakes = {"a": 2000.0, "b": 2000.1, "c": 2200.0}, {"a": "30", "b": "25", "c": "45"}
    each = {
        reputer: published(loss_named("mse"), values, [truth], [1], 1, is_log=True)[1]
        for reputer, truth in truths.items()
    }
    bundle = published(loss_named("mse"), values, [*truths.values()], [30, 25, 45], 1, is_log=True)[1]
    inferers = tuple(Inferer(address=name, value=value, loss=bundle[name]) for name, value in texts(values).items())
    found = told(recover_epoch(Detail(inferers, each, stakes), "mse"))
    assert float(found.truth) == pytest.approx(2000.1)
    assert float(found.error) == pytest.approx(0.1)


SAID = {
    "no values": ({}, {"a": "1"}, "the inferers' values were not read"),
    "no losses": ({"a": "1"}, {}, "the inferers' losses were not read"),
    "nobody has both": ({"a": "1"}, {"b": "1"}, "no inferer has both a value and a loss that are numbers"),
    "not numbers": ({"a": "x", "b": "1"}, {"a": "1", "b": "NaN"}, "no inferer has both a value and a loss"),
    "a single inferer": ({"a": "1"}, {"a": "0.5"}, "a single inferer"),
    "equal values": ({"a": "1", "b": "1.0"}, {"a": "0.5", "b": "0.5"}, "the 2 inferers' values are equal"),
    "zeros": ({"a": "1", "b": "3"}, {"a": "0", "b": "0.00"}, "every loss is exactly zero"),
    "another inferer's loss": ({"a": "1", "b": "3"}, {"a": "0.5", "b": "0.5001"}, DISAGREE),
    "clipped": ({"a": "1", "b": "5", "c": "9"}, {"a": "2", "b": "2", "c": "2"}, DISAGREE),
    "beyond a double": ({"a": "1", "b": "3"}, {"a": "1e999999", "b": "1"}, "a single inferer"),
}


@pytest.mark.parametrize(("values", "losses", "said"), SAID.values(), ids=SAID)
def test_what_has_no_truth_gets_a_sentence(values: Texts, losses: Texts, said: str) -> None:
    found = recover(values, losses, "mse")
    assert isinstance(found, str)
    assert found.startswith(said)


def test_a_loss_that_is_not_known_gets_a_sentence() -> None:
    assert recover({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, "focal") == (
        "the loss 'focal' is not known here, so it cannot be solved"
    )


@pytest.mark.parametrize("truth", ["1E-18", "1E+12"])
def test_values_of_any_size_are_solved(truth: str) -> None:
    values = {str(number): str(Decimal(truth) * factor) for number, factor in enumerate((2, 3, 7))}
    losses = {name: str((Decimal(value) - Decimal(truth)) ** 2) for name, value in values.items()}
    assert told(recover(values, losses, "mse")).truth == pytest.approx(Decimal(truth), rel=Decimal("1e-12"))


def test_values_of_both_sizes_tell_nothing_of_the_small_one() -> None:
    values = {"a": "1e12", "b": "3e-18"}
    losses = {name: repr(float((Decimal(value) - Decimal("1e-18")) ** 2)) for name, value in values.items()}
    assert recover(values, losses, "mse") == (
        "the inferers agree on two truths: their values are too few, or too far off, to tell which"
    )


def test_a_floored_loss_is_left_out_where_enough_others_agree() -> None:
    values = {"a": "2000", "b": "2010", "c": "1985", "d": "1990"}
    losses = {"a": "-6", "b": "2", "c": repr(float(np.log10(225))), "d": "2"}
    found = told(recover(values, losses, "mse"))
    assert float(found.truth) == pytest.approx(2000)
    assert found.inferers == ("b", "c", "d")


def test_an_exact_hit_is_solved_through_its_floor() -> None:
    found = told(recover({"a": "2000", "b": "2010"}, {"a": "-100", "b": "2"}, "mse"))
    assert float(found.truth) == pytest.approx(2000, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1900, 2100), st.floats(-3, 4)), min_size=2, max_size=6),
    st.sampled_from([loss.name for loss in LOSSES]),
)
def test_losses_of_nothing_never_give_an_exact_truth(pairs: list[tuple[float, float]], name: str) -> None:
    values, losses = (texts([pair[place] for pair in pairs]) for place in (0, 1))
    found = recover(values, losses, name)
    if isinstance(found, Recovered):  # round numbers may agree by chance: then the equations hold
        for one in found.inferers:
            loss = float(losses[one])
            made = float(loss_named(name)(np, float(found.truth), float(values[one]), found.std or 1.0))
            assert made == pytest.approx(10**loss if found.is_log else loss, rel=0.05, abs=1e-9)
