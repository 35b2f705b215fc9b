"""config.json: what is read, and what each mistake says."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import ConfigError
from core.topic import Target, Topic, Volatility
from node.config_file import topics_from_config
from node.schema import OUR_KEYS
from tests.node.config_files import ENDPOINT, EXAMPLE, Read, by_parts, config, entry


def test_the_example_holds_six_topics() -> None:
    topics = topics_from_config(EXAMPLE)
    assert [(t.topic_id, t.symbol, t.target, t.horizon, t.loss) for t in topics] == [
        (1, "ETHUSDT", Target.PRICE, "10m", "mse"),
        (14, "BTCUSDT", Target.PRICE, "5m", "mse"),
        (2, "ETHUSDT", Target.PRICE, "24h", "mse"),
        (64, "BTCUSDT", Target.LOG_RETURN, "8h", "czar"),
        (82, "SOLUSDT", Target.VOLATILITY, "15m", "mse"),
        (79, "BTCUSDT", Target.VOLATILITY, "15m", "mse"),
    ]
    assert {t.network for t in topics} == {"allora-testnet-1"}
    assert {t.endpoint for t in topics} == {ENDPOINT}


def test_the_example_is_complete_and_holds_no_secret() -> None:
    example = json.loads(EXAMPLE.read_text("utf-8"))
    wallet = example["wallet"]
    assert wallet["submitTx"] is True
    assert wallet["addressRestoreMnemonic"] == ""
    assert wallet["keyringPassphrase"] == ""
    assert wallet["alloraHomeDir"] == "/data/.allorad"
    # Node v0.9 does not start without these two; later ones ignore them.
    assert wallet["blockDurationEstimated"] == 5
    assert wallet["windowCorrectionFactor"] == 0.8
    assert any(set(worker["parameters"]) == set(OUR_KEYS) for worker in example["worker"])


def test_the_node_v06_schema(read: Read) -> None:
    old = {
        "wallet": {
            "addressKeyName": "worker1",
            "gas": "auto",
            "gasPrices": 10,
            "nodeRpc": "https://allora-rpc.testnet.allora.network",
            "submitTx": True,
        },
        "worker": [entry(name="api-worker-reputer", InferenceEndpoint="http://inference:8000/inference/{Token}")],
    }
    (topic,) = read(old)
    assert topic == Topic(
        topic_id=1,
        held=False,  # its sources were not read for a time limit
        token="ETH",
        symbol="ETHUSDT",
        target=Target.PRICE,
        horizon_min=10,
        network="allora-testnet-1",
        epoch_length_blocks=120,
        endpoint="http://inference:8000/inference/{Token}",
        parameters=(("InferenceEndpoint", "http://inference:8000/inference/{Token}"), ("Token", "ETH")),
    )


def test_the_node_v08_schema(read: Read) -> None:
    """The new entrypoint name beside the old nodeRpc."""
    (topic,) = read({"wallet": {"nodeRpc": "https://allora-rpc.mainnet.allora.network"}, "worker": [entry(9)]})
    assert (topic.network, topic.horizon) == ("allora-mainnet-1", "8h")


def test_struct_keys_have_no_case_and_unknown_keys_are_ignored(read: Read) -> None:
    (topic,) = read(
        b'{"WALLET": {"ChainID": "allora-testnet-1", "new": [1, {"a": null}]}, "reputer": [], "note": 1, "note": 2,'
        b'"Worker": [{"TopicId": 1, "InferenceEntryPointName": "apiAdapter", "loopSeconds": 5, "Parameters":'
        b'{"InferenceEndpoint": "http://h/{Token}/{Timeframe}", "Token": "ETH", "Timeframe": "10m"}}]}'
    )
    assert topic.topic_id == 1
    assert topic.parameters[-1] == ("Timeframe", "10m")


@pytest.mark.parametrize(
    ("wallet", "network"),
    [
        pytest.param({"chainId": "localnet", "nodeRpcs": ["http://v0:26657"]}, "localnet", id="a network of one's own"),
        pytest.param(
            {"chainId": "allora-mainnet-1", "nodeRpc": "http://testnet"}, "allora-mainnet-1", id="chainId wins"
        ),
        pytest.param({"nodeRpcs": ["http://10.0.0.1", "https://rpc.Testnet.x"]}, "allora-testnet-1", id="second host"),
        pytest.param({"nodeRpc": "allora-rpc.mainnet.allora.network:443"}, "allora-mainnet-1", id="no scheme"),
        pytest.param({"nodeRpcs": ["http://a.testnet", "http://b.mainnet"]}, None, id="two networks"),
        pytest.param({"nodeRpc": "http://10.0.0.1/testnet"}, None, id="the word in the path"),
        pytest.param({"nodeRpc": "http://[testnet"}, None, id="a URL that is none"),
        pytest.param({}, None, id="nothing"),
        pytest.param(None, None, id="no wallet"),
    ],
)
def test_network(read: Read, wallet: object, network: str | None) -> None:
    (topic,) = read({"wallet": wallet, "worker": [entry(9999, Target="log_return", Horizon="1h")]})
    assert topic.network == network


def test_a_network_unknown_to_the_catalogue_needs_target_and_horizon_alone(read: Read) -> None:
    """Testnet's topic 1 is a price in ten minutes; on another network the id says nothing."""
    (topic,) = read(config(entry(1, Target="log_return", Horizon="8h"), chainId="localnet"))
    assert (topic.target, topic.horizon, topic.loss, topic.epoch_length_blocks) == ("log_return", "8h", "mse", None)


