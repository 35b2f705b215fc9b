"""A JSON file as a tree that knows where each value stands, so that a mistake is one line with file, key and value."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from core.errors import ConfigError

EXAMPLE = "config.example.json"
MNEMONIC_WORDS = 12
_SECRET_KEY = re.compile("mnemonic|phrase|password|secret|private|seed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object with every pair it has, also where a key stands twice."""

    pairs: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class JsonNode:
    """A JSON value and its place in the file. None is a missing value or null, which Go's decoder treats alike."""

    file: Path
    key: str  # the full path: "worker[0].topicId"
    value: Any
    name: str = ""  # the last key, as the file spells it

    def line(self, remedy: str, *, kind: bool = False) -> str:
        """The line of an error or warning; with ``kind`` it shows the type of the value and not the value."""
        hidden = kind or bool(_SECRET_KEY.search(self.name))
        shown = "is missing or null" if self.value is None else f"was {_shown(self.value, kind=hidden)}"
        where = "a key of many words" if is_mnemonic(self.key) else self.key or "top level"
        line = f"{self.file}: {where} {shown}: {remedy}"
        # Keys and values come from the file and may hold line breaks.
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)

    def wrong(self, remedy: str, *, kind: bool = False) -> NoReturn:
        """Raise ConfigError with ``line``."""
        raise ConfigError(self.line(remedy, kind=kind))

    def field(self, name: str) -> "JsonNode":
        """The value of a key of a Go struct: of any case, the last one if given twice."""
        return self._last(name, [pair for pair in self._pairs if pair[0].casefold() == name.casefold()])

    def at(self, name: str) -> "JsonNode":
        """The value of a key of a Go map: of exact case, the last one if given twice."""
        return self._last(name, [pair for pair in self._pairs if pair[0] == name])

    def fields(self) -> "Iterator[JsonNode]":
        """Every pair of an object, in the file's order and spelling; empty if the value is not an object."""
        return (self._child(name, value) for name, value in self._pairs)

    def items(self) -> "Iterator[JsonNode]":
        """Every item of a list; empty if the value is not a list."""
        values = self.value if isinstance(self.value, list) else []
        return (JsonNode(self.file, f"{self.key}[{index}]", value) for index, value in enumerate(values))

    @property
    def _pairs(self) -> tuple[tuple[str, Any], ...]:
        return self.value.pairs if isinstance(self.value, JsonObject) else ()

    def _last(self, name: str, found: list[tuple[str, Any]]) -> "JsonNode":
        return self._child(name, found[-1][1] if found else None)

    def _child(self, name: str, value: Any) -> "JsonNode":
        return JsonNode(self.file, f"{self.key}.{name}" if self.key else name, value, name)


def is_mnemonic(value: Any) -> bool:
    """True if a value looks like the words of a wallet.

    >>> is_mnemonic("test " * 12), is_mnemonic("worker1")
    (True, False)
    """
    return isinstance(value, str) and len(re.findall(r"\b[a-z]{3,8}\b", value)) >= MNEMONIC_WORDS


def _shown(value: Any, *, kind: bool = False) -> str:
    """A value for a message: ASCII, one short line, no secret; objects and lists by their type."""
    kinds = {JsonObject: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number"}
    if kind or isinstance(value, JsonObject | list) or is_mnemonic(value):
        return kinds.get(type(value), "a number")
    text = json.dumps(value)
    if isinstance(value, str):
        text = re.sub(r"//[^/@]*@", "//***@", text)  # a password in a URL
    return text if len(text) <= 120 else f"{text[:117]}..."


def read_json(path: Path) -> JsonNode:
    """Read a file as a tree.

    Raises:
        ConfigError: the file does not exist or is not JSON; the message names place and remedy.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        if path.exists() and not path.is_file():  # Docker makes a folder for a mounted file that is missing
            raise ConfigError(f"{path}: not a file: remove it, then cp {EXAMPLE} config.json")
        text = path.read_bytes().decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=lambda pairs: JsonObject(tuple(pairs)), parse_constant=refuse_constant
        )
        return JsonNode(path, "", value)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file: cp {EXAMPLE} config.json, or set CONFIG_FILE") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): check its owner and mode") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        if text.startswith("\ufeff"):
            raise ConfigError(
                f"{path}: line 1 column 1: begins with a byte order mark: save it as UTF-8 without BOM"
            ) from error
        where = f"line {error.lineno} column {error.colno}"
        raise ConfigError(f"{path}: {where}: not JSON ({error.msg}): correct it, or compare with {EXAMPLE}") from error
    except (ValueError, RecursionError) as error:  # a constant, a number of thousands of digits, endless brackets
        raise ConfigError(f"{path}: not JSON ({error}): compare with {EXAMPLE}") from error
