"""What blocks settled, by their events: of the recorded chain, and in the form that newer chains are said to have."""

import json
from typing import Any

import pytest

from chain.events import settled_of
from chain.rpc import Rpc
from chain.versions import losses_of
from tests.fakes.chain_replay import OURS, ChainReplay, recorded
from tests.fakes.clock import FakeClock

LINES = recorded()
EVENTS = {line["block"]: line["events"] for line in LINES if "block" in line}
OTHER = "allo1n0hsul6c8gydt6hm9hg5nz9a0d4y3rdz79lp78"


def result_of(height: int, events: list[Any] | None = None, name: str = "finalize_block_events") -> Any:
    return {"height": str(height), "txs_results": None, name: EVENTS[height] if events is None else events}


def event(name: str, **attributes: Any) -> Any:
    """An event as a chain of release 0.17 has it."""
    said = [{"key": key, "value": json.dumps(value), "index": True} for key, value in attributes.items()]
    return {"type": f"emissions.v10.{name}", "attributes": [*said, {"key": "mode", "value": "EndBlock"}]}


def rewards(topic_id: int = 7, *, actor: str = "ACTOR_TYPE_INFERER_UNSPECIFIED", amount: str = "12.5") -> Any:
    return event(
        "EventRewardsSettled",
        actor_type=actor,
        topic_id=str(topic_id),
        block_height="160",
        addresses=[OURS],
        rewards=[amount],
        block_height_tx="160",
    )


def scores(nonce: int, topic_id: int = 7) -> Any:
    return event(
        "EventScoresSet",
        actor_type="ACTOR_TYPE_INFERER_UNSPECIFIED",
        topic_id=str(topic_id),
        block_height=str(nonce),
        addresses=[OURS],
        scores=["0.5"],
    )


def test_every_settlement_of_the_recorded_cut() -> None:
    with ChainReplay(LINES, clock=FakeClock(), height=480).running() as chain:
        rpc = Rpc([chain.url], chain.clock)
        settled = [
            one
            for height in range(chain.first, chain.height + 1)
            for one in rpc.ask("/block_results", {"height": height}, settled_of)
        ]
    epochs = [(one.topic_id, one.nonce, one.height) for one in settled]
    expected = [(1, 357), (1, 387), (1, 417), *((2, nonce) for nonce in range(275, 396, 30))]
    expected += [(3, nonce) for nonce in range(283, 404, 30)]
    assert sorted(epochs) == sorted((topic, nonce, nonce + 60) for topic, nonce in expected)
    assert {(one.topic_id, one.nonce) for one in settled if OURS not in one.rewards} == {(3, 343)}
    for one in settled:
        assert one.losses is not None
        assert set(one.rewards) == set(one.scores) == set(one.losses.inferers)
        assert one.losses.nonce == one.nonce


def test_the_events_losses_are_those_of_the_query() -> None:
    path = "/emissions/v5/network_loss/1/357"
    bodies = [json.loads(line["body"]) for line in LINES if line.get("path") == path]
    (told,) = {losses.combined: losses for body in bodies if (losses := losses_of(body)) is not None}.values()
    (one,) = settled_of(result_of(417))
    assert one.losses == told
    assert one.rewards[OURS].partition(".")[0].isdigit()


def test_losses_side_by_side_as_newer_chains_have_them() -> None:
    bundle = {
        "combined_value": "-8.5",
        "naive_value": "-8.25",
        "inferer_addresses": [OURS, OTHER],
        "forecaster_addresses": [],
        "inferer_values": ["-9.5", "1E-18"],
        "one_out_inferer_values": ["-7.5", "NaN"],
    }
    (one,) = settled_of(
        result_of(160, [event("EventNetworkLossSet", topic_id="7", nonce="100", bundle=bundle), rewards()])
    )
    assert (one.topic_id, one.nonce, one.height) == (7, 100, 160)
    assert one.losses is not None
    assert (one.losses.combined, one.losses.naive) == ("-8.5", "-8.25")
    assert one.losses.inferers == {OURS: "-9.5", OTHER: "1E-18"}
    assert one.losses.one_out == {OURS: "-7.5"}
    assert one.rewards == {OURS: "12.5"}


def test_rewards_are_nobodys_where_a_block_settled_two_epochs_of_a_topic() -> None:
    events = [scores(100), scores(130), scores(100, topic_id=8), rewards(), rewards(), rewards(8, amount="3")]
    told = {(one.topic_id, one.nonce): one.rewards for one in settled_of(result_of(160, events))}
    assert told == {(7, 100): {}, (7, 130): {}, (8, 100): {OURS: "3"}}


def test_rewards_and_scores_of_others_than_inferers_are_passed_over() -> None:
    events = [scores(100), rewards(actor="ACTOR_TYPE_REPUTER"), rewards(actor="ACTOR_TYPE_FORECASTER")]
    (one,) = settled_of(result_of(160, events))
    assert one.rewards == {}


def test_an_older_name_of_the_list_and_a_block_without_events() -> None:
    assert settled_of(result_of(417, EVENTS[417], "end_block_events")) == settled_of(result_of(417))
    assert settled_of({"height": "5", "finalize_block_events": None}) == []


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(event("EventScoresSet", topic_id="7", block_height="1", addresses=[OURS], scores=[]), id="uneven"),
        pytest.param(event("EventScoresSet", topic_id="7", block_height="1", addresses=["x"], scores=["1"]), id="who"),
        pytest.param(event("EventScoresSet", topic_id="seven"), id="topic"),
        pytest.param({"type": "a.EventScoresSet", "attributes": [{"key": "topic_id", "value": "{"}]}, id="no JSON"),
    ],
)
def test_a_broken_event_is_refused(broken: Any) -> None:
    with pytest.raises((ValueError, LookupError)):
        settled_of(result_of(160, [broken]))