@pytest.mark.parametrize(
    ("given", "read_as"),
    [("mse", "mse"), ("sqe", "mse"), ("se", "mse"), ("mae", "mae"), ("abse", "mae"), ("ae", "mae"), ("zptae", "zptae")],
)
def test_losses_by_any_name(read: Read, given: str, read_as: str) -> None:
    (topic,) = read(config(entry(9999, Target="log_return", Horizon="1h", Loss=given)))
    assert topic.loss == read_as


def test_the_catalogue_may_be_repeated_in_other_words(read: Read) -> None:
    (topic,) = read(config(entry(2, Token="eth", Target="price", Horizon="1d", Loss="sqe", Symbol="ETHUSDC")))
    assert (topic.token, topic.symbol, topic.horizon_min, topic.loss) == ("eth", "ETHUSDC", 1440, "mse")


def test_a_price_topic_may_have_a_loss_for_returns(read: Read) -> None:
    (topic,) = read(config(entry(77, Token="BTC")))
    assert (topic.target, topic.loss) == (Target.PRICE, "czar")


ANY = entry(9999, Target="price", Horizon="10m")
HEADLESS = {key: value for key, value in entry().items() if key != "inferenceEntrypointName"}


def without(key: str) -> dict[str, Any]:
    made = entry()
    del made["parameters"][key]
    return made


