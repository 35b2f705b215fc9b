"""What the monitor sees of the other processes: values that the page, the metrics and the alarms read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from admission.readiness import Readiness
from model.registry.champions import Champion, Demotion
from updater.state import UpdaterState


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSeen:
    """The newest look at inference."""

    url: str
    answers: bool = False
    since_ms: int = 0  # since when it answers, or does not
    fault: str = "not asked yet"  # why it does not answer; empty if it does
    seen_ms: int = 0  # time of the newest answer; 0: none so far
    topics: Sequence[Mapping[str, Any]] = ()  # of /topics in the newest answer, as inference.http.app writes them
    samples: Mapping[str, Mapping[tuple[tuple[str, str], ...], float]] = field(default_factory=dict)  # of /metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCounts:
    """Counters of the official node for one address and topic, since its start."""

    requests: int = 0
    builds: int = 0
    submissions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """The newest look at the official node's metrics; the dry-run node has none."""

    url: str
    answers: bool = False
    fault: str = "not asked yet"
    seen_ms: int = 0
    counts: Mapping[tuple[str, int], NodeCounts] = field(default_factory=dict)  # by address and topic id


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One look at everything, made every few seconds; a part that cannot be read keeps its last value and a fault."""

    now_ms: int
    market: str  # BINANCE or SIMULATED
    inference: InferenceSeen
    nodes: Sequence[NodeSeen] = ()
    updater: UpdaterState | None = None
    champions: Mapping[str, Champion] = field(default_factory=dict)  # by Topic.key
    demotions: Mapping[str, Sequence[Demotion]] = field(default_factory=dict)  # by Topic.key, oldest first
    admission: Mapping[str, Readiness] = field(default_factory=dict)  # by Topic.key, of admission.json
    free_bytes: int | None = None  # on the disk of DATA_DIR
    faults: Mapping[str, str] = field(default_factory=dict)  # "ledger", "store", "registry", "disk" -> why it fails
