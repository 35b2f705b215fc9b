"""Settings from the environment and ``.env``: read once in each ``__main__``, typed and frozen.

The names are the field names in upper case; ``.env.example`` has a line for each (a test compares them).
"""

import os
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from core.env_file import RETIRED, look_through, nearest, read_env_file
from core.errors import ConfigError
from core.logs import LogFormat
from core.setting_values import (
    AUTO_WAIT,
    OFF,
    AnyCase,
    Chance,
    DatabaseUrl,
    Files,
    Folder,
    MetricsUrls,
    RpcUrls,
    Threshold,
    Urls,
    VenueKeys,
    Venues,
    VenueUrls,
    Wait,
    WorkerAddresses,
    of_venues,
)

ENV_FILE = Path(".env")
ALARMS = (
    *("inference", "topic", "anchor", "champion", "training", "demotion", "skill", "participation", "store", "clock"),
    *("submissions", "market", "arrival", "contract", "unit", "truth", "upgrade"),
)
AUTO = "auto"  # value of TRUTH_VENUE and BASE_RULE: what the recovered truths of the chain prove


class Market(StrEnum):
    """Where prices come from. SIMULATED prices are invented or replayed, and never reach the chain."""

    BINANCE = "binance"
    SIMULATED = "simulated"
    AUTO = "auto"  # birnn run alone: Binance if it answers within three seconds


def urls_setting(venue: str) -> str:
    """The setting that has the REST hosts of a venue.

    >>> urls_setting("binance"), urls_setting("kraken")
    ('BINANCE_REST_URLS', 'VENUE_URLS')
    """
    return "BINANCE_REST_URLS" if venue == "binance" else "VENUE_URLS"


class BaseRule(StrEnum):
    """At which moment the interval of a question begins."""

    MINUTE = "minute"  # at the nonce block's time, cut down to the minute: the network's own rule
    ASKED = "asked"  # when the question is answered
    AUTO = "auto"  # as adopted from the recovered truths of the chain; until then MINUTE


class Objective(StrEnum):
    """The score that answers are made for."""

    AUTO = "auto"  # admission on a testnet; loss elsewhere, on a mainnet stretched where that still beats naive
    LOSS = "loss"  # the least expected loss
    ADMISSION = "admission"  # the network's seven criteria: the spread that they ask for


class NoModelPolicy(StrEnum):
    """The answer of a topic without a usable champion while the market is fresh."""

    PERSISTENCE = "persistence"  # the naive forecast, marked as such
    REFUSE = "refuse"  # 503


