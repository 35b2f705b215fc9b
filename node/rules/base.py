"""Shared by the rules: a finding, the file under examination, and the rules over any struct."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from node.json_text import JsonNode
from node.schema import ENDPOINTS, HOMES, LIST, OBJECT, OUR_KEYS, STRING, STRINGS, WALLET, Key, Keys
from node.spelling import nearest, same_but_for_case
from node.versions import V0_8_1, NodeVersions, is_number, named_version, version_by_keys


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """A config.json, the node that reads it, and the address that inference listens on."""

    root: JsonNode
    by_keys: NodeVersions  # the versions whose schema the file follows
    node: NodeVersions  # NODE_VERSION's, else ``by_keys``
    own: tuple[str, int] | None  # host and port; None if they are not known or do not matter

    @classmethod
    def of(cls, root: JsonNode, node_version: str, own: tuple[str, int] | None) -> "ConfigFile":
        by_keys = version_by_keys(root)
        return cls(root=root, by_keys=by_keys, node=named_version(node_version) or by_keys, own=own)

    @property
    def wallet(self) -> JsonNode:
        return self.root.field("wallet")

    @property
    def is_for_a_node(self) -> bool:
        """True if a node reads the file. A wallet that names the network alone belongs to a list of topics for us."""
        written = {field.name.casefold() for field in self.wallet.fields()}
        keys = {name.casefold() for name in WALLET.keys() - {"chainId", "nodeRpc", "nodeRpcs", "nodegRpcs"}}
        return self.node.is_named or bool(written & keys)


def struct_findings(file: ConfigFile, node: JsonNode, keys: Keys) -> Iterator[Finding]:
    """Find keys of a struct that are misspelt, given twice, of another version or type, or too small."""
    by_fold = {name.casefold(): name for name in keys}
    seen: dict[str, int] = {}
    for field in node.fields():
        name = by_fold.get(field.name.casefold())
        if name is None:
            yield _unknown(file, node, field, keys)
            continue
        seen[name] = seen.get(name, 0) + 1
        yield from _value(file, field, name, keys[name])
    for name, times in seen.items():
        if times > 1:
            last = node.field(name)
            yield error(last, f"it is given {times} times and the node takes the last; keep one", kind=True)


def _unknown(file: ConfigFile, node: JsonNode, field: JsonNode, keys: Keys) -> Finding:
    if right := nearest(field.name, keys):
        remedy = f"it is misspelt and the node ignores it; write {right}"
        return replace(error(field, remedy, kind=True), meant=node.field(right).key)
    for home, others in HOMES.items():
        if others is not keys and (right := same_but_for_case(field.name, others)):
            return error(field, f"the node ignores it here; {right} belongs into {home}", kind=True)
    if right := same_but_for_case(field.name, (*OUR_KEYS, *ENDPOINTS)):
        return error(field, f"the node ignores it here; {right} belongs into parameters", kind=True)
    return warning(field, "no version of the node that is known here reads it; remove it", kind=True)


def _value(file: ConfigFile, field: JsonNode, name: str, spans: tuple[Key, ...]) -> Iterator[Finding]:
    read = [span for span in spans if file.node.overlap(span.since, span.until)]
    if not read:
        instead = next((span.newer_too for span in spans if span.newer_too), "")
        later = file.node.first >= spans[-1].until
        what = f"; it reads {instead}" if instead and later else ""
        yield warning(field, f"{file.node.said} does not read it{what}; remove it", kind=True)
        return
    if field.value is None:
        if name == "maxFees" and file.node.within(V0_8_1):
            yield error(field, f"{file.node.said} does not start with null here; give a number or remove it")
        return
    if not any(span.kind.fits(field.value) for span in read):
        versions = f" for {file.node.said}" if len(spans) > 1 and name in {"gasPrices", "maxFees"} else ""
        example = f", such as {span.needed}" if (span := read[-1]).needed and span.kind is STRING else ""
        # A string in the place of an object or a list may be a mnemonic: show its type alone.
        whole = read[-1].kind in (OBJECT, LIST, STRINGS)
        yield error(field, f"{read[-1].kind.remedy}{example}{versions}", kind=whole)
        return
    if name == "gasPriceUpdateInterval" and file.wallet.field("gasPrices").value != "auto":
        return  # the node reads it with "auto" alone
    for span in read:
        if span.least is None or not file.node.within(span.since, span.until) or not is_number(field.value):
            continue
        if field.value < span.least and not (span.zero_is_absent and field.value == 0):
            yield error(field, f"it must be {span.least:g} or more, or {file.node.said} does not start")
