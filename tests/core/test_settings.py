"""Settings: what is wrong stops the start with one line that names the variable, the value and what it must be."""

import pytest

from core.errors import ConfigError
from core.settings import load_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("PORT", "abc", id="no number"),
        pytest.param("PORT", "70000", id="no port"),
        pytest.param("MARKET", "kraken", id="unknown market"),
        pytest.param("NO_MODEL_POLICY", "maybe", id="unknown policy"),
        pytest.param("MAX_ANCHOR_AGE_S", "0", id="never fresh"),
        pytest.param("TRAINING_DAYS", "1", id="too few days"),
        pytest.param("SEED", "-1", id="below 0"),
        pytest.param("SEED", str(2**63), id="more than torch takes"),
        pytest.param("LOG_LEVEL", "loud", id="unknown level"),
        *(
            pytest.param("BINANCE_REST_URLS", url, id=url)
            for url in ["api.binance.com", "http://", "http://a b", "http://127.0.0.1:99999", "http://a,", "ftp://a"]
        ),
    ],
)
def test_a_wrong_value_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    (line,) = str(caught.value).splitlines()
    assert f"{name}={value!r}" in line
    assert ".env.example" in line


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        pytest.param("VENUE_URLS", "https://a.example", "each part, between commas, must be VENUE=", id="no venue"),
        pytest.param("VENUE_URLS", "kraken=a.example", "each URL must be http", id="no URL"),
        pytest.param("VENUE_URLS", "kraken=https://a,,", "VENUE=VALUE", id="an empty part"),
        pytest.param("VENUE_KEYS", "geheim7", "VENUE=VALUE", id="no venue of a key"),
        pytest.param("VENUE_KEYS", "geheim7==", "VENUE=VALUE", id="a key that ends in equals signs"),
        pytest.param("VENUE_KEYS", "tiingo=geheim7,tiingo=geheim8", "tiingo has 2", id="two keys"),
    ],
)
def test_what_names_no_venue_is_one_line_without_a_key(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=says) as caught:
        load_settings()
    assert str(caught.value).startswith(f"environment: {name}=")
    assert "geheim" not in str(caught.value)


def test_hosts_and_keys_of_venues_replace_the_names_of_earlier_releases() -> None:
    old = {"kraken_rest_urls": "http://old/", "tiingo_api_key": "old"}
    settings = load_settings(**old)
    assert (settings.urls_of("kraken"), settings.key_of("tiingo")) == (("http://old",), "old")
    new = load_settings(**old, venue_urls="Kraken = http://a/ , kraken=http://b", venue_keys="tiingo=k=1")
    assert (new.urls_of("kraken"), new.key_of("tiingo")) == (("http://a", "http://b"), "k=1")
    assert (new.urls_of("coinbase"), new.key_of("atlas")) == ((), "")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("allo1yjy7uan0rtsxz2jm33xfhjawuhvz8pfveqd7lq", "the checksum of 'allo1yjy.*' is wrong"),
        ("allo1short", "is allo1 and 38 letters and digits, was 'allo1short'"),
    ],
)
def test_a_mistyped_address_is_named(address: str, says: str) -> None:
    """The chain would refuse each question about it, and answers would look as if they never arrived."""
    right = "allo1yjy7uan0rtsxz2jm33xfhjawuhvz8pfveqd7l3"
    assert load_settings(worker_address=f"{right}, {right}").workers == (right, right)
    with pytest.raises(ConfigError, match=says):
        load_settings(worker_address=f"{right},{address}")


def test_hosts_keep_their_order_and_lose_their_trailing_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_REST_URLS", "http://b:1/, https://a")
    assert load_settings().urls_of("binance") == ("http://b:1", "https://a")