MISTAKES = [
    ([], ["top level was a list", "must be an object"]),
    ("a b c", ["top level was a string"]),
    ({}, ["worker is missing", "config.example.json"]),
    (config(), ["worker was a list", "one entry for each topic"]),
    ({"worker": {"topicId": 1}}, ["worker was an object", "must be a list"]),
    (config(7), ["worker[0] was a number", "each entry is an object"]),
    ({"wallet": "x y", "worker": [ANY]}, ["wallet was a string"]),
    (config(ANY, chainId=1), ["wallet.chainId was 1", "allora-testnet-1"]),
    (config(ANY, nodeRpcs="http://x"), ["wallet.nodeRpcs was a string", "list"]),
    (config(ANY, nodeRpc=["http://x"]), ["wallet.nodeRpc was a list", "one URL"]),
    (config(entry(None)), ["worker[0].topicId is missing", "whole number"]),
    *(
        (config(entry(value)), [f"worker[0].topicId was {shown}", "whole number"])
        for (value, shown) in [(True, "true"), ("1", '"1"'), (1.0, "1.0"), (0, "0"), (-1, "-1"), (2**64, str(2**64))]
    ),
    (config(entry(), entry(3, Token="BTC"), entry()), ["worker[2].topicId was 1", "worker[0]"]),
    (
        config(entry(1, InferenceEndpoint="http://h/{Token}"), entry(2, InferenceEndpoint="http://h/{Token}")),
        ["worker[1].parameters.InferenceEndpoint", "topic allora-testnet-1/1", "?topic={TopicId}"],
    ),
    (config(HEADLESS), ["worker[0].inferenceEntrypointName is missing", "apiAdapter"]),
    (config(entry(name="apiadapter")), ['was "apiadapter"', "apiAdapter"]),
    (
        config(entry(name="api-worker-reputer"), nodeRpcs=["http://x"]),
        ['inferenceEntrypointName was "api-worker-reputer"', "nodeRpcs", '"apiAdapter"'],
    ),
    (config({"topicId": 1, "inferenceEntrypointName": "apiAdapter"}), ["worker[0].parameters is missing"]),
    (config(entry() | {"parameters": []}), ["worker[0].parameters was a list"]),
    (config(entry(Horizon=10)), ["worker[0].parameters.Horizon was 10:", "string"]),
    (config(entry(x=None)), ["worker[0].parameters.x is missing or null", "string"]),
    (config(entry(horizon="10m")), ["parameters.horizon", "case-sensitive", "write Horizon"]),
    (config(without("Token")), ["parameters.Token is missing", '"ETH"']),
    (config(entry(Token="E/TH")), ['parameters.Token was "E/TH"', "letters"]),
    (config(entry(Token="BTC")), ['Token was "BTC"', 'Token "ETH"', "topic 1"]),
    (config(entry(Target="Price")), ["price, log_return, volatility"]),
    (config(entry(Target="log_return")), ['"log_return"', 'Target "price"']),
    (config(entry(Horizon="10min")), ['Horizon was "10min"', "10m, 8h or 7d"]),
    (config(entry(Horizon="20m")), ['"20m"', 'Horizon "10m"']),
    (config(entry(Loss="rmse")), ['Loss was "rmse"', "mse, mae, huber"]),
    (config(entry(Loss="czar")), ['"czar"', 'Loss "mse"']),
    (
        config(entry(9999, Target="volatility", Horizon="15m", Loss="czar")),
        ['Loss was "czar"', "not defined for volatility"],
    ),
    (config(entry(Symbol="ETH/USDT")), ['Symbol was "ETH/USDT"', "ETHUSDT"]),
    (config(entry(Symbol="../etc")), ["Symbol was"]),
    (config(entry(Symbol="BTCUSDT")), ['"BTCUSDT"', "pair of BTC", "Token is ETH"]),
    (
        config(entry(82, Token="SOL", Volatility="sd")),
        ['Volatility was "sd"', "one of std, std_horizon, std_annual, rms, rms_horizon, rms_annual"],
    ),
    (config(entry(Volatility="std")), ['Volatility was "std"', "Target is price", "remove"]),
    *(
        (
            config(entry(82, Token="SOL", Volatility=word)),
            [f'Volatility was "{word}"', 'topic 82 of allora-testnet-1 has Volatility "std_horizon"', "write that"],
        )
        for word in Volatility
        if word is not Volatility.STD_HORIZON
    ),
    (config(entry(Symbol="PAXGUSDT")), ["pair of PAXG", "Token is ETH"]),
    (config(entry(9999, Target="price", Horizon="250m")), ['Horizon was "250m"', "whole hours"]),
    (config(entry(9999, Target="volatility", Horizon="1m")), ['Horizon was "1m"', "2m or more"]),
    (
        config(entry(InferenceEndpoint="http://h/inference/BTC?topic={TopicId}")),
        ['asks for "BTC"', 'Token is "ETH"', "{Token}"],
    ),
    (
        config(entry(InferenceEndpoint="http://h/inference/{Token}?topic=14&height={BlockHeight}")),
        ['asks for topic "14"', "topicId is 1", "{TopicId}"],
    ),
    (config(entry(87, Token="XAU")), ["topicId was 87", "XAU 24h", "classification", "remove"]),
    (config(entry(9999, Target="classification")), ["Target", "classification topic"]),
    (
        config(entry(9999)),
        ["Target is missing", "topic 9999 of allora-testnet-1", "Target (price", "Horizon (such as 10m)"],
    ),
    (config(entry(9999, Target="price")), ["Horizon is missing", "9999"]),
    ({"worker": [entry()]}, ["network is not known", "chainId", "Target", "Horizon"]),
    (config(without("InferenceEndpoint")), ["InferenceEndpoint is missing", "http://"]),
    *(
        (config(entry(InferenceEndpoint=url)), ["InferenceEndpoint was", "http:// or https://"])
        for url in ["", "inference:8000/x", "ftp://h/x", "http:///x", "http://h:x/", "http://h/a b", "http://[h/x"]
    ),
    (
        config(entry(InferenceEndpoint="http://h/{token}?t={TopicId}")),
        ["{token} is no placeholder", "{TopicId}, {BlockHeight}, {Token}"],
    ),
    (config(entry(InferenceEndpoint="http://h/{Token")), ["a brace is left over"]),
    (config(entry(InferenceEndpoint="http://h/{A}", A="{Token}")), ["{A} stands for"]),
    (config(entry(InferenceEndpoint="http://h/{A}", A="x\ny")), ["without blanks"]),
    (b'{"worker": [1,]}', ["line 1 column 1", "not JSON"]),
    (b'{\n "worker":\n  oops}', ["line 3 column 3", "not JSON"]),
    (b"", ["line 1 column 1", "not JSON"]),
    (b'\xef\xbb\xbf{"worker": []}', ["line 1 column 1", "without BOM"]),
    (b'{"worker": "\xff"}', ["byte 12 is not UTF-8", "save the file as UTF-8"]),
    (b'{"worker": NaN}', ["NaN is not JSON"]),
    (b"[" * 100000, ["not JSON"]),
    (b'{"worker": ' + b"9" * 5000 + b"}", ["not JSON"]),
    (b'{"worker": [], "Worker": []}', ["worker was a list", "given 2 times"]),
    (
        json.dumps(config(entry())).replace('"Token": "ETH"', '"Token": "A", "Token": "ETH"').encode(),
        ["parameters.Token was a string", "given 2 times"],
    ),
    (config(entry(**{"a\nb": 1})), ["worker[0].parameters.a\\nb was 1"]),
]


