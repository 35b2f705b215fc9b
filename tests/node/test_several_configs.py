"""Several config.json, one for each network or wallet: what is read together, and what could not be told apart."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from core.settings import load_settings
from node.config_file import topics_from_config
from tests.node.config_files import ENDPOINT, by_parts, config, entry

MAINNET = "allora-mainnet-1"
HERE = ENDPOINT + "&network=" + MAINNET
TESTNET_3 = config(entry(3, Token="BTC"))  # BTC 10m price
MAINNET_3 = config(entry(3, Token="SOL", InferenceEndpoint=HERE), chainId=MAINNET)  # SOL 8h log-return
THERE_3 = config(entry(3, Token="BTC", InferenceEndpoint=ENDPOINT + "&network=allora-testnet-1"))


def files(folder: Path, *contents: object) -> tuple[Path, ...]:
    paths = tuple(folder / f"{name}.json" for name in ("first", "second")[: len(contents)])
    for path, content in zip(paths, contents, strict=True):
        path.write_text(json.dumps(content))
    return paths


def test_two_networks_are_read_as_one_list(tmp_path: Path) -> None:
    topics = topics_from_config(*files(tmp_path, THERE_3, MAINNET_3))
    assert [(t.key, t.symbol, t.horizon, t.loss) for t in topics] == [
        ("allora-testnet-1/3", "BTCUSDT", "10m", "mse"),
        ("allora-mainnet-1/3", "SOLUSDT", "8h", "czar"),
    ]


def test_ids_that_do_not_repeat_need_no_network_in_the_url(tmp_path: Path) -> None:
    second = config(entry(10, Token="SOL"), chainId=MAINNET)
    assert [t.key for t in topics_from_config(*files(tmp_path, TESTNET_3, second))] == [
        "allora-testnet-1/3",
        "allora-mainnet-1/10",
    ]


def test_two_wallets_of_one_network_share_out_its_topics(tmp_path: Path) -> None:
    topics = topics_from_config(*files(tmp_path, TESTNET_3, config(entry(1))))
    assert [t.topic_id for t in topics] == [3, 1]


def test_a_placeholder_may_name_the_network(tmp_path: Path) -> None:
    named = [
        config(entry(3, Token=token, InferenceEndpoint=ENDPOINT + "&network={Chain}", Chain=chain), chainId=chain)
        for token, chain in (("BTC", "allora-testnet-1"), ("SOL", MAINNET))
    ]
    assert len(topics_from_config(*files(tmp_path, *named))) == 2


BARE = "http://h/inference/{Token}"
PRICE = {"Target": "price", "Horizon": "10m"}


MISTAKES = [
    (
        [TESTNET_3, TESTNET_3],
        ["second.json: worker[0].topicId was 3", "first.json: worker[0]", "in this network", "remove"],
    ),
    (
        [TESTNET_3, MAINNET_3],
        ["first.json: worker[0].parameters.InferenceEndpoint", f"topic {MAINNET}/3", "add &network=allora-testnet-1"],
    ),
    (
        [THERE_3, config(entry(3, Token="SOL"), chainId=MAINNET)],
        ["second.json: worker[0].parameters.InferenceEndpoint", "add &network=allora-mainnet-1"],
    ),
    (
        [config(entry(3, Token="BTC", InferenceEndpoint=HERE))],
        [f'asks for network "{MAINNET}"', "the wallet is on allora-testnet-1"],
    ),
    ([{"worker": [entry(9, InferenceEndpoint=HERE, **PRICE)]}], [f'asks for network "{MAINNET}"', 'no "chainId"']),
    (
        [TESTNET_3, {"worker": [entry(3, Token="SOL", **PRICE)]}],
        ["second.json: worker[0].topicId", "first.json: worker[0]", '"chainId" to the wallet of', "second.json to"],
    ),
    (
        [{"worker": [entry(9, **PRICE)]}, {"worker": [entry(9, Token="SOL", **PRICE)]}],
        ["second.json: worker[0].topicId was 9", "first.json: worker[0]"],
    ),
    (
        [config(entry(1, InferenceEndpoint=BARE), entry(2))],
        ["worker[0].parameters.InferenceEndpoint", "allora-testnet-1/2 is about ETH too", "add ?topic={TopicId}"],
    ),
    (
        [
            config(entry(18, Token="BTC", InferenceEndpoint=BARE)),
            config(entry(18, Token="BTC", InferenceEndpoint=HERE), chainId=MAINNET),
        ],
        ["first.json: worker[0]", "add ?topic={TopicId}&network=allora-testnet-1"],
    ),
    (
        [
            config(entry(18, Token="BTC", InferenceEndpoint="http://h/x/{TopicId}")),
            config(entry(18, Token="BTC", InferenceEndpoint="http://h/x/{TopicId}"), chainId=MAINNET),
        ],
        ["second.json: worker[0]", "the very same URL", "add ?network=allora-mainnet-1"],
    ),
    ([config(entry(InferenceEndpoint="http://h/inference/eth?topic=1"))], ['asks for "eth"', 'Token is "ETH"']),
    ([config(entry(9, **PRICE), chainId="a b")], ["wallet.chainId was", "dashes"]),
]


@pytest.mark.parametrize(("contents", "parts"), by_parts(MISTAKES))
def test_what_could_not_be_told_apart_is_one_line(tmp_path: Path, contents: list[Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        topics_from_config(*files(tmp_path, *contents))
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    for part in parts:
        assert part in text


def test_the_setting_names_files_between_commas() -> None:
    assert load_settings(config_file="a.json, b/c.json").config_files == (Path("a.json"), Path("b/c.json"))
    with pytest.raises(ConfigError, match=r"CONFIG_FILE='a\.json,,b\.json'"):
        load_settings(config_file="a.json,,b.json")
