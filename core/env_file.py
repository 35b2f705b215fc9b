"""Reads ``.env`` as strictly as config.json: a malformed line, or a name that is not a setting, is an error by number.

No message shows a value, or text that may be a value: keys are in this file.
"""

import difflib
import io
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dotenv.parser import Binding, parse_stream

from core.errors import ConfigError

# What docker-compose.yml, docker-compose.two-networks.yml and scripts/init read besides our settings (a test compares).
DOCKER_NAMES = frozenset(
    {
        "CHAIN_IMAGE",
        "CHAIN_IMAGE_DIGEST",
        "CHAIN_IMAGE_TAG",
        "GRAFANA_IMAGE",
        "GRAFANA_IMAGE_DIGEST",
        "GRAFANA_IMAGE_TAG",
        "GRAFANA_PASSWORD",
        "GRAFANA_PORT",
        "INFERENCE_CPUS",
        "INFERENCE_MEMORY",
        "MONITOR_CPUS",
        "MONITOR_MEMORY",
        "NODE_CPUS",
        "NODE_GID",
        "NODE_IMAGE",
        "NODE_IMAGE_DIGEST",
        "NODE_IMAGE_TAG",
        "NODE_LOG_LEVEL",
        "NODE_MEMORY",
        "NODE_METRICS_PORT",
        "NODE_UID",
        "PROMETHEUS_DAYS",
        "PROMETHEUS_DISK",
        "PROMETHEUS_IMAGE",
        "PROMETHEUS_IMAGE_DIGEST",
        "PROMETHEUS_IMAGE_TAG",
        "PROMETHEUS_PORT",
        "PYTHON_IMAGE",
        "PYTHON_IMAGE_DIGEST",
        "PYTHON_IMAGE_TAG",
        "SECOND_CONFIG_FILE",
        "SECOND_NODE_METRICS_PORT",
        "TORCH_INDEX_URL",
        "UPDATER_CPUS",
        "UPDATER_MEMORY",
    }
)
# Names that compose, the engine, the build, proxies, Python and the system read: more than can be listed.
FOREIGN = re.compile(
    r"(COMPOSE|DOCKER|BUILDKIT|BUILDX)_\w+|(?i:(HTTP|HTTPS|FTP|ALL|NO)_PROXY)"
    r"|PYTHON[A-Z]+|NO_COLOR|FORCE_COLOR|TZ|LANG|LC_[A-Z]+|SOURCE_DATE_EPOCH"
)
# The names that the documentation of compose lists: a name that is nearly one of them is misspelt.
COMPOSE_NAMES = frozenset(
    {
        "COMPOSE_ANSI",
        "COMPOSE_BAKE",
        "COMPOSE_CONVERT_WINDOWS_PATHS",
        "COMPOSE_DISABLE_ENV_FILE",
        "COMPOSE_ENV_FILES",
        "COMPOSE_EXPERIMENTAL",
        "COMPOSE_FILE",
        "COMPOSE_HTTP_TIMEOUT",
        "COMPOSE_IGNORE_ORPHANS",
        "COMPOSE_MENU",
        "COMPOSE_PARALLEL_LIMIT",
        "COMPOSE_PATH_SEPARATOR",
        "COMPOSE_PROFILES",
        "COMPOSE_PROGRESS",
        "COMPOSE_PROJECT_NAME",
        "COMPOSE_REMOVE_ORPHANS",
        "COMPOSE_STATUS_STDOUT",
    }
)
# Names that earlier releases read, and what to do now; they warn and do nothing.
RETIRED: Mapping[str, str] = dict.fromkeys(
    ("COINGECKO_REST_URLS", "COINGECKO_API_KEY"), "CoinGecko is no longer a venue: remove the line"
)

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_BINDING = re.compile(r"\s*(?:export[^\S\r\n]+)?[A-Za-z_]\w*[^\S\r\n]*=", re.ASCII)
_LONGEST_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvLine:
    """The value that a line gives, and the line's number, counted from 1."""

    value: str
    number: int


def read_env_file(path: Path, settings: Collection[str]) -> dict[str, EnvLine]:
    """Read names and values of the file; nothing if there is no file.

    Args:
        settings: the names of our settings, in upper case.
    Raises:
        ConfigError: the file cannot be read; or a text line for each wrong line, with its number.
    """
    found, faults = look_through(path, settings)
    if faults:
        raise ConfigError("\n".join(faults.values()))
    return found


