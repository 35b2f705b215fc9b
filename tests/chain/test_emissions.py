"""Each read of a network, of three versions of the API, over a real server that replays a recorded chain."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chain.addresses import ChainFault, Untold
from chain.emissions import Emissions
from chain.lcd import Lcd
from chain.shapes import Access, Reputers, ScoreSeen, Upgrade
from tests.fakes.chain_replay import OURS, ChainReplay, recorded
from tests.fakes.clock import FakeClock
from tests.fakes.venue_server import Answer

STRANGER = "allo16wej6r0n9rk2ylk2hyd8ulmkjvc8s6zmqk99a7"
LINES = recorded()
HEIGHT = 436  # topic 1: nonce 417 closed, 357 settled; topic 3: nonce 433 open, 373 settled; topic 2: 425 open
VERSIONS = ["v5", "v9", "v10"]  # v9 and v10 as documented, not as seen


@pytest.fixture(params=VERSIONS)
def chain(request: pytest.FixtureRequest) -> Iterator[ChainReplay]:
    with ChainReplay(LINES, clock=FakeClock(), height=HEIGHT).running() as chain:
        chain.api = request.param
        yield chain


@pytest.fixture
def emissions(chain: ChainReplay) -> Emissions:
    return reader(chain)


def reader(chain: ChainReplay) -> Emissions:
    return Emissions(chain.chain_id, Lcd([chain.url], chain.clock))


def test_the_host(chain: ChainReplay, emissions: Emissions) -> None:
    host = emissions.host()
    assert (host.chain_id, host.api, host.release) == ("localnet", chain.api, "0.6.0")
    assert (host.height, host.time_ms, host.catching_up) == (chain.height, chain.time_of(chain.height), False)


def test_a_topic(emissions: Emissions) -> None:
    topic = emissions.topic(2)
    assert topic is not None
    assert (topic.topic_id, topic.metadata, topic.loss_method) == (2, "local BTC 15min logreturn", "mse")
    assert (topic.epoch_length, topic.ground_truth_lag, topic.window, topic.in_seconds) == (30, 30, 12, False)
    assert (topic.newest_nonce, topic.allow_negative, topic.is_multi, topic.labels) == (425, True, False, ())
    assert topic.weight.startswith("1342")
    assert emissions.is_active(2) is True
    assert emissions.next_topic_id() == 4


def test_an_epochs_values_losses_and_scores(emissions: Emissions) -> None:
    values = emissions.inferences(3, 373)
    losses = emissions.losses(3, 373)
    scores = emissions.scores(3, 373)
    assert losses is not None
    assert len(values) == len(losses.inferers) == len(losses.one_out) == len(scores) == 5
    assert {one.inferer for one in values} == set(losses.inferers) == set(scores)
    assert {one.value for one in values if one.inferer == OURS} == {"0.00010495457159147379"}
    assert losses.inferers[OURS].startswith("-9.5102")
    assert losses.nonce == 373


def test_our_own_newest_value_is_told_while_the_window_is_open(emissions: Emissions) -> None:
    own = emissions.latest_inference(3, OURS)
    assert own is not None
    assert (own.nonce, own.inferer, own.value) == (433, OURS, "0.00012379827401917822")
    assert emissions.open_nonces(3) == (433,)


def test_what_we_may_do(chain: ChainReplay, emissions: Emissions) -> None:
    told = None if chain.api == "v5" else True  # the recorded version has no such paths
    assert emissions.access(2, OURS) == Access(registered=True, whitelisted=told, can_submit=told)
    assert emissions.access(2, STRANGER).registered is False


def test_the_network_now(chain: ChainReplay, emissions: Emissions) -> None:
    seen = emissions.network_inference(3)
    assert seen is not None
    assert set(seen.inferers) == set(seen.one_out)
    assert OURS in seen.inferers
    assert (seen.height, seen.nonce) == (HEIGHT, 403)  # of the query, and of the newest epoch that has closed
    assert bool(seen.weights) == (chain.api == "v5")  # newer versions have none in this answer
    assert float(seen.combined) > 0


def test_scores_stakes_and_money(emissions: Emissions) -> None:
    ema = emissions.score_ema(1, OURS)
    assert ema is not None
    assert ema.nonce == 357
    assert emissions.reward_fraction(1, OURS) == "0.4754700514521029607305356525441690"
    assert emissions.balance(OURS) == "1000060041482639652575178"
    assert (emissions.last_worker_nonce(1), emissions.last_reputer_nonce(1)) == (417, 357)
    params = emissions.params()
    assert (params["max_top_inferers_to_reward"], params["data_sending_fee"]) == ("32", "10")


def test_each_reputers_losses_with_its_stake(emissions: Emissions, chain: ChainReplay) -> None:
    chain.bodies["reputer_loss_bundles/2/425"] = renamed(chain, "reputer_loss_bundles/2/1325", "1325", "425")
    seen = emissions.reputers(2, 425)
    assert len(seen.losses) == 2
    assert {len(losses.inferers) for losses in seen.losses.values()} == {5}
    assert {losses.nonce for losses in seen.losses.values()} == {425}
    assert set(seen.stakes.values()) == {"6212721832627303153"}


def renamed(chain: ChainReplay, path: str, old: str, new: str) -> Answer:
    """The recorded body of another epoch."""
    body = next(line["body"] for line in LINES if line.get("path", "").endswith(path))
    return Answer(body.replace(f'"{old}"', f'"{new}"'))


# What is not there has many forms, and none of them is a fault of the host.
NOT_THERE: dict[str, tuple[Callable[[Emissions], Any], Any]] = {
    "topic": (lambda of: of.topic(99), None),
    "topic is active": (lambda of: of.is_active(99), None),
    "own value after the window": (lambda of: of.latest_inference(1, OURS), None),
    "own value of a stranger": (lambda of: of.latest_inference(2, STRANGER), None),
    "values of an open window": (lambda of: of.inferences(3, 433), ()),
    "values of an epoch that was pruned": (lambda of: of.inferences(1, 297), ()),
    "losses before the settlement": (lambda of: of.losses(1, 417), None),
    "losses at a height that is no nonce": (lambda of: of.losses(1, 418), None),
    "losses of an epoch that was pruned": (lambda of: of.losses(1, 297), None),
    "scores before the settlement": (lambda of: of.scores(1, 417), {}),
    "losses of reputers": (lambda of: of.reputers(1, 417), Reputers()),
    "lowest score": (lambda of: of.lowest_score(2), None),
    "active set between two windows": (lambda of: of.active_inferers(2), ()),
    "active forecasters": (lambda of: of.active_forecasters(2), ()),
    "open nonces": (lambda of: of.open_nonces(1), ()),
    "score of a stranger": (lambda of: of.score_ema(2, STRANGER), ScoreSeen(nonce=0, score="0")),
    "balance of a stranger": (lambda of: of.balance(STRANGER), "0"),
    "upgrade": (lambda of: of.upgrade(), None),
    "gas price": (lambda of: of.gas_price(), None),
}


@pytest.mark.parametrize(("ask", "told"), NOT_THERE.values(), ids=NOT_THERE)
def test_what_is_not_there(chain: ChainReplay, ask: Callable[[Emissions], Any], told: Any) -> None:
    emissions = reader(chain)
    assert ask(emissions) == told
    assert emissions.host().height == chain.height  # the host is well


@pytest.mark.parametrize(
    ("path", "body", "ask", "told"),
    [
        pytest.param("network_loss/1/357", '{"loss_bundle":null}', lambda of: of.losses(1, 357), None, id="losses"),
        pytest.param("inferences/1/357", '{"inferences":null}', lambda of: of.inferences(1, 357), (), id="values"),
        pytest.param(
            "inferences/1/357",
            '{"inferences":{"inferences":null}}',
            lambda of: of.inferences(1, 357),
            (),
            id="list of values",
        ),
        pytest.param(
            "worker_inference_scores_at_block/1/357",
            '{"scores":null}',
            lambda of: of.scores(1, 357),
            {},
            id="scores",
        ),
        pytest.param(
            "unfulfilled_worker_nonces/1", '{"nonces":null}', lambda of: of.open_nonces(1), (), id="open nonces"
        ),
        pytest.param(
            "topic_last_worker_commit_info/1",
            '{"last_commit":null}',
            lambda of: of.last_worker_nonce(1),
            None,
            id="last commit",
        ),
        pytest.param(
            f"previous_inference_reward_fraction/1/{OURS}",
            '{"reward_fraction":"0","not_found":true}',
            lambda of: of.reward_fraction(1, OURS),
            None,
            id="reward fraction",
        ),
        pytest.param(
            "latest_network_inferences/1",
            '{"network_inferences":null}',
            lambda of: of.network_inference(1),
            None,
            id="network inference",
        ),
    ],
)
def test_null_and_nothing(path: str, body: str, ask: Callable[[Emissions], Any], told: Any) -> None:
    with ChainReplay(LINES, clock=FakeClock(), height=HEIGHT).running() as chain:
        chain.bodies[path] = Answer(body)
        assert ask(reader(chain)) == told


RECORDED_REFUSALS = {line["path"]: (line["status"], line["body"]) for line in LINES if line.get("status", 200) != 200}


@pytest.mark.parametrize("path", RECORDED_REFUSALS)
def test_each_recorded_refusal_is_sorted(path: str) -> None:
    """Not there, not told, or not spoken: no recorded refusal is a fault that would let the host rest."""
    with ChainReplay(LINES, clock=FakeClock(), height=HEIGHT).running() as chain:
        status, body = RECORDED_REFUSALS[path]
        chain.bodies["topics/2"] = Answer(body, status)
        emissions = reader(chain)
        code = json.loads(body)["code"]
        is_not_there = code == 5 or "not found" in body or "getting topic" in body
        if is_not_there:
            assert emissions.topic(2) is None
        else:
            with pytest.raises(Untold, match="topics/2"):
                emissions.topic(2)
        assert emissions.next_topic_id() == 4  # at once: the host does not rest


def test_a_path_that_the_version_has_not_is_asked_once() -> None:
    with ChainReplay(LINES, clock=FakeClock(), height=HEIGHT).running() as chain:
        emissions = reader(chain)
        for _ in range(3):
            assert emissions.access(2, OURS).registered is True
        assert len(chain.asked("/emissions/v5/worker_submission_window_status")) == 1
        assert len(chain.asked("/emissions/v5/can_submit_worker_payload")) == 1
        assert len(chain.asked("/emissions/v5/worker_registered")) == 3
        assert emissions.requests == len(chain.requests)


def test_a_new_version_of_the_api_is_found_while_we_run() -> None:
    clock = FakeClock()
    with ChainReplay(LINES, clock=clock, height=330).running() as chain:
        emissions = reader(chain)
        assert emissions.host().api == "v5"
        assert emissions.access(2, OURS).can_submit is None
        clock.sleep(60)
        chain.api = "v10"
        with pytest.raises(Untold):  # once: the old version's path
            emissions.topic(2)
        assert emissions.host().api == "v10"
        assert emissions.topic(2) is not None
        assert emissions.access(2, OURS).can_submit is True


def test_an_address_of_no_form_is_told_in_one_line() -> None:
    with ChainReplay(LINES, clock=FakeClock(), height=HEIGHT).running() as chain:
        refusal = next(line for line in LINES if line.get("path", "").endswith("worker_registered/2/nonsense"))
        chain.bodies["worker_registered/2/nonsense"] = Answer(refusal["body"], refusal["status"])
        with pytest.raises(ChainFault, match="invalid address") as caught:
            reader(chain).access(2, "nonsense")
        assert "\n" not in str(caught.value)


def test_an_upgrade_and_a_gas_price() -> None:
    lines = [
        *LINES,
        {
            "path": "/cosmos/upgrade/v1beta1/current_plan",
            "status": 200,
            "body": '{"plan":{"name":"v0.18.0","time":"0001-01-01T00:00:00Z","height":"7000000","info":"{}"}}',
        },
        {
            "path": "/feemarket/v1/gas_price/uallo",
            "status": 200,
            "body": '{"price":{"denom":"uallo","amount":"10.000000000000000000"}}',
        },
    ]
    lines = [line for line in lines if line.get("path") != "/feemarket/v1/gas_price/uallo" or line["status"] == 200]
    with ChainReplay(lines, clock=FakeClock(), height=HEIGHT).running() as chain:
        emissions = reader(chain)
        assert emissions.upgrade() == Upgrade(name="v0.18.0", height=7_000_000)
        assert emissions.gas_price() == "10.000000000000000000"
