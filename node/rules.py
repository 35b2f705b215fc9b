"""What the official node of a version can read and submit with, and what of ours it can ask: errors and warnings.

Source: allora-offchain-node lib/domain_config.go and lib/connection_manager.go, v0.5.0 to the newest. Go's decoder
ignores keys that it does not know and the case of the keys of a struct; the keys of a map keep their case.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, parse_qs, parse_qsl, unquote, urlsplit

from core.topic import fill_placeholders
from node.json_text import JsonNode, JsonObject, is_mnemonic

Version = tuple[int, int, int]
V0_5_0, V0_6, V0_7, V0_8, V0_8_1 = (0, 5, 0), (0, 6, 0), (0, 7, 0), (0, 8, 0), (0, 8, 1)
V0_9, V0_10, V0_12, NEVER = (0, 9, 0), (0, 10, 0), (0, 12, 0), (10**9, 0, 0)
LAST: Version = (10**9 - 1, 0, 0)

ENTRYPOINT, OLD_ENTRYPOINT = "apiAdapter", "api-worker-reputer"
OUR_KEYS = (
    *("InferenceEndpoint", "Token", "Target", "Horizon", "Loss", "Symbol", "Volatility"),
    *("Base", "Wait", "Objective"),
)
# What the node may ask a worker for. A route that comes later is added to ANSWERED, and its error is gone.
ENDPOINTS = ("InferenceEndpoint", "ForecastEndpoint", "LabeledInferenceEndpoint")
ANSWERED = frozenset({"InferenceEndpoint"})
COMPOSE_HOST, COMPOSE_PORT = "inference", 8000
DOMAIN = "allora.network"  # of the public networks' hosts
PUBLIC_NETWORKS = {"testnet": "allora-testnet-1", "mainnet": "allora-mainnet-1"}
KEYRINGS = ("test", "file", "os", "pass", "kwallet", "keychain", "memory")  # of the Cosmos SDK
ASKED = re.compile(r".*/inference/([^/]*)")  # the path of an endpoint of ours, up to the token
TOKEN = re.compile(r"[A-Za-z0-9._-]{1,32}")
_HEIGHT = 918_273_645  # stands for any block height


class Severity(StrEnum):
    """What a finding does."""

    ERROR = "error"  # the start is refused
    WARNING = "warning"  # said once


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One mistake in a file, in one line with file, key, value and remedy. Never shows a mnemonic or passphrase."""

    severity: Severity
    key: str  # the whole way to it
    line: str
    meant: str = ""  # likewise, of the key that a misspelt one stands for


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVersions:
    """The versions that a node may have, first and last included."""

    first: Version
    last: Version
    said: str  # "node v0.12.0"
    is_named: bool  # True if somebody named it: then a node reads the file

    def overlap(self, since: Version, until: Version) -> bool:
        """True if one of the versions lies in [since, until)."""
        return self.first < until and since <= self.last

    def within(self, since: Version, until: Version = NEVER) -> bool:
        """True if every one of the versions lies in [since, until)."""
        return since <= self.first and self.last < until


def named_version(text: str) -> NodeVersions | None:
    """The version that NODE_VERSION or an image tag names, None where it names none.

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


def told_version(root: JsonNode) -> NodeVersions:
    """The versions whose schema a file is written in, as its own keys tell."""
    wallet = root.field("wallet")
    names = [entry.field("inferenceEntrypointName").value for entry in root.field("worker").items()]
    new = any(wallet.field(key).value for key in ("nodeRpcs", "nodegRpcs"))
    old = any(wallet.field(key).value for key in ("nodeRpc", "gas")) or OLD_ENTRYPOINT in names
    if new or not old:
        return NodeVersions(first=V0_9, last=LAST, said="node v0.9 and later", is_named=False)
    older = OLD_ENTRYPOINT in names or (ENTRYPOINT not in names and _is_number(wallet.field("gasPrices").value))
    if older:
        return NodeVersions(first=V0_5_0, last=(0, 6, 999), said="node v0.5 and v0.6", is_named=False)
    return NodeVersions(first=V0_7, last=(0, 8, 999), said="node v0.7 and v0.8", is_named=False)


def takes_held_answers(versions: NodeVersions) -> bool:
    """Whether no node of these versions has a time limit on its question for an answer, going by the sources read."""
    return any(versions.within(*span) for span in ((V0_5_0, V0_6), (V0_9, V0_10), (V0_12, NEVER)))


def starts_in_turn(versions: NodeVersions) -> bool:
    """Whether a node of these versions starts its topics one after the other: an answer held then holds up others."""
    return versions.overlap(V0_12, NEVER)


# --- values ----------------------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_int(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63  # 5e7 and 5.0 are no whole numbers to Go


def _is_uint(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**64


def _is_amount(value: Any) -> bool:
    if isinstance(value, str):
        return bool(re.fullmatch(r"[0-9]{1,19}", value)) and int(value) < 2**63
    return type(value) is int and value >= 0


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of Go that a value must fit."""

    fits: Callable[[Any], bool]
    remedy: str


