"""One mistake in a config.json."""

from dataclasses import dataclass
from enum import StrEnum

from node.json_text import JsonNode


class Severity(StrEnum):
    """The effect of a finding."""

    ERROR = "error"  # the start is refused
    WARNING = "warning"  # shown once


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One mistake in a file, in one line with file, key, value and remedy. Never shows a mnemonic or passphrase."""

    severity: Severity
    key: str  # the full path
    line: str
    meant: str = ""  # the full path of the key that a misspelt one stands for


def error(node: JsonNode, remedy: str, *, kind: bool = False) -> Finding:
    return Finding(severity=Severity.ERROR, key=node.key, line=node.line(remedy, kind=kind))


def warning(node: JsonNode, remedy: str, *, kind: bool = False) -> Finding:
    return Finding(severity=Severity.WARNING, key=node.key, line=node.line(remedy, kind=kind))
