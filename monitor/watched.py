"""What the monitor sees of the other processes: values that the page, the metrics and the alarms read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from admission.readiness import Readiness
from chain.shapes import Upgrade
from core.topic import Topic
from model.registry.champions import Champion, Demotion
from truth.contract import Fault
from truth.unit import Unit
from updater.state import UpdaterState

PARTS = {  # what may have a fault, by the keys of Watched.faults
    "updater": "the updater's state",
    "klines": "the sync of klines",
    "registry": "the registry of networks",
    "admission": "the admission report",
    "disk": "the disk of DATA_DIR",
    "ledger": "the ledger's database",
    "score": "scoring",
    "record": "the topics' records of answers",
    "epochs": "reading the chain's epochs",
    "adopt": "the judging of what auto stands for",
    "trim": "deleting old answers",
    "chain": "the record of the chain's epochs",
    "look": "the monitor's own look at the processes",
    "alarms": "the sending of alarms",
}


class ChainRead(NamedTuple):
    """How well a network's chain is read."""

    seen_ms: int | None  # when it was last read; None: not since the monitor's start
    fault: str  # why it is not read now; empty if it is
    requests: int  # since the start, LCD and RPC together
    height: int | None


class State(StrEnum):
    """Something that lasts, whose begin the monitor notes."""

    NOT_READY = "not ready"  # of a topic
    NO_PRICE = "no price"  # of a symbol
    NO_CHAMPION = "no champion"  # of a topic
    SIMULATED = "simulated"  # the market that inference answers from
    UNWRITTEN = "unwritten"  # answers wait for the ledger
    NO_UPDATER = "no updater"  # no heartbeat
    FAULT = "fault"  # of a part, by the keys of Watched.faults


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
    unsubmitted: int = 0  # questions since the newest submission, or since the monitor first saw the node
    submitted_ms: int | None = None  # when that submission was seen; None: none since the monitor's start


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """The newest look at the official node's metrics; the dry-run node has none."""

    url: str
    answers: bool = False
    fault: str = "not asked yet"
    seen_ms: int = 0
    counts: Mapping[tuple[str, int], NodeCounts] = field(default_factory=dict)  # by address and topic id


class Participation(NamedTuple):
    """A topic's participation by the answers that are kept."""

    share: float  # answered over expected epochs, 0 to 1
    missed_left: int  # epochs that may still be missed before the share falls to 90 %


class TruthGap(NamedTuple):
    """How far the truth that the reputers score against is from the truth that our answers are scored against."""

    bp: float  # median of the absolute distances; of a return the difference itself, of others a share of the truth
    epochs: int
    is_log: bool | None = None  # True if the chain's losses are base-10 logarithms


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A topic checked against the chain, by what the monitor has collected in the ledger."""

    seen_ms: int = 0  # time of the newest look at the network; 0: none so far
    unarrived: int = 0  # newest closed epochs in a row in which no answer of ours arrived
    unarrived_ms: int = 0  # when the first of them was asked
    unarrived_why: str = ""  # of the newest
    contract: Sequence[Fault] | None = None  # None: not compared yet
    unit: Unit | None = None  # None: not compared yet
    truth: TruthGap | None = None  # None: no truth was recovered in enough epochs
    api: str = ""  # version of the emissions API that the network speaks; empty: not seen
    spoken: str = ""  # version that the official node speaks; empty: not known
    submitter: str = ""  # the official node and its version, in words
    upgrade: Upgrade | None = None  # of the chain's program that is scheduled
    upgrade_ms: int = 0  # when it is expected, by the time of a block


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One look at everything, made every few seconds; a part that cannot be read keeps its last value and a fault."""

    now_ms: int
    market: str  # BINANCE or SIMULATED
    inference: InferenceSeen
    topics: Sequence[Topic] = ()  # of config.json
    since_ms: Mapping[tuple[State, str], int] = field(default_factory=dict)  # of what lasts now, by topic or symbol
    nodes: Sequence[NodeSeen] = ()
    updater: UpdaterState | None = None
    champions: Mapping[str, Champion] = field(default_factory=dict)  # by Topic.key
    demotions: Mapping[str, Sequence[Demotion]] = field(default_factory=dict)  # by Topic.key, oldest first
    admission: Mapping[str, Readiness] = field(default_factory=dict)  # by Topic.key, of admission.json
    free_bytes: int | None = None  # on the disk of DATA_DIR
    faults: Mapping[str, str] = field(default_factory=dict)  # "ledger", "registry", "disk", a step -> why it fails
    chain: Mapping[str, Checked] = field(default_factory=dict)  # by Topic.key; without topics that were not looked at
