"""What the official node of a version can read and submit with: right files pass in silence, wrong ones never do."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from core.errors import ConfigError
from node.config_file import Config, read_config
from node.json_text import read_json
from node.rules.base import Severity
from node.rules.findings import findings
from tests.node.config_files import by_parts

EXAMPLE = json.loads((Path(__file__).parents[2] / "config.example.json").read_text("utf-8"))
WORDS = "test " * 11 + "junk"  # in the shape of a mnemonic
ENDPOINT = "http://inference:8000/inference/{Token}?topic={TopicId}&height={BlockHeight}"
RPC, GRPC = "https://allora-rpc.testnet.allora.network", "allora-grpc.testnet.allora.network:443"
Json = dict[str, Any]
Change = Callable[[Json], Any]
Read = Callable[..., Config]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(content: Json, **options: Any) -> Config:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(content))
        return read_config(path, **options)

    return read


def old(name: str = "api-worker-reputer", *, worker: Json | None = None, **wallet: object) -> Json:
    """A file for nodes before v0.9."""
    kept = {
        "addressKeyName": "worker1",
        "addressRestoreMnemonic": "",
        "alloraHomeDir": "",
        "gas": "auto",
        "gasAdjustment": 1.5,
        "nodeRpc": RPC,
        "maxRetries": 5,
        "retryDelay": 3,
        "accountSequenceRetryDelay": 5,
        "submitTx": True,
    }
    entry = {
        "topicId": 1,
        "inferenceEntrypointName": name,
        "parameters": {"InferenceEndpoint": ENDPOINT, "Token": "ETH"},
    }
    return {"wallet": kept | wallet, "worker": [entry | (worker or {})]}


FEES: Json = {"gasPrices": 10, "maxFees": 25_000_000}
WINDOW: Json = {"blockDurationEstimated": 5, "windowCorrectionFactor": 0.8}
V05 = old(worker={"loopSeconds": 5})
V06 = old(**FEES, **WINDOW)
V07 = old("apiAdapter", **FEES | {"gasPrices": "auto"}, gasPriceUpdateInterval=60, **WINDOW)
V08 = old("apiAdapter", **FEES | {"gasPrices": "auto", "maxFees": "25000000"}, timeoutRPCSecondsTx=300, **WINDOW)
V09 = {
    "wallet": {
        key: value
        for key, value in EXAMPLE["wallet"].items()
        if key not in {"grpcInsecure", "registrationWaitingBlocks", "submissionJitter"}
    },
    "worker": EXAMPLE["worker"][:1],
}
NEWEST = {
    "wallet": {key: value for key, value in EXAMPLE["wallet"].items() if key not in {*WINDOW, "nodegRpcs"}}
    | {"nodeGrpcs": [GRPC]},
    "worker": EXAMPLE["worker"],
    "reputer": [],
}


@pytest.mark.parametrize(
    ("content", "versions"),
    [
        pytest.param(V05, ["", "v0.5.0", "v0.5.1", "0.5"], id="v0.5"),
        pytest.param(V05 | {"wallet": V05["wallet"] | FEES | {"delay": 1}}, ["", "v0.5.1"], id="v0.5 with fees"),
        pytest.param(V06, ["", "v0.6.0"], id="v0.6"),
        pytest.param(V07, ["", "v0.7.0"], id="v0.7"),
        pytest.param(V08, ["", "v0.8.1"], id="v0.8"),
        pytest.param(V09, ["", "v0.9.0", "0.9.1", "v0.9.1@sha256:" + "0" * 64], id="v0.9"),
        pytest.param(NEWEST, ["", "v0.12.0", "latest", "dev-latest", "v1.0.0"], id="newest"),
        pytest.param(EXAMPLE, ["", "v0.9.1", "v0.10.0", "v0.12.0", "latest"], id="the example"),
    ],
)
def test_a_right_file_passes_without_a_word(read: Read, content: Json, versions: list[str]) -> None:
    for version in versions:
        assert read(content, node_version=version).warnings == ()


# --- changes of the example ------------------------------------------------------------------------------------------


def wallet(**values: object) -> Change:
    return lambda content: content["wallet"].update(values)


def without(key: str) -> Change:
    return lambda content: content["wallet"].pop(key)


def worker(**values: object) -> Change:
    return lambda content: content["worker"][0].update(values)


def parameters(**values: object) -> Change:
    return lambda content: content["worker"][0]["parameters"].update(values)


def top(**values: object) -> Change:
    return lambda content: content.update(values)


def at(url: str, **more: object) -> Change:
    return parameters(InferenceEndpoint=url, **more)


def renamed(old_name: str, new_name: str, place: Callable[[Json], Json]) -> Change:
    return lambda content: place(content).update({new_name: place(content).pop(old_name)})


def in_wallet(content: Json) -> Json:
    return content["wallet"]  # type: ignore[no-any-return]


def in_worker(content: Json) -> Json:
    return content["worker"][0]  # type: ignore[no-any-return]


def in_parameters(content: Json) -> Json:
    return content["worker"][0]["parameters"]  # type: ignore[no-any-return]


ERRORS = [
    # What no node reads.
    (wallet(gasPrices=10), ["wallet.gasPrices was 10", "in quotes"]),
    (wallet(gasPrices=True), ["wallet.gasPrices was true", "in quotes"]),
    (wallet(gasPrices="10uallo"), ['wallet.gasPrices was "10uallo"', '"auto" or a number']),
    (wallet(gasPrices="0"), ['wallet.gasPrices was "0"', "every transaction fails"]),
    (wallet(maxFees=5e7), ["wallet.maxFees was 50000000.0", "digits"]),
    (wallet(maxFees=-1), ["wallet.maxFees was -1", "digits"]),
    (wallet(maxFees=None), ["wallet.maxFees is missing or null", "null"]),
    (wallet(maxFees="9" * 19), ["wallet.maxFees was"]),
    (wallet(maxFees=0), ["wallet.maxFees was 0", "no transaction can be paid"]),
    (wallet(submitTx="true"), ['wallet.submitTx was "true"', "without quotes"]),
    (wallet(maxRetries="5"), ['wallet.maxRetries was "5"', "without quotes"]),
    (wallet(maxRetries=-1), ["wallet.maxRetries was -1", "0 or more"]),
    (wallet(retryDelay=3.0), ["wallet.retryDelay was 3.0", "whole number"]),
    (wallet(retryDelay=-3), ["wallet.retryDelay was -3", "1 or more"]),
    (wallet(accountSequenceRetryDelay=0), ["wallet.accountSequenceRetryDelay was 0", "1 or more"]),
    (without("accountSequenceRetryDelay"), ["wallet.accountSequenceRetryDelay is missing", "write"]),
    (wallet(gasPriceUpdateInterval=4), ["wallet.gasPriceUpdateInterval was 4", "5 or more"]),
    (wallet(gasAdjustment=-1.2), ["wallet.gasAdjustment was -1.2"]),
    (wallet(BaseGas=-1), ["wallet.BaseGas was -1"]),
    (wallet(timeoutRPCSecondsTx=-1), ["wallet.timeoutRPCSecondsTx was -1"]),
    (wallet(grpcInsecure="no"), ['wallet.grpcInsecure was "no"', "true or false"]),
    (wallet(keyringBackend="tset"), ['wallet.keyringBackend was "tset"', "test, file"]),
    (wallet(nodeRpcs=RPC), ["wallet.nodeRpcs was a string", "list"]),
    (wallet(nodeRpcs=[RPC, 7]), ["wallet.nodeRpcs was a list", "list of URLs"]),
    (wallet(nodeRpcs=[]), ["wallet.nodeRpcs was a list", "needs it"]),
    (wallet(nodeRpcs=[""]), ["wallet.nodeRpcs was a list", "needs it"]),
    (wallet(nodeRpcs=["10.0.0.1:26657"]), ['wallet.nodeRpcs[0] was "10.0.0.1:26657"', "does not parse"]),
    (wallet(nodegRpcs=[GRPC, "127.0.0.1:9090"]), ['wallet.nodegRpcs[1] was "127.0.0.1:9090"', "does not parse"]),
    (wallet(nodegRpcs=["my_node:9090"]), ['wallet.nodegRpcs[0] was "my_node:9090"']),
    (wallet(nodeRpcs=["https://h:port"]), ['wallet.nodeRpcs[0] was "https://h:port"']),
    (without("nodegRpcs"), ["wallet.nodegRpcs is missing", "allora-grpc"]),
    (worker(topicId="1"), ['worker[0].topicId was "1"', "whole number"]),
    (parameters(Horizon=10), ["worker[0].parameters.Horizon was 10", "string in quotes"]),
    (top(reputer={"topicId": 1}), ["reputer was an object", "list"]),
    (top(reputer=[{"topicId": 1, "groundTruthParameters": {"A": 1}}]), ["reputer[0].groundTruthParameters.A was 1"]),
    # What can never be submitted with.
    (without("addressKeyName"), ["wallet.addressKeyName is missing", "worker1"]),
    (wallet(addressKeyName=""), ['wallet.addressKeyName was ""', "worker1"]),
    (without("chainId"), ["wallet.chainId is missing", "allora-testnet-1"]),
    (wallet(chainId="allora-mainnet-1"), [f'wallet.nodeRpcs[0] was "{RPC}"', "allora-testnet-1", "correct one"]),
    (wallet(chainId="allora-testnet-2"), ["wallet.nodeRpcs[0]", "chainId is another"]),
    (worker(inferenceEntrypointName="api-worker-reputer"), ["worker[0].inferenceEntrypointName was", '"apiAdapter"']),
    (wallet(addressKeyName="  "), ['wallet.addressKeyName was "  "', "worker1"]),
    (wallet(keyringBackend="file"), ['wallet.keyringBackend was "file"', "keyringPassphrase"]),
    (wallet(keyringBackend="memory"), ['wallet.keyringBackend was "memory"', "empty at each start"]),
    (wallet(nodeRpcs=[RPC, "https://allora-rpc.tesnet.allora.network"]), ["nodeRpcs[1]", "no such host", RPC[8:]]),
    (wallet(nodeRpcs=["https://allora-rcp.testnet.allora.network"]), ["nodeRpcs[0]", "no such host", RPC[8:]]),
    (wallet(nodeRpcs=["https://allora-rpc.testnet.alora.network"]), ["nodeRpcs[0]", "no such host", RPC[8:]]),
    (wallet(nodeRpcs=["https://allora-api.testnet.allora.network"]), ["nodeRpcs[0]", "for neither", RPC[8:]]),
    (wallet(nodeRpcs=[f"https://{GRPC}"]), ["nodeRpcs[0]", "that host is for nodegRpcs", RPC[8:]]),
    (wallet(nodegRpcs=[f"{RPC[8:]}:443"]), ["nodegRpcs[0]", "that host is for nodeRpcs", GRPC[:-4]]),
    (wallet(nodeRpcs=[f"{RPC},https://rpc.example.org"]), ["nodeRpcs[0]", "quotes of its own"]),
    (wallet(grpcInsecure=True), ["wallet.grpcInsecure was true", "TLS"]),
    # What this worker cannot answer.
    (worker(forecastEntrypointName="apiAdapter"), ['worker[0].forecastEntrypointName was "apiAdapter"', "no forecast"]),
    (parameters(ForecastEndpoint="http://inference:8000/forecast"), ["parameters.ForecastEndpoint was", "no route"]),
    (parameters(LabeledInferenceEndpoint="http://inference:8000/x"), ["LabeledInferenceEndpoint was", "no route"]),
    (at(ENDPOINT.replace("8000", "8001")), ["InferenceEndpoint was", "listens on 8000"]),
    (at(ENDPOINT.replace(":8000", "")), ["InferenceEndpoint was", "listens on 8000"]),
    (at(ENDPOINT.replace("//inference", "//inferense")), ["InferenceEndpoint was", "no service is called inferense"]),
    (at(ENDPOINT.replace("http:", "https:")), ["InferenceEndpoint was", "without TLS"]),
    (at(ENDPOINT.replace("/inference/{", "/inferences/{")), ["InferenceEndpoint was", "/inferences/ETH"]),
    (at(ENDPOINT.replace("?", "/?")), ["InferenceEndpoint was", "and not /inference/ETH/"]),
    (at(ENDPOINT.replace("?topic", "&topic")), ["InferenceEndpoint was", "write that path"]),
    (at(ENDPOINT.replace("{BlockHeight}", "7")), ["InferenceEndpoint was", "height is written out"]),
    (at(ENDPOINT.replace("height=", "hight=")), ["InferenceEndpoint was", "hight=", "write height="]),
    (at(ENDPOINT + "&topic={TopicId}"), ["InferenceEndpoint was", "given 2 times"]),
    # A misspelt key.
    (renamed("addressKeyName", "adressKeyName", in_wallet), ["wallet.adressKeyName", "write addressKeyName"]),
    (renamed("addressKeyName", "address_key_name", in_wallet), ["wallet.address_key_name", "write addressKeyName"]),
    (renamed("submitTx", "sumbitTx", in_wallet), ["wallet.sumbitTx was a boolean", "write submitTx"]),
    (renamed("gasPrices", "gasPrice", in_wallet), ["wallet.gasPrice was a string", "write gasPrices"]),
    (renamed("parameters", "parameter", in_worker), ["worker[0].parameter was an object", "write parameters"]),
    (renamed("Symbol", "Symbl", in_parameters), ['worker[0].parameters.Symbl was "ETHUSDT"', "write Symbol"]),
    (renamed("Symbol", "symbol", in_parameters), ["worker[0].parameters.symbol", "case-sensitive", "write Symbol"]),
    (renamed("Loss", "Los", in_parameters), ['worker[0].parameters.Los was "mse"', "write Loss"]),
    (renamed("worker", "workers", lambda content: content), ["workers was a list", "write worker"]),
    (worker(Symbol="ETHUSDC"), ["worker[0].Symbol was a string", "belongs into parameters"]),
    (parameters(submitTx="true"), ["parameters.submitTx was a string", "belongs into wallet"]),
    (top(chainId="allora-testnet-1"), ["chainId was a string", "belongs into wallet"]),
]
WARNINGS = [
    (wallet(submitTx=False), ["wallet.submitTx was false", "submits nothing"]),
    (without("submitTx"), ["wallet.submitTx is missing", "submits nothing"]),
    (wallet(addressRestoreMnemonic=WORDS), ["wallet.addressRestoreMnemonic was a string", "take the wallet"]),
    (wallet(addressKeyName=WORDS), ["wallet.addressKeyName was a string", "take the wallet"]),
    (wallet(mnemonic=WORDS), ["wallet.mnemonic was a string", "no version of the node"]),
    (parameters(Note=WORDS), ["parameters.Note was a string", "take the wallet"]),
    (top(backup={"of": [{"key": WORDS}]}), ["backup.of[0].key was a string", "take the wallet"]),
    (worker(words=WORDS.split()), ["worker[0].words was a list", "take the wallet"]),
    (wallet(addressKeyName="allo1" + "q" * 38), ["wallet.addressKeyName was", "is an address"]),
    (wallet(alloraHomeDir="~/.allorad"), ['wallet.alloraHomeDir was "~/.allorad"', "whole path"]),
    (wallet(keyringBackend="os"), ['wallet.keyringBackend was "os"', "no such keyring"]),
    (top(reputer=[{"topicId": 1}]), ["reputer was a list", "answers no reputer"]),
    (at(ENDPOINT.replace("&height={BlockHeight}", "")), ["InferenceEndpoint was", "height={BlockHeight}"]),
    (at(ENDPOINT.replace("height=", "block=")), ["InferenceEndpoint was", "block=", "remove"]),
    (at(ENDPOINT.replace("inference:8000", "source:8000")), ["source:8000 is no address of this worker"]),
    (at(ENDPOINT.replace("inference:8000", "10.1.2.3")), ["10.1.2.3:80 is no address of this worker"]),
    (parameters(Ticker="ETHUSDT"), ["parameters.Ticker was a string", "nobody reads it"]),
    (parameters(ForecastEndpoint="http://mine/f"), ["parameters.ForecastEndpoint was", "another program"]),
    (wallet(nodeRpc=RPC), ["wallet.nodeRpc was a string", "does not read it", "nodeRpcs"]),
    (wallet(gas="auto"), ["wallet.gas was a string", "simulateGasFromStart"]),
    (wallet(note=1), ["wallet.note was a number", "no version"]),
    (worker(loopSeconds=5), ["worker[0].loopSeconds was a number", "does not read it"]),
    (top(comment="mine"), ["comment was a string", "no version"]),
    (without("maxFees"), ["wallet.maxFees is missing", "too low"]),
    (wallet(maxRetries=0), ["wallet.maxRetries was 0", "tried once"]),
    (without("gasPrices"), ["wallet.gasPrices is missing", '"auto"']),
    (wallet(nodegRpcs=["https://h:443"]), ["wallet.nodegRpcs[0]", "without https://"]),
    (wallet(nodeRpcs=["rpc.example.org:443"]), ["wallet.nodeRpcs[0]", "plain HTTP"]),
    (lambda content: content.update(wallet={"chainId": "allora-testnet-1"}), ["wallet was an object", "names no key"]),
]


def changed(change: Change) -> Json:
    content: Json = copy.deepcopy(EXAMPLE)
    change(content)
    return content


@pytest.mark.parametrize(("change", "parts"), by_parts(ERRORS))
@pytest.mark.parametrize("version", ["", "v0.12.0"])
def test_what_cannot_be_read_or_answered_stops_the_start(
    read: Read, change: Change, parts: list[str], version: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(changed(change), node_version=version)
    line, *others = str(caught.value).splitlines()
    for part in ("config.json: ", *parts):
        assert part in line
    assert all("config.json: " in other for other in others), "a line each"


@pytest.mark.parametrize(
    ("content", "version"),
    [
        pytest.param(V06, "node v0.5 and v0.6", id="v0.6"),
        pytest.param(old(nodeRpc="", **FEES, **WINDOW), "node v0.5 and v0.6", id="v0.6 without an address"),
        pytest.param(V07, "node v0.7 and v0.8", id="v0.7"),
        pytest.param(V09, "node v0.9 and later", id="v0.9"),
    ],
)
def test_all_faults_are_said_at_once_with_the_version_that_the_keys_tell(
    read: Read, content: Json, version: str
) -> None:
    broken = copy.deepcopy(content)
    broken["wallet"] |= {"submitTx": "true", "addressKeyName": "", "maxRetries": -1}
    with pytest.raises(ConfigError) as caught:
        read(broken)
    lines = str(caught.value).splitlines()
    for key in ("submitTx", "addressKeyName", "maxRetries"):
        assert sum(f"wallet.{key} was" in line for line in lines) == 1
    first, *others = [line for line in lines if version in line]
    assert "as the file's keys tell; NODE_VERSION can name another" in first
    assert not any("as the file's keys tell" in line for line in others)
    assert sum("node v" in line for line in lines) == 1 + len(others), "no other version is named"


def test_the_faults_of_all_topics_are_said_at_once(read: Read) -> None:
    content = copy.deepcopy(EXAMPLE)
    for entry in content["worker"][:2]:
        entry["parameters"]["Token"] = "E TH"
    with pytest.raises(ConfigError) as caught:
        read(content)
    assert [
        line.count(f"worker[{n}].parameters.Token was") for n, line in enumerate(str(caught.value).splitlines())
    ] == [1, 1]


@pytest.mark.parametrize("content", [V05, V06, V07, V08], ids=["v0.5", "v0.6", "v0.7", "v0.8"])
def test_old_nodes_that_try_once_or_estimate_no_gas_are_warned_of(read: Read, content: Json) -> None:
    def warnings(**values: object) -> tuple[str, ...]:
        return read(content | {"wallet": content["wallet"] | values}).warnings

    for value in (0, -0.5):
        (line,) = warnings(gasAdjustment=value)
        assert f"wallet.gasAdjustment was {value}: " in line
    (line,) = warnings(maxRetries=0)
    assert "a transaction is tried once" in line


@pytest.mark.parametrize(("change", "parts"), by_parts(WARNINGS))
def test_what_is_legal_and_unwise_is_said_in_one_line(read: Read, change: Change, parts: list[str]) -> None:
    lines = [line for line in read(changed(change)).warnings if all(part in line for part in parts)]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert "junk" not in lines[0]


@pytest.mark.parametrize(
    ("content", "version", "parts"),
    [
        pytest.param(V06, "v0.12.0", ["wallet.nodeRpc was", "v0.5 and v0.6", "NODE_IMAGE_TAG"], id="v0.6 beside v0.12"),
        pytest.param(V05, "latest", ["wallet.nodeRpc was", "node latest cannot run"], id="v0.5 beside latest"),
        pytest.param(V08, "v0.9.1", ["wallet.nodeRpc was", "v0.7 and v0.8"], id="v0.8 beside v0.9"),
        pytest.param(V06, "v0.7.0", ["wallet.gasPrices was 10", "node v0.7.0"], id="v0.6 beside v0.7"),
        pytest.param(V09, "v0.8.1", ["wallet.nodeRpcs was", "reads nodeRpc"], id="v0.9 beside v0.8"),
        pytest.param(V07, "v0.6.0", ['wallet.gasPrices was "auto"', "node v0.6.0"], id="v0.7 beside v0.6"),
        pytest.param(old(**FEES | {"gasPrices": "10"}), "", ['wallet.gasPrices was "10"'], id="a string to v0.6"),
        pytest.param(old("apiAdapter", **FEES | WINDOW), "v0.8.0", ["wallet.gasPrices was 10"], id="a number to v0.8"),
        pytest.param(old(**FEES, gas=200000), "", ["wallet.gas was 200000", "string"], id="gas as a number"),
        pytest.param(old(**FEES), "v0.6.0", ["wallet.blockDurationEstimated is missing"], id="v0.6 without windows"),
        pytest.param(
            old(**FEES | {"gasPrices": 0}), "", ["wallet.gasPrices was 0", "every transaction"], id="no price"
        ),
        pytest.param(old(**FEES, gas="much"), "", ['wallet.gas was "much"', "auto"], id="gas in words"),
        pytest.param(
            V06 | {"wallet": V06["wallet"] | {"nodeRpc": f" {RPC}"}}, "", ["nodeRpc was"], id="a blank before"
        ),
        pytest.param(
            V06 | {"wallet": V06["wallet"] | {"nodeRpc": RPC.replace("-rpc", "-grpc")}},
            "",
            ["for nodegRpcs"],
            id="gRPC",
        ),
        pytest.param(
            NEWEST, "v0.9.1", ["wallet.blockDurationEstimated is missing", "node v0.9.1"], id="newest beside v0.9"
        ),
        pytest.param(
            V09 | {"wallet": V09["wallet"] | {"windowCorrectionFactor": 0.4}},
            "v0.9.1",
            ["wallet.windowCorrectionFactor was 0.4", "0.5 or more"],
            id="too small a window",
        ),
    ],
)
def test_a_file_for_another_node_stops_the_start(read: Read, content: Json, version: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(content, node_version=version)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("key", ["gasPrices", "maxFees"])
@pytest.mark.parametrize(
    ("content", "version"), [(V06, "v0.6.0"), (V07, ""), (V08, "v0.8.1")], ids=["0.6", "0.7", "0.8"]
)
def test_an_old_node_without_a_price_or_fee_is_said(read: Read, content: Json, version: str, key: str) -> None:
    kept = {name: value for name, value in content["wallet"].items() if name != key}
    (line,) = read(content | {"wallet": kept}, node_version=version).warnings
    assert f"wallet.{key} is missing" in line
    assert "no default" in line


@pytest.mark.parametrize(
    "change",
    [
        wallet(alloraHomeDir="/data/.allorad", keyringBackend="file", keyringPassphrase="a phrase"),
        wallet(nodeRpcs=["https://rpc.testnet.allora.network", "https://rpc.archive.testnet.allora.network"]),
        wallet(nodegRpcs=["grpc.testnet.allora.network:443"]),
        wallet(nodeRpcs=["https://allora.example.org/rpc"], nodegRpcs=["allora-grpc.example.org:443"]),
        wallet(nodeRpcs=["http://localhost:26657", "tcp://node:26657"], nodegRpcs=["node:9090"], grpcInsecure=True),
    ],
    ids=["another keyring", "short and archive hosts", "a short gRPC host", "other hosts", "a chain of one's own"],
)
def test_right_wallets_pass_without_a_word(read: Read, change: Change) -> None:
    for version in ("", "v0.12.0", "latest"):
        assert read(changed(change), node_version=version).warnings == ()


@pytest.mark.parametrize(("chain", "said"), [("allora-tesnet-1", 1), ("allora-testnet-2", 1), ("localnet", 0)])
def test_a_chain_that_is_nearly_a_public_one_is_said(read: Read, chain: str, said: int) -> None:
    own = {"chainId": chain, "nodeRpcs": ["https://rpc.example.org"], "nodegRpcs": ["grpc.example.org:443"]}
    content = changed(wallet(**own)) | {"worker": [changed(parameters(Target="price", Horizon="10m"))["worker"][0]]}
    lines = read(content).warnings
    assert len(lines) == said
    assert all("is called allora-testnet-1" in line for line in lines)


@pytest.mark.parametrize("version", ["nonsense", "sha256:" + "0" * 64, "a1b2c3d4", "12"])
def test_a_version_that_is_not_one_is_said_and_the_keys_tell(read: Read, version: str) -> None:
    (line,) = read(V06, node_version=version).warnings
    assert f"NODE_VERSION was '{version}" in line
    with pytest.raises(ConfigError, match="gasPrices was 10"):
        read(changed(wallet(gasPrices=10)), node_version=version)


@pytest.mark.parametrize(
    ("address", "version", "own", "says"),
    [
        pytest.param("127.0.0.1:8000", "", ("127.0.0.1", 8000), "", id="inference itself"),
        pytest.param("localhost:8123", "", ("0.0.0.0", 8123), "", id="another PORT"),  # noqa: S104
        pytest.param("10.0.0.9:8000", "", ("10.0.0.9", 8000), "", id="HOST"),
        pytest.param("127.0.0.1:8001", "", None, "", id="the base URL stands in"),
        pytest.param("localhost:8000", "", ("::1", 8000), "", id="localhost in IPv6"),
        pytest.param("0.0.0.0:8000", "v0.12.0", ("127.0.0.1", 8000), "", id="this machine"),
        pytest.param("[::1]:8000", "", ("127.0.0.1", 8000), "warning: HOST is 127.0.0.1", id="IPv6 beside IPv4"),
        pytest.param("127.0.0.2:8000", "v0.12.0", ("127.0.0.1", 8000), "error: HOST is", id="another loopback address"),
        pytest.param("localhost:8000", "v0.12.0", ("10.0.0.9", 8000), "error: HOST is 10.0.0.9", id="an outer HOST"),
        pytest.param("localhost:8001", "", ("127.0.0.1", 8000), "warning: PORT is 8000", id="another port"),
        pytest.param("localhost:8001", "v0.12.0", ("127.0.0.1", 8000), "error: PORT is 8000", id="and a node asks"),
        pytest.param("localhost:8000", "v0.12.0", ("0.0.0.0", 8000), "warning: reaches itself", id="in Docker"),  # noqa: S104
    ],
)
def test_an_address_of_this_machine(
    read: Read, address: str, version: str, own: tuple[str, int] | None, says: str
) -> None:
    content = changed(at(ENDPOINT.replace("inference:8000", address)))
    severity, _, part = says.partition(": ")
    if severity == "error":
        with pytest.raises(ConfigError, match=part):
            read(content, node_version=version, own=own)
        return
    lines = read(content, node_version=version, own=own).warnings
    assert len(lines) == (1 if says else 0)
    assert all(part in line for line in lines)


@pytest.mark.parametrize(
    "key", ["addressRestoreMnemonic", "keyringPassphrase", "chainId", "gasPrices", "maxFees", "gas"]
)
def test_no_line_shows_a_mnemonic(read: Read, key: str) -> None:
    for value in (WORDS, [WORDS], {WORDS: WORDS}, WORDS.upper().lower()):
        for version in ("", "v0.6.0", "v0.12.0"):
            try:
                shown = " ".join(read(changed(wallet(**{key: value})), node_version=version).warnings)
            except ConfigError as error:
                shown = str(error)
            assert "junk" not in shown


def test_a_linter_gets_all_that_is_wrong_at_once(tmp_path: Path) -> None:
    content = changed(wallet(gasPrices=10, submitTx=False, chainId=""))
    (tmp_path / "config.json").write_text(json.dumps(content))
    found = findings(read_json(tmp_path / "config.json"), "v0.12.0")
    assert [finding.severity for finding in found] == [Severity.ERROR, Severity.ERROR, Severity.WARNING]


def keys_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    own = [(*path, key) for key, _ in inner if isinstance(key, str)]
    return own + [place for key, child in inner for place in keys_of(child, (*path, key))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400)
@given(
    place=st.sampled_from(keys_of(EXAMPLE)),
    edit=st.sampled_from(["insert", "delete", "replace", "swap"]),
    where=st.integers(0, 40),
    letter=st.characters(codec="ascii", categories=["L", "N", "P"]),
    version=st.sampled_from(["", "v0.9.1", "v0.12.0"]),
)
def test_no_key_with_one_wrong_letter_passes_in_silence(
    read: Read, place: tuple[Any, ...], edit: str, where: int, letter: str, version: str
) -> None:
    content = copy.deepcopy(EXAMPLE)
    holder = content
    for step in place[:-1]:
        holder = holder[step]
    key: str = place[-1]
    at_letter = where % len(key)
    head, tail = key[:at_letter], key[at_letter:]
    wrong = {
        "insert": head + letter + tail,
        "delete": head + tail[1:],
        "replace": head + letter + tail[1:],
        "swap": head + tail[1:2] + tail[:1] + tail[2:],
    }[edit]
    assume(wrong.casefold() != key.casefold())  # in another case the node reads a key of a struct all the same
    holder[wrong] = holder.pop(key)
    try:
        lines = read(content, node_version=version).warnings
    except ConfigError as error:
        lines = (str(error),)
    assert lines
