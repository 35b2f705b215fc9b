"""What a question may look like; the routes' own tests ask the same over a socket."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inference.question import LARGEST_NUMBER, BadQuestion, Questions, echo, whole_number
from tests.inference.stand import BTC_8H, ETH_10M, ETH_24H


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


def test_a_token_alone_is_enough_where_one_topic_has_it() -> None:
    questions = Questions([ETH_10M, ETH_24H, BTC_8H])
    assert questions.topic("BTC", None) is BTC_8H
    assert questions.topic("ETH", 2) is ETH_24H
    with pytest.raises(BadQuestion, match="several"):
        questions.topic("ETH", None)
