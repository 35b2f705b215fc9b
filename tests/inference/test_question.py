"""What a question may look like; the routes' own tests ask the same over a socket."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.topic import Target
from inference.question import LARGEST_NUMBER, BadQuestion, Questions, echo, whole_number
from tests.inference.stand import BTC_8H, ETH_10M, ETH_24H, topic


@given(st.integers(0, LARGEST_NUMBER))
def test_every_height_of_the_chain_is_read(number: int) -> None:
    assert whole_number("height", [str(number)]) == number


@given(st.text())
def test_any_other_text_is_refused_in_one_printable_line(text: str) -> None:
    assume(not (text.isascii() and text.isdigit() and len(text) < 19))
    with pytest.raises(BadQuestion) as caught:
        whole_number("height", [text])
    assert caught.value.status == 400
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@given(st.text())
def test_an_echo_is_short_and_printable(text: str) -> None:
    shown = echo(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 63


SOL_MAIN = replace(topic(1, "SOL", 480, Target.LOG_RETURN), network="allora-mainnet-1")
ETH_MAIN = replace(topic(7, "ETH", 20), network="allora-mainnet-1")


def test_an_id_of_two_networks_needs_the_network() -> None:
    questions = Questions([ETH_10M, ETH_24H, SOL_MAIN, ETH_MAIN])
    assert questions.topic("ETH", 1, "allora-testnet-1") is ETH_10M
    assert questions.topic("SOL", 1, "allora-mainnet-1") is SOL_MAIN
    assert questions.topic("ETH", None, "allora-mainnet-1") is ETH_MAIN
    assert questions.topic("ETH", 2) is ETH_24H
    assert questions.topic("SOL", None) is SOL_MAIN


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        pytest.param(
            ("ETH", 1, None),
            400,
            "topic 1 is of several networks; add &network=allora-testnet-1 (ETH price 10m) or "
            "&network=allora-mainnet-1 (SOL log_return 8h)",
            id="no network",
        ),
        pytest.param(("ETH", 1, "allora-mainnet-1"), 400, "is about SOL", id="the other one's"),
        pytest.param(("ETH", 2, "allora-mainnet-1"), 404, "but for allora-testnet-1", id="not of that network"),
        pytest.param(("ETH", 2, "nowhere"), 404, "network 'nowhere'", id="a network nobody configured"),
        pytest.param(("SOL", None, "allora-testnet-1"), 404, "SOL is not configured", id="token, not of that network"),
        pytest.param(
            ("ETH", None, None),
            400,
            "1 (price 10m, allora-testnet-1), 2 (price 24h, allora-testnet-1), 7 (price 20m, allora-mainnet-1)",
            id="token of several",
        ),
    ],
)
def test_what_networks_do_not_settle_is_refused(
    asked: tuple[str, int | None, str | None], status: int, says: str
) -> None:
    with pytest.raises(BadQuestion) as caught:
        Questions([ETH_10M, ETH_24H, SOL_MAIN, ETH_MAIN]).topic(*asked)
    assert (caught.value.status, says in str(caught.value)) == (status, True), caught.value


def test_a_token_alone_is_enough_where_one_topic_has_it() -> None:
    questions = Questions([ETH_10M, ETH_24H, BTC_8H])
    assert questions.topic("BTC", None) is BTC_8H
    assert questions.topic("ETH", 2) is ETH_24H
    with pytest.raises(BadQuestion, match="several"):
        questions.topic("ETH", None)