class Settings(BaseSettings):
    """Every knob of the deployment. Units sit in the names."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

    config_file: Files = "config.json"
    node_version: str = ""  # of the official node that reads the files; empty: read from their keys
    data_dir: Folder = Path("data")
    market: Annotated[Market, AnyCase] = Market.BINANCE
    # Hosts of one market: api.binance.us is another market, with thin candles of its own.
    binance_rest_urls: Urls = "https://api.binance.com,https://api1.binance.com,https://data-api.binance.vision"
    binance_ws_urls: Urls = "wss://stream.binance.com:9443,wss://data-stream.binance.vision"
    binance_archive_url: Urls = "https://data.binance.vision"
    market_venues: Venues = "binance,coinbase,kraken"
    truth_venue: Annotated[str, AnyCase] = ""
    venue_urls: VenueUrls = ""  # of venues other than binance, where the registry's default does not serve
    venue_keys: VenueKeys = SecretStr("")
    # Names of earlier releases, still read; see REPLACED.
    binance_us_rest_urls: Urls = ""
    coinbase_rest_urls: Urls = ""
    kraken_rest_urls: Urls = ""
    tiingo_rest_urls: Urls = ""
    atlas_rest_urls: Urls = ""
    tiingo_api_key: SecretStr = SecretStr("")
    atlas_api_key: SecretStr = SecretStr("")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    training_days: Annotated[int, Field(ge=3, le=3650)] = 90
    retrain_cron: str = "17 */6 * * *"
    max_anchor_age_s: PositiveInt = 30
    max_kline_age_s: PositiveInt = 180
    max_model_age_h: PositiveInt = 168
    no_model_policy: Annotated[NoModelPolicy, AnyCase] = NoModelPolicy.PERSISTENCE
    lcd_urls: Urls = ""  # of the chain's REST interface; each host serves the network whose chain id it reports
    worker_address: WorkerAddresses = ""  # of the wallets, one for each config file in its order
    rpc_urls: RpcUrls = ""  # of the chain; empty: the wallet's own in config.json; none: the chain is not asked
    node_delay_s: Annotated[float, Field(ge=0, le=60)] = 4.0
    base_rule: Annotated[BaseRule, AnyCase] = BaseRule.MINUTE
    answer_patience_s: Annotated[float, Field(ge=0, le=120)] = 20.0
    answer_wait: Wait = AUTO_WAIT
    objective: Annotated[Objective, AnyCase] = Objective.AUTO
    database_url: DatabaseUrl = ""
    ledger_days: Annotated[int, Field(ge=40, le=36500)] = 400  # older answers and scores are deleted
    monitor_host: str = "127.0.0.1"
    monitor_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    inference_url: Urls = ""  # where the monitor asks inference; empty: HOST and PORT on this machine
    node_metrics_urls: MetricsUrls = "http://127.0.0.1:2112/metrics"  # of the official nodes; none: no node is watched
    alarm_urls: SecretStr = SecretStr("")  # of Apprise, comma-separated
    # Thresholds of the alarms, by the alarm's name; off: no such alarm.
    alarm_inference: Threshold = "20"  # seconds without an answer of inference
    alarm_topic: Threshold = "3"  # epochs in a row in which the topic cannot be answered
    alarm_anchor: Threshold = "60"  # seconds, age of the newest price
    alarm_champion: Threshold = ""  # hours, age of the topic's network; empty: MAX_MODEL_AGE_H
    alarm_training: Threshold = "3"  # failed trainings in a row
    alarm_demotion: Threshold = "1"  # demotions within a day
    alarm_skill: Chance = "0.01"  # chance of answers this much worse than naive if they were equally good
    alarm_participation: Threshold = "12"  # epochs that may still be missed before 90 % are not reached
    alarm_store: Threshold = "1000"  # megabytes free on the disk
    alarm_clock: Threshold = "2"  # seconds between this machine's clock and the venue's
    alarm_submissions: Threshold = "3"  # questions of the node in a row without a submission
    alarm_market: Threshold = "0"  # seconds of answers from a SIMULATED market
    alarm_arrival: Threshold = "3"  # epochs in a row in which no answer of ours arrived on chain
    alarm_contract: Threshold = "0.25"  # share of the horizon by which the chain's ground-truth lag may differ
    alarm_unit: Threshold = "10"  # robust deviations of our answers from the other inferers'
    alarm_truth: Threshold = "20"  # basis points between the truth that the reputers score against and ours
    alarm_upgrade: Threshold = "7"  # days until a scheduled upgrade of the chain
    log_level: Annotated[Literal["debug", "info", "warning", "error"], AnyCase] = "info"
    log_format: Annotated[LogFormat, AnyCase] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, environment, ``.env``. pydantic's own reader ignores lines that it does not understand."""
        lines, _ = look_through(ENV_FILE, setting_names())  # load_settings reports the wrong lines
        ours = {name.lower(): lines[name].value for name in setting_names() if name in lines and lines[name].value}
        return init_settings, env_settings, InitSettingsSource(settings_cls, ours)

    @property
    def config_files(self) -> tuple[Path, ...]:
        """The files that hold the topics: one, or one for each network or wallet."""
        return tuple(Path(name.strip()) for name in self.config_file.split(","))

    @property
    def venues_set(self) -> dict[str, tuple[str, ...]]:
        """The venues by the setting that names them, without unset settings."""
        return {
            "MARKET_VENUES": self.venues,
            "TRUTH_VENUE": () if self.truth_venue in {"", AUTO} else (self.truth_venue,),
            "VENUE_URLS": tuple(of_venues(self.venue_urls)),
            "VENUE_KEYS": tuple(of_venues(self.venue_keys.get_secret_value())),
        }

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port that inference listens on; None if any free port will do."""
        return (self.host, self.port) if self.port else None

    @property
    def inference_address(self) -> str:
        """URL of inference as the monitor asks it, without a trailing slash."""
        return self.inference_url.strip().rstrip("/") or _url(self.host, self.port)

    @property
    def page_address(self) -> str:
        """URL of the monitor's page on this machine."""
        return f"{_url(self.monitor_host, self.monitor_port)}/"

    @property
    def node_metrics(self) -> tuple[str, ...]:
        """URLs of the official nodes' metrics."""
        return () if self.node_metrics_urls == "none" else _split_urls(self.node_metrics_urls)

    @property
    def workers(self) -> tuple[str, ...]:
        """Addresses of the wallets, one for each config file in its order; an empty one is not known."""
        return tuple(address.strip() for address in self.worker_address.split(",")) if self.worker_address else ()

    def rpcs(self, of_wallets: Mapping[str | None, Sequence[str]]) -> dict[str | None, tuple[str, ...]]:
        """Return the chain's RPC addresses by network; without networks whose chain is not asked.

        Args:
            of_wallets: addresses that the config files name, by network.
        """
        if self.rpc_urls == "none":
            return {}
        given = tuple(url.strip().rstrip("/") for url in self.rpc_urls.split(",") if url.strip())
        found = {network: given or tuple(urls) for network, urls in of_wallets.items()}
        return {network: urls for network, urls in found.items() if urls}

    @property
    def lcds(self) -> tuple[str, ...]:
        """URLs of the chain's REST interface, without a trailing slash."""
        return _split_urls(self.lcd_urls)

    @property
    def alarms(self) -> dict[str, float]:
        """The threshold of each alarm by its name, such as ``inference``; without alarms that are off."""
        texts = {name: str(getattr(self, f"alarm_{name}")) for name in ALARMS}
        texts["champion"] = texts["champion"] or str(self.max_model_age_h)
        return {name: float(text) for name, text in texts.items() if text != OFF}

    @property
    def venues(self) -> tuple[str, ...]:
        """The venues that are asked for prices and candles, best first."""
        return tuple(name.strip() for name in self.market_venues.split(","))

    def urls_of(self, venue: str) -> tuple[str, ...]:
        """REST hosts of a venue in the order they are tried, without a trailing slash; empty if none is set."""
        if venue != "binance" and (urls := of_venues(self.venue_urls).get(venue)):
            return _split_urls(",".join(urls))
        name = {"binanceus": "binance_us"}.get(venue, venue)
        return _split_urls(getattr(self, f"{name}_rest_urls", ""))

    def key_of(self, venue: str) -> str:
        """A venue's key; empty if none is set."""
        if keys := of_venues(self.venue_keys.get_secret_value()).get(venue):
            return keys[0]
        key = getattr(self, f"{venue}_api_key", None)
        return key.get_secret_value().strip() if isinstance(key, SecretStr) else ""

    @property
    def ws_urls(self) -> tuple[str, ...]:
        """Binance stream hosts in the order they are tried, without a trailing slash."""
        return _split_urls(self.binance_ws_urls)

    @property
    def klines_dir(self) -> Path:
        """The folder of the kline store."""
        return self.data_dir / "klines"

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger: ``DATABASE_URL``, or SQLite in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'ledger.sqlite3'}"