def look_through(path: Path, settings: Collection[str]) -> tuple[dict[str, EnvLine], dict[int, str]]:
    """Read the right lines as ``read_env_file`` does, and return the faults of the wrong lines by number.

    Raises:
        ConfigError: the file cannot be read.
    """
    known = {*settings, *DOCKER_NAMES, *RETIRED}
    found: dict[str, EnvLine] = {}
    faults: dict[int, str] = {}
    for binding in parse_stream(io.StringIO(_text(path), newline="")):
        text = binding.original.string
        if binding.key is None and not binding.error:  # a comment, or blank lines at the end
            continue
        number = binding.original.line + len(re.findall(r"\r\n|\n|\r", text[: len(text) - len(text.lstrip())]))
        try:
            name, value = _of(binding, path, number)
            _check(name, value, text, path, number, known, found)
            found[name] = EnvLine(value=value, number=number)
        except ConfigError as error:
            faults[number] = str(error)
    return found, faults


def _check(
    name: str, value: str, text: str, path: Path, number: int, known: Collection[str], found: Mapping[str, EnvLine]
) -> None:
    if not (name in known or FOREIGN.fullmatch(name)):
        _refuse(path, number, f"{_shown(name)} is no setting; {_meant(name, known)}")
    if name.startswith("COMPOSE_") and name not in COMPOSE_NAMES and nearest(name, COMPOSE_NAMES, cutoff=0.9):
        _refuse(path, number, f"{_shown(name)} is no name of docker compose; {_meant(name, COMPOSE_NAMES)}")
    if name in found:
        _refuse(path, number, f"{name} stands in line {found[name].number} already; remove one of the two")
    if name in known and "$" in value and not _is_single_quoted(text):
        _refuse(
            path, number, f"{name}: docker compose would put a variable in the place of $; write NAME='VALUE' for it"
        )


def nearest(name: str, known: Collection[str], cutoff: float = 0.8) -> str | None:
    """Return the known name that was probably meant, or None.

    Args:
        cutoff: least likeness, by difflib's ratio.
    """
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=cutoff)
    return near[0] if near else None


def _text(path: Path) -> str:
    """Return the file's text; empty if there is no file."""
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder, and must be a file of NAME=VALUE lines; rmdir {path} and cp .env.example {path}"
        )
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(f"{path} is a link to a file that is not there; remove the link") from None
        return ""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; check its owner and mode") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        _refuse(path, 1, "the file is UTF-16, as PowerShell's > writes it; save it as UTF-8")
    if b"\0" in content:
        number = content.count(b"\n", 0, content.index(b"\0")) + 1
        _refuse(path, number, "has NUL bytes, as UTF-16 text does (PowerShell's > and >>); save the file as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + 3 * content.startswith(b"\xef\xbb\xbf")  # counted without the mark
        line = content[:start].rpartition(b"\n")[2]
        name = line.partition(b"=")[0].strip().decode("ascii", "replace")
        after = f" after {name}=" if _NAME.fullmatch(name) and b"=" in line else ""
        number = content.count(b"\n", 0, start) + 1
        _refuse(path, number, f"byte 0x{content[start]:02x}{after} is not UTF-8; save the file as UTF-8")


def _of(binding: Binding, path: Path, number: int) -> tuple[str, str]:
    """Return name and value of a line, or raise ConfigError for a malformed line."""
    text = binding.original.string.strip()
    if not _BINDING.match(text):
        _refuse(path, number, f"{_shown(text)} is no NAME=VALUE; put a # before it if it is a remark")
    name = binding.key or text.partition("=")[0].removeprefix("export").strip()
    given = text.partition("=")[2]
    if binding.error and given.strip()[:1] in {'"', "'"} and _is_closed(given.strip()):
        _refuse(path, number, f"{name}: there is text after the closing quote; remove it, or put a # before it")
    if binding.error or "\n" in text or "\r" in text:
        _refuse(path, number, f"{name}: a quote is opened and not closed in the same line; close or remove it")
    if given[:1].isspace() and given.strip().startswith("#"):
        _refuse(path, number, f"{name}: docker compose takes the remark for the value; give it a line of its own")
    return name, binding.value or ""


def _is_closed(given: str) -> bool:
    return re.match(r"""'(?:\\.|[^'\\\r\n])*'|"(?:\\.|[^"\\\r\n])*\"""", given) is not None


def _is_single_quoted(text: str) -> bool:
    return text.partition("=")[2].lstrip().startswith("'")


def _shown(text: str) -> str:
    """Return the first word of a line if it cannot be a key or a mnemonic."""
    first, *more = re.split(r"[\s=:]+", text, maxsplit=3)
    harmless = re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|[^\W\d]+(_[^\W\d]+)*", first)
    if harmless and len(first) <= _LONGEST_SHOWN and (len(more) < 3 or "_" in first):
        return repr(first)
    return "the text (not shown: it may be a key)"


def _meant(name: str, known: Collection[str]) -> str:
    near = nearest(name, known)
    if near == name.upper():
        return f"write {near}: names are in upper case"
    return f"did you mean {near}?" if near else "see .env.example for all names, or remove the line"


def _refuse(path: Path, number: int, problem: str) -> NoReturn:
    raise ConfigError(f"{path} line {number}: {problem}")
