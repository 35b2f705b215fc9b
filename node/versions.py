"""Versions of the official node: the versions that can read a config.json, and the differences between them."""

import math
import re
from dataclasses import dataclass
from typing import Any

from node.json_text import JsonNode

Version = tuple[int, int, int]
V0_5_0, V0_6, V0_7, V0_8, V0_8_1 = (0, 5, 0), (0, 6, 0), (0, 7, 0), (0, 8, 0), (0, 8, 1)
V0_9, V0_10, V0_12, NEVER = (0, 9, 0), (0, 10, 0), (0, 12, 0), (10**9, 0, 0)
LAST: Version = (10**9 - 1, 0, 0)

ENTRYPOINT, OLD_ENTRYPOINT = "apiAdapter", "api-worker-reputer"

# By the sources read: the releases of the node, the second excluded, that are built for a version of the chain's API.
_SPOKEN = ((V0_5_0, V0_6, "v5"), (V0_9, V0_10, "v8"), (V0_12, (0, 13, 0), "v10"))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVersions:
    """The versions that a node may have, first and last included."""

    first: Version
    last: Version
    said: str  # "node v0.12.0"
    is_named: bool  # True if an operator named the version: then a node reads the file

    def overlap(self, since: Version, until: Version) -> bool:
        """True if one of the versions lies in [since, until)."""
        return self.first < until and since <= self.last

    def within(self, since: Version, until: Version = NEVER) -> bool:
        """True if every one of the versions lies in [since, until)."""
        return since <= self.first and self.last < until


def named_version(text: str) -> NodeVersions | None:
    """The version that NODE_VERSION or an image tag names; None if the text names no version.

    >>> [v and (v.first, v.last) for v in map(named_version, ("v0.12.0", "0.9", "v0.7.0@sha256:00", "sha256:00", "x"))]
    [((0, 12, 0), (0, 12, 0)), ((0, 9, 0), (0, 9, 999999)), ((0, 7, 0), (0, 7, 0)), None, None]
    """
    tag = text.strip().partition("@")[0].rpartition(":")[2]
    if tag in {"latest", "dev-latest"}:
        return NodeVersions(first=V0_12, last=LAST, said=f"node {tag}", is_named=True)
    found = re.fullmatch(r"v?([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,6}))?(?:[-+][0-9A-Za-z.+-]*)?", tag)
    if not found:
        return None
    major, minor, patch = int(found[1]), int(found[2]), found[3]
    first, last = (int(patch), int(patch)) if patch else (0, 999_999)
    oldest = (max(V0_5_0, (major, minor, at)) for at in (first, last))  # config.json began with v0.5.0
    return NodeVersions(first=next(oldest), last=next(oldest), said=f"node v{tag.removeprefix('v')}", is_named=True)


def version_by_keys(root: JsonNode) -> NodeVersions:
    """The versions whose schema a file follows, judged by its keys."""
    wallet = root.field("wallet")
    names = [entry.field("inferenceEntrypointName").value for entry in root.field("worker").items()]
    new = any(wallet.field(key).value for key in ("nodeRpcs", "nodegRpcs"))
    old = any(wallet.field(key).value for key in ("nodeRpc", "gas")) or OLD_ENTRYPOINT in names
    if new or not old:
        return NodeVersions(first=V0_9, last=LAST, said="node v0.9 and later", is_named=False)
    older = OLD_ENTRYPOINT in names or (ENTRYPOINT not in names and is_number(wallet.field("gasPrices").value))
    if older:
        return NodeVersions(first=V0_5_0, last=(0, 6, 999), said="node v0.5 and v0.6", is_named=False)
    return NodeVersions(first=V0_7, last=(0, 8, 999), said="node v0.7 and v0.8", is_named=False)


def takes_held_answers(versions: NodeVersions) -> bool:
    """True if no node of these versions limits how long it waits for an answer, by the sources read."""
    return any(versions.within(*span) for span in ((V0_5_0, V0_6), (V0_9, V0_10), (V0_12, NEVER)))


def starts_in_turn(versions: NodeVersions) -> bool:
    """True if a node of these versions starts its topics in turn, so that a held answer delays other topics."""
    return versions.overlap(V0_12, NEVER)


def spoken_api(versions: NodeVersions) -> str | None:
    """The version of the chain's emissions API that a node's messages are built for; None if that is not known.

    >>> [spoken_api(v) for text in ("v0.12.0", "v0.9.1", "0.5", "v0.7.0", "latest") if (v := named_version(text))]
    ['v10', 'v8', 'v5', None, None]
    """
    return next((api for since, until, api in _SPOKEN if versions.within(since, until)), None)


def is_number(value: Any) -> bool:
    """True for a finite JSON number; False for a boolean."""
    return type(value) in (int, float) and math.isfinite(value)
