"""Settings from the environment and ``.env``: read once in each ``__main__``, typed and frozen.

The names are the field names in upper case; ``.env.example`` has a line for each (a test compares them).
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigError
from core.logs import LogFormat


class Market(StrEnum):
    """Where prices come from. SIMULATED is invented and never reaches the chain."""

    BINANCE = "binance"
    SIMULATED = "simulated"
    AUTO = "auto"  # birnn run alone: Binance if it answers within three seconds


VENUES = ("binance", "binanceus", "coinbase", "kraken", "coingecko", "tiingo", "atlas")


def urls_setting(venue: str) -> str:
    """The setting that has the REST hosts of a venue.

    >>> urls_setting("kraken"), urls_setting("binanceus")
    ('KRAKEN_REST_URLS', 'BINANCE_US_REST_URLS')
    """
    return {"binanceus": "BINANCE_US"}.get(venue, venue.upper()) + "_REST_URLS"


class NoModelPolicy(StrEnum):
    """What a topic without a usable champion answers while the market is fresh."""

    PERSISTENCE = "persistence"  # the naive forecast, and says so
    REFUSE = "refuse"  # 503


def _urls(text: str) -> str:
    for url in text.split(","):
        try:
            parts = urlsplit(url.strip())
            fit = parts.scheme in {"http", "https", "ws", "wss"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is none
            fit = False
        if not fit or re.search(r"\s", url.strip()):
            raise ValueError(f"each URL must be http(s):// or ws(s):// with a host, was {url.strip()!r}")
    return text


def _files(text: str) -> str:
    if not all(name.strip() for name in text.split(",")):
        raise ValueError("each file, between commas, must have a name")
    return text


def _venues(text: str) -> str:
    names = [name.strip() for name in text.split(",")]
    if not all(name in VENUES for name in names) or len(set(names)) < len(names):
        raise ValueError(f"each of {', '.join(VENUES)} at most once, comma-separated, the first one first")
    return text


def _truth(text: str) -> str:
    if text and text not in VENUES:
        raise ValueError(f"one of {', '.join(VENUES)}, or nothing")
    return text


Venues = Annotated[str, AfterValidator(_venues)]
TruthVenue = Annotated[str, AfterValidator(_truth)]
Urls = Annotated[str, AfterValidator(_urls)]
Files = Annotated[str, AfterValidator(_files)]


class Settings(BaseSettings):
    """Every knob of the deployment. Units sit in the names."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, frozen=True, extra="ignore")

    config_file: Files = "config.json"
    data_dir: Path = Path("data")
    market: Market = Market.BINANCE
    # All of one market: api.binance.us is another one with thin candles of its own, and is not among them.
    binance_rest_urls: Urls = "https://api.binance.com,https://api1.binance.com,https://data-api.binance.vision"
    binance_ws_urls: Urls = "wss://stream.binance.com:9443,wss://data-stream.binance.vision"
    binance_archive_url: Urls = "https://data.binance.vision"
    market_venues: Venues = "binance,coinbase,kraken"
    truth_venue: TruthVenue = ""
    binance_us_rest_urls: Urls = "https://api.binance.us"
    coinbase_rest_urls: Urls = "https://api.exchange.coinbase.com"
    kraken_rest_urls: Urls = "https://api.kraken.com"
    coingecko_rest_urls: Urls = "https://api.coingecko.com"
    tiingo_rest_urls: Urls = "https://api.tiingo.com"
    atlas_rest_urls: Urls = "https://forge-data.allora.run"
    coingecko_api_key: SecretStr = SecretStr("")
    tiingo_api_key: SecretStr = SecretStr("")
    atlas_api_key: SecretStr = SecretStr("")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    training_days: Annotated[int, Field(ge=3, le=3650)] = 90
    retrain_cron: str = "17 */6 * * *"
    max_anchor_age_s: PositiveInt = 30
    max_kline_age_s: PositiveInt = 180
    max_model_age_h: PositiveInt = 168
    no_model_policy: NoModelPolicy = NoModelPolicy.PERSISTENCE
    database_url: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: LogFormat = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def config_files(self) -> tuple[Path, ...]:
        """The files that hold the topics: one, or one for each network or wallet."""
        return tuple(Path(name.strip()) for name in self.config_file.split(","))

    @property
    def venues(self) -> tuple[str, ...]:
        """Whom prices and candles are asked of, best first."""
        return tuple(name.strip() for name in self.market_venues.split(","))

    def urls_of(self, venue: str) -> tuple[str, ...]:
        """REST hosts of a venue in the order they are tried, without a trailing slash."""
        urls = str(getattr(self, urls_setting(venue).lower()))
        return tuple(url.strip().rstrip("/") for url in urls.split(","))

    def key_of(self, venue: str) -> str:
        """A venue's key; empty where there is none."""
        key = getattr(self, f"{venue}_api_key", None)
        return key.get_secret_value().strip() if isinstance(key, SecretStr) else ""

    @property
    def ws_urls(self) -> tuple[str, ...]:
        """Binance stream hosts, likewise."""
        return tuple(url.strip().rstrip("/") for url in self.binance_ws_urls.split(","))

    @property
    def klines_dir(self) -> Path:
        """Where the kline store is."""
        return self.data_dir / "klines"

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger: ``DATABASE_URL``, or SQLite in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'ledger.sqlite3'}"


def load_settings(**overrides: object) -> Settings:
    """The settings of this process.

    Args:
        overrides: field values that win over the environment (command line flags).
    Raises:
        ConfigError: names the variable, its value and what it must be.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(
            f"environment (or .env): {name}={first.get('input')!r}: {first['msg']}; see .env.example"
        ) from error
