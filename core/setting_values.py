"""What the values of settings may be: checked as texts, and turned into types where pydantic does not."""

import re
from math import inf
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from bech32 import bech32_decode
from pydantic import AfterValidator, BeforeValidator, SecretStr

LONGEST_WAIT_S = 120.0  # most seconds after the base that an answer may be held
OFF = "off"  # value of an ALARM_ setting: no such alarm
AUTO_WAIT = "auto"  # value of ANSWER_WAIT: as long as the window allows


def _urls(text: str) -> str:
    for url in text.split(",") if text else ():
        try:
            parts = urlsplit(url.strip())
            fit = parts.scheme in {"http", "https", "ws", "wss"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # the port is not a number
            fit = False
        if not fit or re.search(r"\s", url.strip()):
            raise ValueError(f"each URL must be http(s):// or ws(s):// with a host, was {url.strip()!r}")
    return text


def _at_home(path: Path) -> Path:
    """Replace ``~`` and ``~NAME`` by the home, as a shell does."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no home {path.parts[0]} here; write the whole path") from error


def _files(text: str) -> str:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ValueError("each file, between commas, must have a name")
    return ",".join(str(_at_home(Path(name))) for name in names)


def _database(url: str) -> str:
    """Replace ``~`` in the path of an SQLite file."""
    scheme, slashes, path = url.partition(":///")
    return f"{scheme}{slashes}{_at_home(Path(path))}" if slashes and path.startswith("~") else url


def _rpc_urls(text: str) -> str:
    return text if text in {"", "none"} else _urls(text)


def _metrics_urls(text: str) -> str:
    return "none" if text.strip().lower() == "none" else _urls(text)


def _wait(text: str) -> str:
    """Check a wait: ``auto``, or seconds after the base."""
    if text != AUTO_WAIT:
        wait_s(text)
    return text


def wait_s(text: str) -> float:
    """Read the seconds of a wait.

    Raises:
        ValueError: not a number from 0 to LONGEST_WAIT_S.

    >>> wait_s("45")
    45.0
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT_S:
        raise ValueError(f"auto, or seconds after the base from 0 to {LONGEST_WAIT_S:g}")
    return seconds


def _threshold(text: str) -> str:
    """Check an alarm's threshold: ``off``, or a number.

    Raises:
        ValueError: neither.
    """
    try:
        fit = text in {"", OFF} or 0 <= float(text) < inf
    except ValueError:
        fit = False
    if not fit:
        raise ValueError("off, or a number of 0 or more")
    return text


def _chance(text: str) -> str:
    """Check a threshold that is a probability; raises ValueError if it is not a number from 0 to 1."""
    if text not in {"", OFF} and float(_threshold(text)) > 1:
        raise ValueError("off, or a probability from 0 to 1")
    return _threshold(text)


def _lower(given: object) -> object:
    return given.strip().lower() if isinstance(given, str) else given


def _venues(text: str) -> str:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError("each venue at most once, comma-separated, the best one first")
    return ",".join(names)


def of_venues(text: str) -> dict[str, list[str]]:
    """Read ``NAME=VALUE,NAME=VALUE``; a name that is repeated has several values, in order.

    Raises:
        ValueError: a part has another form.

    >>> of_venues("kraken=https://a,coinbase=https://c, kraken=https://b")
    {'kraken': ['https://a', 'https://b'], 'coinbase': ['https://c']}
    """
    found: dict[str, list[str]] = {}
    for part in text.split(",") if text else ():
        name, equals, value = (word.strip() for word in part.partition("="))
        named = re.fullmatch(r"[a-z0-9]+", name.lower()) and equals
        if not named or not value or value.startswith("="):  # a key alone may end in equals signs
            raise ValueError("each part, between commas, must be VENUE=VALUE, such as kraken=...")
        found.setdefault(name.lower(), []).append(value)
    return found


def _venue_urls(text: str) -> str:
    for urls in of_venues(text).values():
        _urls(",".join(urls))
    return text


def _venue_keys(secret: SecretStr) -> SecretStr:
    for venue, keys in of_venues(secret.get_secret_value()).items():
        if len(keys) > 1:
            raise ValueError(f"a venue has one key, {venue} has {len(keys)}; a key has no comma")
    return secret


def _worker_addresses(text: str) -> str:
    for address in filter(None, map(str.strip, text.split(","))):
        if not re.fullmatch(r"allo1[02-9ac-hj-np-z]{38}", address):
            raise ValueError(f"each address, between commas, is allo1 and 38 letters and digits, was {address!r}")
        if bech32_decode(address)[0] is None:  # the chain would refuse each question about it
            raise ValueError(f"the checksum of {address!r} is wrong: a letter of the address is mistyped")
    return text


AnyCase = BeforeValidator(_lower)  # for settings whose values are words
Venues = Annotated[str, AnyCase, AfterValidator(_venues)]
Urls = Annotated[str, AfterValidator(_urls)]
VenueUrls = Annotated[str, AfterValidator(_venue_urls)]
VenueKeys = Annotated[SecretStr, AfterValidator(_venue_keys)]
RpcUrls = Annotated[str, AnyCase, AfterValidator(_rpc_urls)]
MetricsUrls = Annotated[str, AfterValidator(_metrics_urls)]
Wait = Annotated[str, AnyCase, AfterValidator(_wait)]
Files = Annotated[str, AfterValidator(_files)]
Threshold = Annotated[str, AnyCase, AfterValidator(_threshold)]
Chance = Annotated[str, AnyCase, AfterValidator(_chance)]
WorkerAddresses = Annotated[str, AfterValidator(_worker_addresses)]
Folder = Annotated[Path, AfterValidator(_at_home)]
DatabaseUrl = Annotated[str, AfterValidator(_database)]
