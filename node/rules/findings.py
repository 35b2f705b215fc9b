"""The entry to the rules: every error and warning about one file."""

from collections.abc import Iterator

from node.json_text import JsonNode, is_mnemonic
from node.rules.base import ConfigFile, Finding, Severity, struct_findings, warning
from node.rules.entries import reputer_findings, worker_findings
from node.rules.wallet import wallet_findings
from node.schema import TOP


def findings(root: JsonNode, node_version: str = "", own: tuple[str, int] | None = None) -> list[Finding]:
    """Every error and warning about one file, errors first.

    Args:
        root: the whole file.
        node_version: NODE_VERSION; if it names no version, the file's own keys decide.
        own: host and port that inference listens on; None if they are not known or do not matter.
    """
    file = ConfigFile.of(root, node_version, own)
    found = [
        *struct_findings(file, root, TOP),
        *wallet_findings(file),
        *(finding for entry in root.field("worker").items() for finding in worker_findings(file, entry)),
        *reputer_findings(file),
        *_words(file),
    ]
    return sorted(found, key=lambda finding: finding.severity is not Severity.ERROR)


def _words(file: ConfigFile) -> Iterator[Finding]:
    """Find a mnemonic outside the wallet; the rules over the wallet report the others."""
    reported = {field.key for field in file.wallet.fields() if is_mnemonic(field.value)}
    for node in _all_below(file.root):
        several = isinstance(node.value, list) and all(isinstance(item, str) for item in node.value)
        words = " ".join(node.value) if several else node.value
        if is_mnemonic(words) and node.key not in reported:
            yield warning(node, "anybody who can read this file can take the wallet; remove these words", kind=True)


def _all_below(node: JsonNode) -> Iterator[JsonNode]:
    for child in (*node.fields(), *node.items()):
        yield child
        yield from _all_below(child)