STRING = Kind(lambda value: isinstance(value, str), "it must be a string in quotes")
BOOL = Kind(lambda value: isinstance(value, bool), "it must be true or false, without quotes")
INT = Kind(_is_int, "it must be a whole number written in digits, without quotes, point or exponent")
UINT = Kind(_is_uint, "it must be a whole number of 0 or more written in digits, without quotes, point or exponent")
NUMBER = Kind(_is_number, "it must be a number, without quotes")
AMOUNT = Kind(_is_amount, "it must be a whole number of 0 or more written in digits, without point or exponent")
STRINGS = Kind(_is_strings, "it must be a list of URLs in quotes")
LIST = Kind(lambda value: isinstance(value, list), "it must be a list")
OBJECT = Kind(lambda value: isinstance(value, JsonObject), "it must be an object")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What a key is in the versions from ``since`` up to and without ``until``."""

    kind: Kind
    since: Version = V0_5_0
    until: Version = NEVER
    least: float | None = None
    zero_is_absent: bool = False  # 0 is taken for absent, and a default stands in
    needed: str = ""  # the node does not start or cannot submit without it: an example, as JSON
    newer_too: str = ""  # what replaced it, for a node that does not read it any more


Keys = Mapping[str, tuple[Key, ...]]


def _keys(**keys: Key | tuple[Key, ...]) -> Keys:
    return MappingProxyType({name: key if isinstance(key, tuple) else (key,) for name, key in keys.items()})


SECONDS = Key(kind=INT, since=V0_8, least=0)
WALLET = _keys(
    address=Key(kind=STRING, until=V0_9),
    addressKeyName=Key(kind=STRING, needed='"worker1", the name of the key that scripts/init makes'),
    addressRestoreMnemonic=Key(kind=STRING),
    addressAccountPassphrase=Key(kind=STRING, until=V0_9, newer_too="keyringPassphrase"),
    alloraHomeDir=Key(kind=STRING),
    chainId=(
        Key(kind=STRING, until=V0_9),  # which the node ignores, and we tell the network by
        Key(kind=STRING, since=V0_9, needed='"allora-testnet-1" or "allora-mainnet-1"'),
    ),
    keyringBackend=Key(kind=STRING, since=V0_9),
    keyringPassphrase=Key(kind=STRING, since=V0_9),
    gas=Key(kind=STRING, until=V0_9, newer_too="simulateGasFromStart"),
    gasAdjustment=(Key(kind=NUMBER, until=V0_9), Key(kind=NUMBER, since=V0_9, least=0)),
    gasPrices=(
        Key(kind=NUMBER, until=V0_7),
        Key(kind=Kind(STRING.fits, 'it must be in quotes, such as "auto" or "10"'), since=V0_7),
    ),
    gasPriceUpdateInterval=Key(kind=INT, since=V0_7, least=5, zero_is_absent=True),
    simulateGasFromStart=Key(kind=BOOL, since=V0_9),
    BaseGas=Key(kind=UINT, since=V0_9),
    GasPerByte=Key(kind=UINT, since=V0_9),
    maxFees=(Key(kind=UINT, until=V0_8_1), Key(kind=AMOUNT, since=V0_8_1)),
    nodeRpc=Key(
        kind=Kind(STRING.fits, "it must be one URL in quotes"),
        until=V0_9,
        needed='"https://allora-rpc.testnet.allora.network"',
        newer_too="nodeRpcs and nodegRpcs",
    ),
    nodeRpcs=Key(kind=STRINGS, since=V0_9, needed='["https://allora-rpc.testnet.allora.network"]'),
    nodegRpcs=Key(kind=STRINGS, since=V0_9, needed='["allora-grpc.testnet.allora.network:443"]'),
    grpcInsecure=Key(kind=BOOL, since=V0_9),
    maxRetries=Key(kind=INT, least=0),
    delay=Key(kind=INT, until=V0_6, newer_too="retryDelay"),
    retryDelay=(
        Key(kind=INT, until=V0_6),
        Key(kind=INT, since=V0_6, until=V0_9, least=1, needed="3"),
        Key(kind=INT, since=V0_9, least=1, zero_is_absent=True),
    ),
    accountSequenceRetryDelay=(
        Key(kind=INT, until=V0_6),
        Key(kind=INT, since=V0_6, least=1, needed="5"),
    ),
    launchRoutineDelay=Key(kind=INT, since=V0_9, least=0),
    registrationWaitingBlocks=Key(kind=INT, since=V0_9, least=1, zero_is_absent=True),
    submissionJitter=Key(kind=UINT, since=V0_9),
    submitTx=Key(kind=BOOL),
    blockDurationEstimated=(
        Key(kind=NUMBER, since=V0_6, until=V0_12, least=1, needed="5"),
        Key(kind=NUMBER, since=V0_12),
    ),
    windowCorrectionFactor=(
        Key(kind=NUMBER, since=V0_6, until=V0_12, least=0.5, needed="0.8"),
        Key(kind=NUMBER, since=V0_12),
    ),
    timeoutRPCSecondsQuery=SECONDS,
    timeoutRPCSecondsTx=SECONDS,
    timeoutRPCSecondsRegistration=SECONDS,
    timeoutHTTPConnection=SECONDS,
)
WORKER = _keys(
    topicId=Key(kind=UINT),
    inferenceEntrypointName=Key(kind=STRING),
    forecastEntrypointName=Key(kind=STRING),
    loopSeconds=Key(kind=INT, until=V0_6),
    allowsNegativeValue=Key(kind=BOOL, until=V0_6),
    parameters=Key(kind=OBJECT),
)
REPUTER = _keys(
    topicId=Key(kind=UINT),
    groundTruthEntrypointName=Key(kind=STRING),
    lossFunctionEntrypointName=Key(kind=STRING),
    minStake=(Key(kind=INT, until=V0_8_1), Key(kind=AMOUNT, since=V0_8_1)),
    loopSeconds=Key(kind=INT, until=V0_6),
    groundTruthParameters=Key(kind=OBJECT),
    lossFunctionParameters=Key(kind=OBJECT),
)
LOSS = _keys(
    LossFunctionService=Key(kind=STRING),
    LabeledLossFunctionService=Key(kind=STRING),
    LossMethodOptions=Key(kind=OBJECT),
    IsNeverNegative=Key(kind=BOOL),
)
TOP = _keys(wallet=Key(kind=OBJECT), worker=Key(kind=LIST), reputer=Key(kind=LIST))
HOMES = {"wallet": WALLET, "each entry of worker": WORKER, "the top level": TOP}  # where a key may belong instead


def findings(root: JsonNode, node_version: str = "", own: tuple[str, int] | None = None) -> list[Finding]:
    """All that is wrong or unwise in one file, errors first.

    Args:
        root: the whole file.
        node_version: NODE_VERSION; where it is empty or no version, the file's own keys tell.
        own: host and port that inference listens on; None where they are not known or do not matter.
    """
    found = [*_Rules(root, node_version, own).all()]
    return sorted(found, key=lambda finding: finding.severity is not Severity.ERROR)


class _Rules:
    """The rules over one file."""

    def __init__(self, root: JsonNode, node_version: str, own: tuple[str, int] | None) -> None:
        self.root = root
        self.told = told_version(root)
        self.node = named_version(node_version) or self.told
        self.own = own
        self.wallet = root.field("wallet")
        said = {field.name.casefold() for field in self.wallet.fields()}
        # A wallet that names the network alone is part of a list of topics for this worker, which no node reads.
        keys = {name.casefold() for name in WALLET.keys() - {"chainId", "nodeRpc", "nodeRpcs", "nodegRpcs"}}
        self.is_for_a_node = self.node.is_named or bool(said & keys)

    def all(self) -> Iterator[Finding]:
        yield from self._struct(self.root, TOP)
        yield from self._schema()
        yield from self._struct(self.wallet, WALLET)
        if self.is_for_a_node:
            yield from self._needed()
            yield from self._submission()
        else:
            yield _warning(
                self.wallet,
                "it names no key, so no official node can submit with this file; write the wallet as in "
                "config.example.json",
                kind=True,
            )
        yield from self._urls()
        for entry in self.root.field("worker").items():
            yield from self._worker(entry)
        yield from self._reputer()
        yield from self._words()

    # What Go reads.

    def _struct(self, node: JsonNode, keys: Keys) -> Iterator[Finding]:
        """Keys of a struct: misspelt, twice, of another version, of another type, too small."""
        by_fold = {name.casefold(): name for name in keys}
        seen: dict[str, int] = {}
        for field in node.fields():
            name = by_fold.get(field.name.casefold())
            if name is None:
                yield self._unknown(node, field, keys)
                continue
            seen[name] = seen.get(name, 0) + 1
            yield from self._value(field, name, keys[name])
        for name, times in seen.items():
            if times > 1:
                last = node.field(name)
                yield _error(last, f"it is given {times} times and the node takes the last; keep one", kind=True)

    def _unknown(self, node: JsonNode, field: JsonNode, keys: Keys) -> Finding:
        if right := _nearest(field.name, keys):
            remedy = f"it is misspelt and the node ignores it; write {right}"
            return replace(_error(field, remedy, kind=True), meant=node.field(right).key)
        for home, others in HOMES.items():
            if others is not keys and (right := _same(field.name, others)):
                return _error(field, f"the node ignores it here; {right} belongs into {home}", kind=True)
        if right := _same(field.name, (*OUR_KEYS, *ENDPOINTS)):
            return _error(field, f"the node ignores it here; {right} belongs into parameters", kind=True)
        return _warning(field, "no version of the node that is known here reads it; remove it", kind=True)

    def _value(self, field: JsonNode, name: str, spans: tuple[Key, ...]) -> Iterator[Finding]:
        read = [span for span in spans if self.node.overlap(span.since, span.until)]
        if not read:
            instead = next((span.newer_too for span in spans if span.newer_too), "")
            later = self.node.first >= spans[-1].until
            what = f"; it reads {instead}" if instead and later else ""
            yield _warning(field, f"{self.node.said} does not read it{what}; remove it", kind=True)
            return
        if field.value is None:
            if name == "maxFees" and self.node.within(V0_8_1):
                yield _error(field, f"{self.node.said} does not start with null here; give a number or remove it")
            return
        if not any(span.kind.fits(field.value) for span in read):
            versions = f" for {self.node.said}" if len(spans) > 1 and name in {"gasPrices", "maxFees"} else ""
            example = f", such as {span.needed}" if (span := read[-1]).needed and span.kind is STRING else ""
            # What is to be an object or a list may hold a mnemonic instead.
            whole = read[-1].kind in (OBJECT, LIST, STRINGS)
            yield _error(field, f"{read[-1].kind.remedy}{example}{versions}", kind=whole)
            return
        if name == "gasPriceUpdateInterval" and self.wallet.field("gasPrices").value != "auto":
            return  # nobody reads it then
        for span in read:
            if span.least is None or not self.node.within(span.since, span.until) or not _is_number(field.value):
                continue
            if field.value < span.least and not (span.zero_is_absent and field.value == 0):
                yield _error(field, f"it must be {span.least:g} or more, or {self.node.said} does not start")

    def _schema(self) -> Iterator[Finding]:
        """A file that is written for other versions than the node's, as a whole."""
        if not self.node.is_named or self.node.overlap(self.told.first, (*self.told.last[:2], self.told.last[2] + 1)):
            return
        if self.node.within(V0_9) and self.told.last < V0_9:
            yield _error(
                self.wallet.field("nodeRpc"),
                f"this file is written for {self.told.said} and {self.node.said} cannot run with it: write it anew as "
                "config.example.json is, with chainId, nodeRpcs and nodegRpcs, or set NODE_IMAGE_TAG (NODE_VERSION) "
                "to the version that you run",
            )
        elif self.node.last < V0_9 <= self.told.first and not self.wallet.field("nodeRpc").value:
            yield _error(
                self.wallet.field("nodeRpcs"),
                f"this file is written for {self.told.said} and {self.node.said} reads nodeRpc; run a newer node "
                "(NODE_IMAGE_TAG, NODE_VERSION), or write the wallet as that version reads it",
                kind=True,
            )

    def _needed(self) -> Iterator[Finding]:
        for name, spans in WALLET.items():
            field = self.wallet.field(name)
            for span in spans:
                if not span.needed or not self.node.within(span.since, span.until):
                    continue
                zero = span.least is not None and field.value == 0
                blank = isinstance(field.value, str) and not field.value.strip()
                empty = blank or field.value == [] or (_is_strings(field.value) and not any(field.value))
                if field.value is None or empty or zero:
                    yield _error(field, f'{self.node.said} needs it; write "{name}": {span.needed}')

    # What the node can submit with.

    def _submission(self) -> Iterator[Finding]:
        wallet = self.wallet
        submit = wallet.field("submitTx")
        if submit.value in (None, False):
            yield _warning(submit, 'the node submits nothing and earns nothing; write "submitTx": true')
        for field in wallet.fields():
            secret = field.name.casefold() == "addressrestoremnemonic"
            if (secret and field.value) or is_mnemonic(field.value):
                yield _warning(
                    field,
                    "anybody who can read this file can take the wallet; make the key with scripts/init --restore and "
                    "leave addressRestoreMnemonic empty",
                    kind=True,
                )
        fees = wallet.field("maxFees")
        if fees.value is None and self.node.within(V0_9):
            yield _warning(fees, 'the node ends at the first fee that is too low; write "maxFees": 50000000')
        elif fees.value is None and self.node.within(V0_6):
            yield _warning(fees, 'the node has no default for it; write "maxFees": 25000000')
        elif fees.value in (0, "0"):
            yield _error(fees, "no transaction can be paid with it; write 50000000")
        if wallet.field("maxRetries").value in (None, 0):
            yield _warning(wallet.field("maxRetries"), 'a transaction is tried once; write "maxRetries": 5')
        adjustment = wallet.field("gasAdjustment")
        if _is_number(adjustment.value) and adjustment.value <= 0 and self.node.last < V0_9:
            remedy = f'{self.node.said} has no default for it and needs a number above 0; write "gasAdjustment": 1.2'
            yield _warning(adjustment, remedy)
        price = wallet.field("gasPrices")
        if price.value in (None, "") and self.node.within(V0_6):
            right = '"auto"' if self.node.first >= V0_7 else "10"
            yield _warning(price, f'the node has no default for it; write "gasPrices": {right}')
        yield from self._gas_prices(price)
        yield from self._key()

    def _key(self) -> Iterator[Finding]:
        """Where the node finds its key, and to whom it speaks."""
        wallet = self.wallet
        backend = wallet.field("keyringBackend")
        if isinstance(backend.value, str) and backend.value and backend.value not in KEYRINGS:
            yield _error(backend, f"it must be one of {', '.join(KEYRINGS)}; scripts/init makes a key for test")
        elif backend.value == "file" and not wallet.field("keyringPassphrase").value:
            yield _error(
                backend, 'the node cannot unlock that keyring without keyringPassphrase; give it, or write "test"'
            )
        elif backend.value == "memory" and not wallet.field("addressRestoreMnemonic").value:
            yield _error(
                backend, 'that keyring is empty at each start; write "test", for which scripts/init makes a key'
            )
        elif backend.value in ("os", "pass", "kwallet", "keychain"):
            yield _warning(
                backend, 'the node\'s image has no such keyring; write "test" unless you run the node without it'
            )
        insecure = wallet.field("grpcInsecure")
        if insecure.value is True and self.node.last < V0_10:
            yield _warning(insecure, f"{self.node.said} does not read it and always speaks TLS; run a newer node")
        elif insecure.value is True and any(
            _host(item.value).endswith(f".{DOMAIN}")
            for item in wallet.field("nodegRpcs").items()
            if isinstance(item.value, str)
        ):
            yield _error(insecure, "the public networks' gRPC hosts speak TLS alone; write false")
        home = wallet.field("alloraHomeDir")
        if isinstance(home.value, str) and home.value.startswith("~"):
            yield _warning(home, 'the node takes ~ for the name of a folder; write "/data/.allorad", or the whole path')
        name = wallet.field("addressKeyName")
        if isinstance(name.value, str) and re.fullmatch(r"allo1[0-9a-z]{38}", name.value):
            yield _warning(name, "that is an address and not the name of a key; scripts/init names the key worker1")

    def _gas_prices(self, price: JsonNode) -> Iterator[Finding]:
        value, gas = price.value, self.wallet.field("gas")
        if self.node.last < V0_9 and isinstance(gas.value, str) and not re.fullmatch(r"auto|[1-9][0-9]*|", gas.value):
            yield _error(gas, 'it must be "auto" or a whole number in quotes, such as "200000"')
        if isinstance(value, str) and self.node.within(V0_7) and value not in ("", "auto"):
            if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
                yield _error(price, 'it must be "auto" or a number in quotes, such as "10"')
            elif float(value) == 0:
                yield _error(price, 'every transaction fails at that price; write "auto"')
        elif _is_number(value) and value <= 0:
            yield _error(price, "every transaction fails at that price; write 10")

    def _urls(self) -> Iterator[Finding]:
        """Addresses of the chain: what Go refuses to parse, and what is of another network."""
        chain = self.wallet.field("chainId").value
        single = self.wallet.field("nodeRpc")
        lists = [self.wallet.field(name) for name in ("nodeRpcs", "nodegRpcs")]
        entries = [item for several in lists for item in several.items() if isinstance(item.value, str)]
        entries += [single] if isinstance(single.value, str) and single.value else []
        near = _nearest(chain, tuple(PUBLIC_NETWORKS.values())) if isinstance(chain, str) else ""
        if near not in ("", chain):
            remedy = f"the public network is called {near}; write that, if it is meant"
            yield _warning(self.wallet.field("chainId"), remedy)
        for item in entries:
            if not _is_request_uri(item.value) and not (item.name == "nodeRpc" and _is_request_uri(f"//{item.value}")):
                example = "host:443" if "gRpcs" in item.key else "https://host"
                yield _error(item, f"the node does not parse it as a URL and does not start; write it like {example}")
            elif "gRpcs" in item.key and "//" in item.value:
                yield _warning(item, "gRPC hosts are written host:port without https://; the node may not reach it")
            elif "gRpcs" not in item.key and not re.match(r"(https?|tcp)://", item.value):
                yield _warning(item, "without https:// the node speaks plain HTTP to it; write https://host")
            if "," in item.value:
                yield _error(item, "it is one URL, and a comma is part of it; put each URL in quotes of its own")
            if fault := _misnamed(_host(item.value), "grpc" if "gRpcs" in item.key else "rpc"):
                yield _error(item, fault)
        for item in entries:
            for word, network in PUBLIC_NETWORKS.items():
                if isinstance(chain, str) and chain not in ("", network) and f".{word}.{DOMAIN}" in item.value:
                    yield _error(item, f"that is a host of {network} and chainId is another; correct one of them")

    # What the node asks us.

    def _worker(self, entry: JsonNode) -> Iterator[Finding]:
        if not isinstance(entry.value, JsonObject):
            return
        yield from self._struct(entry, WORKER)
        topic_id = entry.field("topicId")
        is_number = type(topic_id.value) is int and 0 < topic_id.value < 2**63  # a bool is an int too
        if not is_number:
            yield _error(topic_id, "it must be a whole number above 0, without quotes")
        yield from self._entrypoint(entry.field("inferenceEntrypointName"))
        parameters = entry.field("parameters")
        if not isinstance(parameters.value, JsonObject):
            return
        yield from self._parameters(parameters)
        loop = entry.field("loopSeconds")
        if self.node.last < V0_6 and _is_int(loop.value or 0) and (loop.value or 0) < 1 and self.node.is_named:
            yield _warning(loop, 'the node asks without a pause; write "loopSeconds": 5')
        table = {field.name: field.value for field in parameters.fields() if isinstance(field.value, str)}
        yield from self._unanswered(entry, parameters)
        if "InferenceEndpoint" in table:
            number = topic_id.value if is_number else None
            yield from self._endpoint(parameters.at("InferenceEndpoint"), number, table)

    def _entrypoint(self, name: JsonNode) -> Iterator[Finding]:
        old = self.node.last < V0_7
        right = OLD_ENTRYPOINT if old else ENTRYPOINT
        if name.value not in (ENTRYPOINT, OLD_ENTRYPOINT):
            yield _error(name, f'it must be "{right}" for {self.node.said}')
        elif name.value != right:
            keys = "; wallet.nodeRpcs is of v0.9 and later" if self.wallet.field("nodeRpcs").value else ""
            yield _error(name, f'{self.node.said} does not know it{keys}; write "{right}"')

    def _parameters(self, node: JsonNode) -> Iterator[Finding]:
        """Keys of a map: every value a string, every key once, ours spelt right, the others used as placeholders."""
        fields = [*node.fields()]
        names = [field.name for field in fields]
        placeholders = {
            name
            for field in fields
            if isinstance(field.value, str)
            for name in re.findall(r"\{([^{}]+)\}", field.value)
        }
        known = dict.fromkeys((*OUR_KEYS, *ENDPOINTS))
        for field in fields:
            if not isinstance(field.value, str):
                yield _error(field, "every value in parameters must be a string in quotes, or the node does not start")
            if field.name in known or field.name in placeholders:
                continue
            right = _nearest(field.name, known)
            if right and right.casefold() == field.name.casefold():
                yield _error(field, f"keys in parameters are case-sensitive; write {right}")
            elif right:
                misspelt = _error(field, f"it is misspelt and nobody reads it; write {right}")
                yield replace(misspelt, meant=node.at(right).key)
            elif home := next((home for home, keys in HOMES.items() if _same(field.name, keys)), ""):
                yield _error(field, f"nobody reads it here; it belongs into {home}", kind=True)
            else:
                yield _warning(field, f"nobody reads it: no endpoint has {{{field.name}}} in it; remove it", kind=True)
        for name in dict.fromkeys(names):
            if (times := names.count(name)) > 1:
                why = f"it is given {times} times and the node takes the last; keep one"
                yield _error(node.at(name), why, kind=True)

    def _unanswered(self, entry: JsonNode, parameters: JsonNode) -> Iterator[Finding]:
        """Endpoints that the node would ask and this worker has no route for."""
        forecasts = entry.field("forecastEntrypointName")
        forecast = parameters.at("ForecastEndpoint")
        if "ForecastEndpoint" not in ANSWERED and forecasts.value and not self._is_foreign(forecast.value):
            yield _error(
                forecasts,
                "this worker has no forecast route yet, and the node drops the inference together with the forecast; "
                "remove forecastEntrypointName and ForecastEndpoint",
            )
        for name in ENDPOINTS:
            endpoint = parameters.at(name)
            if name in ANSWERED or not isinstance(endpoint.value, str):
                continue
            if self._is_foreign(endpoint.value):
                yield _warning(endpoint, "this worker does not answer it: what listens there is another program's")
            else:
                yield _error(endpoint, "this worker has no route for it yet; remove it")

    def _is_foreign(self, url: Any) -> bool:
        """True if a URL names a host that is certainly not inference's."""
        host = _host(url) if isinstance(url, str) else ""
        return bool(host) and host != COMPOSE_HOST and not _is_loopback(host) and (not self.own or host != self.own[0])

    def _endpoint(self, node: JsonNode, topic_id: int | None, table: Mapping[str, str]) -> Iterator[Finding]:
        """The inference endpoint: its placeholders, where it is, its path and its query."""
        if not TOKEN.fullmatch(token := table.get("Token", "")):  # which is told; what follows from it is not
            token, table = "", {**table, "Token": "TOKEN"}
        fault = _placeholder_fault(node.value, table)
        if fault:
            yield _error(node, fault)
        url = fill_placeholders(node.value, topic_id=topic_id or 1, height=_HEIGHT, parameters=table)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            fit = parts.scheme in ("http", "https") and bool(host) and port != 0
        except ValueError:
            fit = False
        if not fit or re.search(r"[\s\x00-\x1f\x7f]", url):
            yield _error(node, "it must be a URL that begins with http:// or https:// and a host, without blanks")
            return
        is_foreign = self._is_foreign(url)
        if is_foreign:
            port = port or (443 if parts.scheme == "https" else 80)
            if _nearest(host, (COMPOSE_HOST,)):
                yield _error(node, f"no service is called {host}; write http://{COMPOSE_HOST}:{COMPOSE_PORT}")
            yield _warning(
                node,
                f"{host}:{port} is no address of this worker; right only where a proxy of yours hands the question on, "
                f"else write http://{COMPOSE_HOST}:{COMPOSE_PORT} (Docker) or http://127.0.0.1:PORT",
            )
            if str(_HEIGHT) not in url:
                yield _no_height(node)
        elif parts.scheme == "https":
            yield _error(node, "inference speaks http without TLS; write http://")
        if not is_foreign and (parts.scheme == "http" or port):
            yield from self._address(node, host, port or 80)
        if not fault:
            yield from self._names(node, parts, topic_id, token, is_foreign)
        if not is_foreign:
            yield from self._query(node, parts.query)

    def _names(
        self, node: JsonNode, parts: SplitResult, topic_id: int | None, token: str, is_foreign: bool
    ) -> Iterator[Finding]:
        """Written out instead of as placeholders they may name another topic, whose value would be submitted here."""
        asked = ASKED.fullmatch(parts.path)
        if token and not is_foreign and unquote(parts.path) != f"/inference/{token}":
            yield _error(node, f"inference answers /inference/{{Token}} and not {parts.path or '/'}; write that path")
        elif token and asked and unquote(asked[1]) != token:
            yield _error(node, f'it asks for "{unquote(asked[1])}" but Token is "{token}"; write {{Token}}')
        for given in parse_qs(parts.query, keep_blank_values=True).get("topic", []):
            if topic_id and given != str(topic_id):
                yield _error(node, f'it asks for topic "{given}" but topicId is {topic_id}; write ?topic={{TopicId}}')

    def _address(self, node: JsonNode, host: str, port: int) -> Iterator[Finding]:
        if host == COMPOSE_HOST:
            if port != COMPOSE_PORT:
                yield _error(node, f"inference's container listens on {COMPOSE_PORT}; write http://inference:8000")
            return
        if self.own is None:
            return
        own_host, own_port = self.own
        if port != own_port:
            why = f"nothing of this worker listens at {host}:{port}: PORT is {own_port}"
            remedy = f"{why}; write http://{host}:{own_port}, with Docker http://inference:8000, or set PORT={port}"
            yield _error(node, remedy) if self.node.is_named else _warning(node, remedy)
        elif not _answers_at(own_host, host):
            why = f"nothing of this worker listens at {host}: HOST is {own_host}"
            remedy = f"{why}; write http://{own_host if ':' not in own_host else f'[{own_host}]'}:{own_port}"
            yield _error(node, remedy) if self.node.is_named else _warning(node, remedy)
        elif own_host in ("0.0.0.0", "::") and self.node.is_named:  # noqa: S104 -- compared, not listened on
            yield _warning(
                node, "from a container of its own the node reaches itself there; write http://inference:8000"
            )

    def _query(self, node: JsonNode, query: str) -> Iterator[Finding]:
        asked: dict[str, list[str]] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            asked.setdefault(name, []).append(value)
        known = ("topic", "height", "network")
        for name, values in asked.items():
            if name in known:
                if len(values) > 1:
                    yield _error(node, f"{name}= is given {len(values)} times, which inference refuses; give it once")
            elif right := _nearest(name, known):
                yield _error(node, f"inference does not read {name}=; write {right}=")
            else:
                yield _warning(node, f"inference does not read {name}=; remove it from the URL")
        heights = asked.get("height", [])
        if not heights:
            yield _no_height(node)
        elif heights[0] != str(_HEIGHT):
            yield _error(node, "the height is written out, so all epochs get one answer; write height={BlockHeight}")

    def _reputer(self) -> Iterator[Finding]:
        reputer = self.root.field("reputer")
        if isinstance(reputer.value, list) and reputer.value:
            yield _warning(reputer, "this worker answers no reputer; what it names must be answered by another program")
        for entry in reputer.items():
            if not isinstance(entry.value, JsonObject):
                yield _error(entry, "it must be an object", kind=True)
                continue
            yield from self._struct(entry, REPUTER)
            losses = entry.field("lossFunctionParameters")
            yield from self._struct(losses, LOSS)
            for table in (entry.field("groundTruthParameters"), losses.field("LossMethodOptions")):
                for field in table.fields():
                    if not isinstance(field.value, str):
                        yield _error(field, "it must be a string in quotes, or the node does not start")
                    elif _host(field.value) == COMPOSE_HOST:
                        yield _error(field, "this worker has no route for reputers; name another program's address")

    # What nobody else may read.

    def _words(self) -> Iterator[Finding]:
        """The words of a wallet anywhere but in a key of the wallet, of which _submission tells."""
        told = {field.key for field in self.wallet.fields() if is_mnemonic(field.value)}
        for node in _all_below(self.root):
            several = isinstance(node.value, list) and all(isinstance(item, str) for item in node.value)
            words = " ".join(node.value) if several else node.value
            if is_mnemonic(words) and node.key not in told:
                yield _warning(
                    node, "anybody who can read this file can take the wallet; remove these words", kind=True
                )