def _url(host: str, port: int) -> str:
    """The URL of a port of this machine.

    >>> _url("0.0.0.0", 8000), _url("::1", 1)
    ('http://127.0.0.1:8000', 'http://[::1]:1')
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _split_urls(text: str) -> tuple[str, ...]:
    return tuple(url.strip().rstrip("/") for url in text.split(",")) if text else ()


def setting_names() -> tuple[str, ...]:
    """The names as environment and ``.env`` write them."""
    return tuple(name.upper() for name in Settings.model_fields)


def load_settings(**overrides: object) -> Settings:
    """Load the settings of this process.

    Args:
        overrides: field values that win over the environment (command line flags).
    Raises:
        ConfigError: a line for each wrong setting: name, value, where it is set and what it must be; the lines of
            ``.env`` come last, in their order.
    """
    lines, of_lines = look_through(ENV_FILE, setting_names())
    others: list[str] = []
    try:
        settings = Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        for one in error.errors():
            name = str(one["loc"][0]).upper()
            secret = name.endswith(("_KEY", "_KEYS", "ALARM_URLS"))
            value = "(not shown)" if secret else _without_secrets(repr(one.get("input")))
            said = f"{name}={value}: {in_words(_without_secrets(one['msg']))}; see .env.example"
            if where := _where(name, overrides):
                others.append(f"{where}: {said}")
            else:
                of_lines[lines[name].number] = f"{ENV_FILE} line {lines[name].number}: {said}"
    if faults := [*others, *(of_lines[number] for number in sorted(of_lines))]:
        raise ConfigError("\n".join(faults))
    return settings


def in_words(said: str) -> str:
    """Write pydantic's message about a value in plain words.

    >>> in_words("Input should be a valid integer, unable to parse string as an integer")
    'it must be a whole number'
    >>> in_words("Value error, at most one"), in_words("Input should be greater than 0")
    ('at most one', 'it must be greater than 0')
    >>> in_words("Value error, 'x' is not one of 'binance', 'simulated'.")
    'it must be one of binance, simulated'
    """
    said = re.sub(r", unable to .*", "", said.removeprefix("Value error, ")).replace("Input should", "it must", 1)
    if choices := re.fullmatch(r".* is not one of (.*)\.", said):
        return f"it must be one of {choices[1].replace(chr(39), '')}"
    return said.replace("valid integer", "whole number").replace("valid ", "")


def _where(name: str, overrides: Mapping[str, object]) -> str:
    """Name the place where a setting is set; empty for ``.env``."""
    if name.lower() in overrides:
        return "command line"
    if any(value for variable, value in os.environ.items() if variable.upper() == name):
        return "environment"
    return ""


def where_set(name: str) -> str:
    """Where a setting is set, for messages: the environment, a line of ``.env``, or elsewhere."""
    lines, _ = look_through(ENV_FILE, setting_names())
    return _where(name, {}) or (f"{ENV_FILE} line {lines[name].number}" if name in lines else "settings")


def _without_secrets(text: str) -> str:
    """Hide the part of a URL before its @ and after its question mark."""
    return re.sub(r"\?[^\s,'\"]+", "?...", re.sub(r"//[^/\s,'\"]*@", "//...@", text))


# Names of earlier releases that still work, and what replaces them.
REPLACED = {
    **{
        f"{name}_REST_URLS": f"write {name.replace('_', '').lower()}=URL in VENUE_URLS, which replaces it"
        for name in ("BINANCE_US", "COINBASE", "KRAKEN", "TIINGO", "ATLAS")
    },
    **{f"{name}_API_KEY": f"write {name.lower()}=KEY in VENUE_KEYS, which replaces it" for name in ("TIINGO", "ATLAS")},
}
# Names that other programs use as well, or names like them.
_COMMON = {"CONFIG_FILE", "DATA_DIR", "MARKET", "HOST", "PORT", "DATABASE_URL", "LOG_LEVEL", "LOG_FORMAT", "SEED"}


def settings_warnings() -> list[str]:
    """Warn of names that are set and retired, replaced, or (in the environment) nearly the name of a setting.

    Other programs share the environment, so a name there is compared with those that only this project uses. In
    ``.env`` a name that is nearly a setting is an error.

    Raises:
        ConfigError: ``.env`` is wrong.
    """
    names = setting_names()
    lines = read_env_file(ENV_FILE, names)
    found = [(f"{ENV_FILE} line {line.number}", name) for name, line in lines.items() if line.value or name in RETIRED]
    found += [("environment", name) for name, value in os.environ.items() if value]
    ours = [name for name in names if name not in _COMMON and not name.endswith("_KEY")]
    others = [name for name in os.environ if name.upper() not in names]
    near = {name: meant for name in others if (meant := nearest(name, ours, cutoff=0.93))}
    return [
        *(f"{where}: {name} is not read any more; {RETIRED[name]}" for where, name in found if name in RETIRED),
        *(f"{where}: {name} is still read; {REPLACED[name]}" for where, name in found if name in REPLACED),
        *(f"environment: {name} is no setting and does nothing; did you mean {meant}?" for name, meant in near.items()),
    ]