@pytest.mark.parametrize(("content", "parts"), by_parts(MISTAKES))
def test_each_mistake_is_one_line(read: Read, content: object, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(content)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    for part in ("config.json: ", *parts):
        assert part in text


WRONG_PORT_AND_PATH = "http://inference:9000/infer/{Token}?topic=7&height={BlockHeight}"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(
            config(
                entry(99, Horzion="8h", Target="prices", Symbol="ETHBTC", Loss="mes", Wait="soon", Base="auto"),
                entry(99, Target="price", Horizon="8hours"),
                gasPrices=5,
                addressKeyName="w",
            ),
            [
                "wallet.gasPrices was 5",
                "worker[0].parameters.Horzion was",
                "worker[0].parameters.Symbol was",
                "worker[0].parameters.Target was",
                "worker[0].parameters.Loss was",
                "worker[0].parameters.Base was",
                "worker[0].parameters.Wait was",
                "worker[1].parameters.Horizon was",
                "worker[1].topicId was 99: worker[0] has it too",
            ],
            id="what the node reads, and what the topics mean",
        ),
        pytest.param(
            config(entry(99, Target="prices", Horizon="8hours"), submitTx=True, gasPrices="auto"),
            ["wallet.addressKeyName is missing", "parameters.Target was", "parameters.Horizon was"],
            id="no key",
        ),
        pytest.param(
            config(entry(InferenceEndpoint=WRONG_PORT_AND_PATH)),
            ["listens on 8000", "write that path", 'it asks for topic "7"'],
            id="an endpoint's port, path and topic",
        ),
        pytest.param(
            config(entry(99), chainId=5) | {"worker": [entry(99, Token=7), 5, entry("1", Token="E TH")]},
            [
                "chainId was 5",
                "[0].parameters.Token was 7",
                "[1] was a number",
                "[2].topicId was",
                "[2].parameters.Token was",
            ],
            id="what follows from a fault is not said",
        ),
    ],
)
def test_all_mistakes_of_a_file_are_said_at_once(read: Read, content: object, says: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(content)
    lines = str(caught.value).splitlines()
    for part in says:
        assert sum(part in line for line in lines) == 1, part
    wallet = [line for line in lines if "wallet." in line and not any(part in line for part in says)]
    assert len(lines) == len(says) + len(wallet), "the wallets here lack other keys as well"


def test_the_mistakes_of_all_files_are_said_at_once(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(config(entry(Token="E TH"))))
    with pytest.raises(ConfigError) as caught:
        topics_from_config(tmp_path / "a.json", tmp_path / "b.json")
    assert [line.partition(": ")[0][-6:] for line in str(caught.value).splitlines()][:2] == ["a.json", "b.json"]


def test_a_missing_file_says_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json: no such file: cp config\.example\.json config\.json"):
        topics_from_config(tmp_path / "absent.json")


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    """Docker makes one where a file to be mounted is missing."""
    with pytest.raises(ConfigError, match=r"not a file: remove it, then cp config\.example\.json config\.json"):
        topics_from_config(tmp_path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    loop = tmp_path / "config.json"
    loop.symlink_to(loop)
    with pytest.raises(ConfigError, match="cannot be read"):
        topics_from_config(loop)


def test_a_wallet_is_never_shown(read: Read) -> None:
    for content in (
        "twelve words",
        {"wallet": "twelve words", "worker": [ANY]},
        {"wallet": ["twelve words"], "worker": 1},
    ):
        with pytest.raises(ConfigError) as caught:
            read(content)
        assert "twelve" not in str(caught.value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["{", "10m", "http://"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [place for key, child in inner for place in places(child, (*path, key))]


EXAMPLE_VALUE = json.loads(EXAMPLE.read_text("utf-8"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.sampled_from(places(EXAMPLE_VALUE)), value=json_values, key=st.none() | st.text(max_size=4))
def test_no_change_gives_anything_but_topics_or_lines_that_say_what_is_wrong(
    tmp_path: Path, place: tuple[Any, ...], value: Any, key: str | None
) -> None:
    changed: Any = {"root": copy.deepcopy(EXAMPLE_VALUE)}
    holder, last = changed, "root"
    for step in place:
        holder, last = holder[last], step
    if key is None:
        holder[last] = value
    elif isinstance(holder, dict):
        holder[key] = value
    path = tmp_path / "config.json"
    path.write_text(json.dumps(changed["root"]), "utf-8")
    try:
        topics, mistake = topics_from_config(path), ""
    except ConfigError as error:
        topics, mistake = (), str(error)
    assert bool(topics) != bool(mistake)
    assert all("config.json: " in line for line in mistake.splitlines())