def _all_below(node: JsonNode) -> Iterator[JsonNode]:
    for child in (*node.fields(), *node.items()):
        yield child
        yield from _all_below(child)


def _placeholder_fault(template: str, parameters: Mapping[str, str]) -> str:
    """Why the node would not complete an endpoint; empty where nothing keeps it from that."""
    known = ["TopicId", "BlockHeight", *(key for key in parameters if key != "InferenceEndpoint")]
    rest = template
    for key in known:
        placeholder = f"{{{key}}}"
        if placeholder in rest and re.search("[{}]", parameters.get(key, "")):
            return f"{placeholder} stands for a value with braces, which the node may or may not replace"
        rest = rest.replace(placeholder, "")
    if not re.search("[{}]", rest):
        return ""
    unknown = re.search(r"\{[^{}]*\}", rest)
    what = f"{unknown[0]} is no placeholder" if unknown else "a brace is left over"
    return f"{what}; the node knows {', '.join(f'{{{key}}}' for key in known)}"


def _no_height(node: JsonNode) -> Finding:
    remedy = "without the height a repeated question may get another answer; add height={BlockHeight} to the query"
    return _warning(node, remedy)


def _error(node: JsonNode, remedy: str, *, kind: bool = False) -> Finding:
    return Finding(severity=Severity.ERROR, key=node.key, line=node.line(remedy, kind=kind))


