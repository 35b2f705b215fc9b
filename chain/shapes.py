"""Topics, workers and epochs as the chain describes them, in one form for all versions of the chain's API.

Decimals stay the texts that the chain wrote, so that two of them can be compared digit for digit. What a host says is
not there is None or empty; a host that fails raises ``chain.addresses.ChainFault``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSeen:
    """A host of the LCD interface, as it describes itself."""

    chain_id: str
    api: str  # version of the emissions API that it speaks, such as "v10"
    release: str  # of the chain's program; empty if the host does not tell
    height: int  # of its newest block
    time_ms: int  # of that block
    catching_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSeen:
    """A topic on chain. Lengths are in blocks, or in seconds on a chain that schedules by the clock."""

    topic_id: int
    metadata: str  # the name that its creator gave it
    loss_method: str
    epoch_length: int
    ground_truth_lag: int
    window: int  # length of the workers' submission window
    in_seconds: bool = False  # True: the three lengths are seconds
    newest_nonce: int = 0  # height of the nonce block of the newest epoch; 0: none was opened yet
    allow_negative: bool
    is_multi: bool = False  # True: an answer has several labelled values
    labels: tuple[str, ...] = ()
    weight: str = "0"
    is_active: bool | None = None  # None: not asked, or not told


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a worker may do in a topic; None: the host cannot tell."""

    registered: bool | None = None
    whitelisted: bool | None = None
    can_submit: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """A value that a worker has submitted."""

    nonce: int
    inferer: str  # address
    value: str  # a decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The losses of an epoch, or one reputer's part of them: of the loss itself, or its base-10 logarithm."""

    nonce: int
    combined: str  # of the network's inference
    naive: str
    inferers: Mapping[str, str] = field(default_factory=lambda: NOTHING)  # loss by address
    one_out: Mapping[str, str] = field(
        default_factory=lambda: NOTHING
    )  # of the network without that inferer, by address


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInference:
    """The network's inference as it is now, made of the values of the newest epoch whose window has closed."""

    height: int  # of the query on older chains; newer chains keep the bundle and tell the epoch's nonce here as well
    nonce: int = 0  # of the epoch whose values it is made of; 0: not told
    combined: str
    naive: str
    inferers: Mapping[str, str] = field(default_factory=lambda: NOTHING)  # value by address
    one_out: Mapping[str, str] = field(
        default_factory=lambda: NOTHING
    )  # the network's inference without that inferer, by address
    weights: Mapping[str, str] = field(
        default_factory=lambda: NOTHING
    )  # by address; empty where the host does not tell


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSeen:
    """A worker's smoothed score in a topic."""

    nonce: int  # of the epoch that changed it last; 0: none yet
    score: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a block settled for one epoch of one topic, by the block's events."""

    topic_id: int
    nonce: int
    height: int  # of the settling block
    scores: Mapping[str, str] = field(default_factory=lambda: NOTHING)  # of inferers, by address
    rewards: Mapping[str, str] = field(default_factory=lambda: NOTHING)  # of inferers, by address, in uallo
    score_emas: Mapping[str, str] = field(default_factory=dict)  # inferers' smoothed scores after the epoch, by address
    losses: Losses | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """An upgrade of the chain's program that is scheduled."""

    name: str
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reputers:
    """Each reputer's own losses of an epoch; empty where the host does not tell."""

    losses: Mapping[str, Losses] = field(default_factory=dict)  # by the reputer's address
    stakes: Mapping[str, str] = field(default_factory=lambda: NOTHING)  # by the reputer's address
