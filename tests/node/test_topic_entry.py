"""An entry of config.json as a topic: which pair stands for its token, and what volatility means."""

from typing import Any

import pytest

from core.errors import ConfigError
from core.topic import DOLLARS, Volatility, catalogue, default_symbol, split_symbol
from tests.node.config_files import Read, config, entry


@pytest.mark.parametrize("word", list(Volatility))
def test_a_volatility_topic_that_the_catalogue_does_not_know_may_say_what_it_means(read: Read, word: str) -> None:
    asked = entry(9999, Token="SOL", Target="volatility", Horizon="15m", Volatility=word)
    said, silent = read(config(asked, entry(9998, Token="SOL", Target="volatility", Horizon="15m")))
    assert (said.volatility, silent.volatility) == (word, Volatility.STD_HORIZON)
    assert said.unit == Volatility(word).factor(15)


def test_every_volatility_topic_of_the_catalogue_has_the_network_s_definition() -> None:
    definitions = {(topic.target == "volatility", topic.volatility) for topic in catalogue().values()}
    assert definitions == {(True, "std_horizon"), (False, None)}


def test_the_definition_of_a_catalogue_topic_may_be_repeated(read: Read) -> None:
    said, silent = read(config(entry(82, Token="SOL", Volatility="std_horizon"), entry(79, Token="BTC")))
    assert said.volatility is silent.volatility is Volatility.STD_HORIZON
    assert said.unit == 15**0.5


@pytest.mark.parametrize(
    ("asked", "symbol", "proxy"),
    [
        pytest.param(entry(60, Token="XAU"), "PAXGUSDT", "PAXG stands for XAU", id="gold"),
        pytest.param(entry(60, Token="xau", Symbol="PAXGUSDC"), "PAXGUSDC", "PAXG stands for XAU", id="in USDC"),
        pytest.param(entry(60, Token="XAU", Symbol="XAUTUSDT"), "XAUTUSDT", "XAUT stands for XAU", id="the other one"),
        pytest.param(entry(70, Token="NEAR"), "NEARUSDT", "", id="NEAR"),
        pytest.param(entry(81, Token="XRP"), "XRPUSDT", "", id="XRP"),
        pytest.param(entry(56, Token="BERA"), "BERAUSDT", "", id="BERA"),
    ],
)
def test_each_asset_has_a_pair_and_a_proxy_is_named(read: Read, asked: dict[str, Any], symbol: str, proxy: str) -> None:
    (topic,) = read(config(asked))
    assert (topic.symbol, topic.proxy) == (symbol, proxy)


@pytest.mark.parametrize("quote", DOLLARS)
@pytest.mark.parametrize(
    ("topic_id", "token", "base"),
    [(1, "ETH", "ETH"), (8, "BNB", "BNB"), (9, "ARB", "ARB"), (60, "XAU", "PAXG"), (9999, "DOGE", "DOGE")],
)
def test_a_pair_of_the_token_in_any_dollar_is_taken(
    read: Read, topic_id: int, token: str, base: str, quote: str
) -> None:
    asked = {} if topic_id < 9999 else {"Target": "price", "Horizon": "10m"}
    (topic,) = read(config(entry(topic_id, Token=token, Symbol=base + quote, **asked)))
    assert split_symbol(topic.symbol, token) == (base, quote)


@pytest.mark.parametrize(
    ("token", "symbol", "base", "quote"),
    [
        ("DOT", "DOTUSD", "DOT", "USD"),
        ("dot", "DOTUSD", "DOT", "USD"),
        ("DO", "DOTUSD", "DO", "TUSD"),
        ("DOT", "DOTTUSD", "DOT", "TUSD"),
        ("BNB", "BNBUSD", "BNB", "USD"),
        ("BTC", "BTCFDUSD", "BTC", "FDUSD"),
        ("BTC", "BTCUSD1", "BTC", "USD1"),
        ("A", "AUSDT", "A", "USDT"),
        ("A", "AUSD1", "A", "USD1"),
        ("APY", "APYUSD", "APY", "USD"),
        ("AFD", "AFDUSD", "AFD", "USD"),
        ("S", "SUSDT", "S", "USDT"),
        ("CRV", "CRVUSD", "CRV", "USD"),
        ("B", "BUSD", "B", "USD"),
        ("BUSD", "BUSDUSD", "BUSD", "USD"),
        ("USD", "USDUSDT", "USD", "USDT"),
        ("USDT", "USDTUSD", "USDT", "USD"),
        ("USDC", "USDCUSDT", "USDC", "USDT"),
        ("TUSD", "TUSDUSDT", "TUSD", "USDT"),
        ("FDUSD", "FDUSDUSDT", "FDUSD", "USDT"),
        ("DAI", "DAIUSDT", "DAI", "USDT"),
        ("DAI", "DAIUSD", "DAI", "USD"),
        ("XAU", "XAUTUSD", "XAUT", "USD"),
        ("XAU", "XAUTTUSD", "XAUT", "TUSD"),
    ],
)
def test_the_token_says_where_its_symbol_is_split(read: Read, token: str, symbol: str, base: str, quote: str) -> None:
    (topic,) = read(config(entry(9999, Token=token, Symbol=symbol, Target="price", Horizon="10m")))
    assert split_symbol(topic.symbol, topic.token) == (base, quote)


def test_one_symbol_is_not_two_pairs(read: Read) -> None:
    asked = {"Symbol": "DOTUSD", "Target": "price", "Horizon": "10m"}
    with pytest.raises(ConfigError, match="that is DO in TUSD here and DOT in USD in"):
        read(config(entry(9998, Token="DOT", **asked), entry(9999, Token="DO", **asked)))


@pytest.mark.parametrize(
    ("token", "symbol"),
    [
        ("SU", "SUSDT"),
        ("TUSD", "USDTUSD"),
        ("ETH", "ETHBTC"),
        ("ETH", "ETHEUR"),
        ("ETH", "ETHTRY"),
        ("ETH", "ETHBNB"),
        ("ETH", "ETHFIUSDT"),
        ("ETH", "ETHWUSDT"),
        ("ETH", "WETHUSDT"),
        ("ETH", "STETHETH"),
        ("ETH", "USDTETH"),
        ("ETH", "USDT"),
        ("ETH", "ETH"),
        ("ETH", "ETHUSDTUSDT"),
        ("ETH", "ETHUSDCUSDT"),
        ("BTC", "WBTCUSDT"),
        ("BTC", "BTCDOMUSDT"),
        ("BTC", "BTCSTUSDT"),
        ("BTC", "XBTUSD"),
        ("SOL", "SOLVUSDT"),
        ("XAU", "PAXGBTC"),
        ("XAU", "PAXUSDT"),
        ("DOGE", "DOGEBTC"),
        ("DOGE", "1000DOGEUSDT"),
        ("BTCB", "BTCBUSD"),
    ],
)
def test_a_pair_of_something_else_or_in_something_else_is_refused(read: Read, token: str, symbol: str) -> None:
    known = {"ETH": 1, "BTC": 14, "SOL": 37, "XAU": 60}.get(token)
    asked = {} if known else {"Target": "log_return", "Horizon": "1h"}
    with pytest.raises(ConfigError) as caught:
        read(config(entry(known or 9999, Token=token, Symbol=symbol, **asked)))
    assert f'Symbol was "{symbol}"' in str(caught.value)
    assert f"Token is {token}" in str(caught.value)
    assert f"such as {default_symbol(token)}" in str(caught.value)