def _warning(node: JsonNode, remedy: str, *, kind: bool = False) -> Finding:
    return Finding(severity=Severity.WARNING, key=node.key, line=node.line(remedy, kind=kind))


# --- spelling and addresses ------------------------------------------------------------------------------------------


def _bare(name: str) -> str:
    return re.sub(r"[\s_.-]", "", name).casefold()


def _same(name: str, known: "Mapping[str, Any] | tuple[str, ...]") -> str:
    return next((right for right in known if _bare(right) == _bare(name)), "")


def _nearest(name: str, known: "Mapping[str, Any] | tuple[str, ...]") -> str:
    """The known key that a name differs from by two letters at most (one in a short key); empty where none does.

    >>> _nearest("sumbitTx", ("submitTx", "gas")), _nearest("gsa", ("gas",)), _nearest("note", ("wallet", "worker"))
    ('submitTx', 'gas', '')
    """
    bare = _bare(name)
    edits = {
        right: max(len(bare), len(_bare(right)))
        - sum(block.size for block in SequenceMatcher(None, bare, _bare(right), autojunk=False).get_matching_blocks())
        for right in known
    }
    fitting = [right for right, count in edits.items() if count <= (1 if len(right) <= 4 else 2)]
    return min(fitting, key=lambda right: edits[right], default="")


