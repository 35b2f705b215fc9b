"""Values and texts of every form that a chain may write, and of forms that none may."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.addresses import MISREAD
from chain.versions import (
    inferences_of,
    latest_inference_of,
    losses_of,
    network_inference_of,
    reputer_losses_of,
    score_of,
    topic_of,
    value_of,
)
from tests.fakes.chain_replay import OURS, recorded
from tests.fakes.chain_versions import v10_of

OTHER = "allo1n0hsul6c8gydt6hm9hg5nz9a0d4y3rdz79lp78"
LINES = recorded()
PARSERS: Mapping[str, Callable[[Any], object]] = {
    "topics/2": topic_of,
    "inferences/2/1325": inferences_of,
    "network_loss/2/1325": losses_of,
    "reputer_loss_bundles/2/1325": reputer_losses_of,
    "latest_network_inferences/2": network_inference_of,
    f"inferer_score_ema/2/{OURS}": score_of,
}


def body_of(path: str) -> Any:
    return json.loads(next(line["body"] for line in LINES if line.get("path") == f"/emissions/v5/{path}"))


def values_body(value: Any, **fields: Any) -> Any:
    return {"inferences": {"inferences": [{"topic_id": "2", "block_height": "9", "inferer": OURS, **fields, **value}]}}


@pytest.mark.parametrize(
    "value", ["1e-18", "1E-18", "0.000000000000000001", "1e12", "1000000000000", "-0.5", "0", "2176.28280232"]
)
def test_a_value_passes_as_it_was_written(value: str) -> None:
    for written in ({"value": value}, {"values": [value]}, {"value": "", "values": [{"label": "y", "value": value}]}):
        (seen,) = inferences_of(values_body(written))
        assert (seen.nonce, seen.inferer, seen.value) == (9, OURS, value)


@pytest.mark.parametrize(
    "value",
    ["", "abc", "0x10", "1_000", " 1", "1 ", "1,5", "--1", "1e99999", "9" * 81, "Infinity", None, 1, 0.5, True, {}],
)
def test_what_is_no_decimal_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)) as caught:
        inferences_of(values_body({"value": value}))
    assert len(str(caught.value)) < 300


def test_several_labelled_values_are_kept_together() -> None:
    entries = [{"label": "up", "value": "0.2"}, {"label": "down", "value": "0.3"}, {"label": "none", "value": "0.5"}]
    text = '[["up","0.2"],["down","0.3"],["none","0.5"]]'
    own = {"topic_id": "87", "block_height": "9", "inferer": OURS, "values": entries, "extra_data": None, "proof": ""}
    seen = latest_inference_of({"latest_input_inference": own})
    assert seen is not None
    assert seen.value == text
    named = [{"label_id": at, "label_name": one["label"], "value": one["value"]} for at, one in enumerate(entries)]
    bundle = {
        "topic_id": "87",
        "block_height": "12",
        "combined_value": named,
        "naive_value": named,
        "inferer_values": [{"worker": OURS, "values": named}],
        "one_out_inferer_values": [{"withheld_inferer": OURS, "combined_inference": named}],
    }
    network = network_inference_of({"network_inferences": bundle, "inference_block_height": "9"})
    assert network is not None
    assert (network.height, network.combined, network.naive) == (12, text, text)
    assert (network.inferers, network.one_out) == ({OURS: text}, {OURS: text})
    assert value_of(["0.2", "0.8"]) == '[["","0.2"],["","0.8"]]'  # the labels are known by their place alone


def test_a_topic_with_labels() -> None:
    body = v10_of("topics", body_of("topics/2"))
    body["topic"] |= {"output_arity": "TOPIC_OUTPUT_ARITY_MULTI", "label_whitelist": ["up", "down", "x\x1b[31my"]}
    topic = topic_of(body)
    assert (topic.is_multi, topic.labels) == (True, ("up", "down", "x [31my"))


@pytest.mark.parametrize("form", ["180s", "_seconds"])
def test_a_topic_whose_lengths_are_seconds(form: str) -> None:
    body = body_of("topics/2")
    for name in ("epoch_length", "ground_truth_lag", "worker_submission_window"):
        del body["topic"][name]
        body["topic"] |= {name: form} if form == "180s" else {f"{name}_seconds": "180"}
    topic = topic_of(body)
    assert (topic.in_seconds, topic.epoch_length, topic.ground_truth_lag, topic.window) == (True, 180, 180, 180)


def test_a_hostile_name_is_cut_and_made_plain() -> None:
    body = body_of("topics/2")
    body["topic"]["metadata"] = "<script>\x1b]0;x\x07\u202e\n" + "y" * 10_000
    topic = topic_of(body)
    assert len(topic.metadata) == 300
    assert topic.metadata.isprintable()


@pytest.mark.parametrize(
    "who", ["", "allo1", "allo1" + "q" * 100, "cosmos1yjy7uan0rtsxz2jm33xfhjawuhvz8pfveqd7l3", OURS.upper(), None]
)
def test_an_address_of_no_form_is_refused(who: Any) -> None:
    with pytest.raises((ValueError, LookupError)):
        inferences_of(values_body({"value": "1", "inferer": who}))


def test_fields_that_are_not_known_are_passed_over() -> None:
    def with_more(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: with_more(one) for name, one in value.items()} | {"new_field": {"a": [1, None]}, "z": "?"}
        return [with_more(one) for one in value] if isinstance(value, list) else value

    for path, parse in PARSERS.items():
        assert parse(with_more(body_of(path))) == parse(body_of(path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(path=st.sampled_from(sorted(PARSERS)), data=st.data())
def test_a_body_with_anything_in_any_place_is_read_or_refused(path: str, data: st.DataObject) -> None:
    body = body_of(path)
    place: Any = {"body": body}
    key: Any = "body"
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans() | st.just(value=True)):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = data.draw(JSON)
    with suppress(*MISREAD):  # what Addresses.attempt calls another form
        PARSERS[path](body)


def losses_body(**fields: Any) -> Any:
    body = body_of("network_loss/2/1325")
    body["loss_bundle"] |= fields
    return body


def test_losses_of_no_inferer_one_inferer_and_of_exactly_zero() -> None:
    nobody = losses_of(losses_body(inferer_values=[], one_out_inferer_values=[]))
    assert nobody is not None
    assert (nobody.nonce, nobody.inferers, nobody.one_out) == (1325, {}, {})
    alone = losses_of(losses_body(inferer_values=[{"worker": OURS, "value": "0"}], one_out_inferer_values=None))
    assert alone is not None
    assert (alone.inferers, alone.one_out) == ({OURS: "0"}, {})


def test_a_loss_that_could_not_be_calculated_is_left_out() -> None:
    values = [{"worker": OURS, "value": "NaN"}, {"worker": OTHER, "value": "-3.5"}]
    losses = losses_of(losses_body(one_out_inferer_values=values, naive_value="NaN"))
    assert losses is not None
    assert losses.one_out == {OTHER: "-3.5"}
    assert losses.naive == "NaN"


def test_a_list_without_end_is_refused() -> None:
    many = [{"worker": OURS, "value": "1"}] * 10_001
    with pytest.raises(ValueError, match="at most 10000"):
        losses_of(losses_body(inferer_values=many))
