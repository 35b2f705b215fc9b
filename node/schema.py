"""The keys that each version of the official node reads in config.json, and the type of each value.

Source: allora-offchain-node lib/domain_config.go and lib/connection_manager.go, v0.5.0 to the newest. Go's decoder
ignores keys that it does not know and the case of the keys of a struct; the keys of a map keep their case.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from node.json_text import JsonObject
from node.versions import NEVER, V0_5_0, V0_6, V0_7, V0_8, V0_8_1, V0_9, V0_12, Version, is_number

OUR_KEYS = (
    *("InferenceEndpoint", "Token", "Target", "Horizon", "Loss", "Symbol", "Volatility"),
    *("Base", "Wait", "Objective"),
)
# Endpoints that the node may ask. Those that are not in ANSWERED are errors.
ENDPOINTS = ("InferenceEndpoint", "ForecastEndpoint", "LabeledInferenceEndpoint")
ANSWERED = frozenset({"InferenceEndpoint"})


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
NUMBER = Kind(is_number, "it must be a number, without quotes")
AMOUNT = Kind(_is_amount, "it must be a whole number of 0 or more written in digits, without point or exponent")
STRINGS = Kind(_is_strings, "it must be a list of URLs in quotes")
LIST = Kind(lambda value: isinstance(value, list), "it must be a list")
OBJECT = Kind(lambda value: isinstance(value, JsonObject), "it must be an object")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key in the versions from ``since`` up to but not including ``until``."""

    kind: Kind
    since: Version = V0_5_0
    until: Version = NEVER
    least: float | None = None
    zero_is_absent: bool = False  # the node replaces 0 by a default
    needed: str = ""  # an example as JSON, if the node cannot start or submit without the key
    newer_too: str = ""  # the key that replaced this one in newer nodes


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
        Key(kind=STRING, until=V0_9),  # ignored by the node; names the network for us
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
HOMES = {"wallet": WALLET, "each entry of worker": WORKER, "the top level": TOP}  # where a misplaced key may belong