def _host(url: str) -> str:
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def _misnamed(host: str, role: str) -> str:
    """Why a host of the public networks cannot be what the node asks of it; empty where nothing speaks against it.

    >>> _misnamed("allora-rpc.tesnet.allora.network", "rpc"), _misnamed("rpc.example.org", "grpc")
    ('there is no such host; write allora-rpc.testnet.allora.network', '')
    >>> _misnamed("allora-grpc.testnet.allora.network", "rpc")
    'that host is for nodegRpcs; write allora-rpc.testnet.allora.network'
    """
    first, _, rest = host.partition(".")
    word, _, domain = rest.partition(".")
    network = _nearest(word, tuple(PUBLIC_NETWORKS))
    if not network or not _nearest(domain, (DOMAIN,)):
        return ""
    roles = {"rpc": "nodeRpcs", "grpc": "nodegRpcs", "api": "neither nodeRpcs nor nodegRpcs"}
    is_of = first.removeprefix("allora-")
    right = f"allora-{role}.{network}.{DOMAIN}"
    if (network, DOMAIN) != (word, domain) or (is_of not in roles and _nearest(is_of, roles)):
        return f"there is no such host; write {right}"
    return f"that host is for {roles[is_of]}; write {right}" if is_of in roles and is_of != role else ""


def _answers_at(own_host: str, host: str) -> bool:
    """True if what listens on a host answers at an address of the same machine.

    >>> [_answers_at(own, "127.0.0.1") for own in ("127.0.0.1", "localhost", "0.0.0.0", "::", "::1", "10.0.0.9")]
    [True, True, True, True, False, False]
    """
    same = {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1"}  # noqa: S104 -- compared, not listened on
    if own_host == "::" or (host, own_host) == ("localhost", "::1"):
        return True
    if own_host == "0.0.0.0":  # noqa: S104 -- compared, not listened on
        return ":" not in host
    return same.get(host, host) == same.get(own_host, own_host)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "0.0.0.0", "::", "::1") or host.startswith("127.")  # noqa: S104 -- compared


def _is_request_uri(text: str) -> bool:
    """True if Go's url.ParseRequestURI takes a text; an empty one the node passes over.

    >>> [_is_request_uri(text) for text in ("localhost:9090", "127.0.0.1:9090", "my_host:9090", "https://h:x", "host")]
    [True, False, False, False, False]
    """
    if not text:
        return True
    if re.search(r"[\x00-\x20\x7f]", text):
        return False
    if text.startswith("/"):
        return True
    scheme, colon, rest = text.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return False
    if not rest.startswith("//"):
        return True
    authority = re.split(r"[/?#]", rest[2:], maxsplit=1)[0].rpartition("@")[2]
    return bool(re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?", authority))
