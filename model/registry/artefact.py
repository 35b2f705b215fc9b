"""A published version on disk: a network, its weights, and a manifest with the digests of both.

Nothing in it can be executed: ONNX graph, safetensors, JSON. Reading one checks it completely and hands out the
very bytes that were checked, so that nothing can change between check and use.
"""

import calendar
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from core.errors import IncompatibleModel
from model.windows import Split

SCHEMA_VERSION: Literal[2] = 2  # 1 did not say what a network was made of
NETWORK_FILE = "model.onnx"
WEIGHTS_FILE = "weights.safetensors"
MANIFEST_FILE = "manifest.json"
LARGEST_MANIFEST_BYTES = 4 << 20  # some 50 topics take about 50 kB

_VERSION_ID = re.compile(r"[a-z][a-z0-9]*-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")


class StrictModel(BaseModel):
    """JSON that must have exactly the fields and types that this code writes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=64)]


class StoredFile(StrictModel):
    """Size and digest that a file of a version must have."""

    size: PositiveInt  # bytes
    sha256: Sha256


class CandlesRead(StrictModel):
    """The candles of one symbol that a training was given, judge rows included; all numbers 0 without candles."""

    first_open_ms: NonNegativeInt
    last_open_ms: NonNegativeInt
    rows: NonNegativeInt
    sha256: Sha256  # of times and columns: ``provenance.candles_read``


class Origin(StrictModel):
    """A network's ingredients beside seed, configuration and libraries: equal ingredients give equal bytes."""

    klines: dict[Name, CandlesRead]  # by symbol
    topics: dict[Name, dict[str, JsonValue]]  # the questions, by ``Topic.key``
    source_sha256: Sha256  # of our own code: ``provenance.source_sha256``
    machine: str  # system, processor and the instructions that torch used


class Manifest(StrictModel):
    """A version's purpose, ingredients and scores. Written once, never changed."""

    schema_version: Literal[2] = SCHEMA_VERSION
    panel: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$", max_length=32)]
    interval_ms: PositiveInt
    lookback: PositiveInt  # klines in a window
    feature_version: PositiveInt
    features: Annotated[tuple[Name, ...], Field(min_length=1)]  # in the order of the network's input
    heads: Annotated[tuple[Name, ...], Field(min_length=1)]  # keys, in the order of the network's outputs
    symbols: Annotated[tuple[Name, ...], Field(min_length=1)]
    calibration: dict[str, dict[str, dict[str, float]]]  # ``Calibration.to_json``
    volatility: str  # definition of the volatility that the heads were taught
    split: Split
    rows: PositiveInt  # windows trained on
    seed: NonNegativeInt
    training: dict[str, JsonValue]  # the training's configuration
    libraries: dict[str, str]  # name -> version, of Python, this package and the libraries that made the network
    origin: Origin
    created_ms: NonNegativeInt
    scores: tuple[dict[str, JsonValue], ...] = ()  # an object per topic
    files: dict[str, StoredFile] = {}  # filled in by publication


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A version in memory. ``version`` and ``manifest_sha256`` are empty until it is published."""

    onnx: bytes = field(repr=False)
    weights: bytes = field(repr=False)  # safetensors
    manifest: Manifest
    version: str = ""
    manifest_sha256: str = ""


def is_version_id(name: str) -> bool:
    """True if ``name`` can be the name of a version's folder and of nothing else."""
    return _VERSION_ID.fullmatch(name) is not None


def require_version_id(version: str) -> str:
    """``version`` itself.

    Raises:
        IncompatibleModel: ``version`` is not a version's id, for example because it would lead out of the folder.

    >>> require_version_id("minute-20261122T084500Z-1a2b3c")
    'minute-20261122T084500Z-1a2b3c'
    """
    if not is_version_id(version):
        raise IncompatibleModel(f"{version!r} is not a version: it must look like minute-20261122T084500Z-1a2b3c")
    return version


def made_ms(version: str) -> int:
    """When a version was made, in ms UTC, by its id: to the second.

    Raises:
        IncompatibleModel: ``version`` is not a version's id.

    >>> made_ms("minute-20261122T084500Z-1a2b3c")
    1795337100000
    """
    made = require_version_id(version).split("-")[1]
    return calendar.timegm(time.strptime(made, "%Y%m%dT%H%M%SZ")) * 1000


def sealed(artefact: Artefact) -> tuple[str, dict[str, bytes]]:
    """Id and files of the version that ``artefact`` becomes; equal artefacts give equal ids and files.

    Returns:
        the version's id, which ends in the first digits of the manifest's sha256, and file name -> content.
    Raises:
        IncompatibleModel: the manifest holds a number that JSON cannot carry.
    """
    content = {NETWORK_FILE: artefact.onnx, WEIGHTS_FILE: artefact.weights}
    files = {name: StoredFile(size=len(data), sha256=_sha256(data)) for name, data in content.items()}
    manifest = artefact.manifest.model_copy(update={"files": files})
    try:
        text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise IncompatibleModel(f"{MANIFEST_FILE}: every number must be finite ({error})") from error
    raw = (text + "\n").encode()
    made = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(manifest.created_ms // 1000))
    return f"{manifest.panel}-{made}-{_sha256(raw)[:6]}", {**content, MANIFEST_FILE: raw}


def read_artefact(folder: Path, manifest_sha256: str | None = None) -> Artefact:
    """Read a version's folder once and check all of it.

    Args:
        folder: ``versions/ID``.
        manifest_sha256: digest the manifest must have; None if only the six digits in the ID are known.
    Raises:
        IncompatibleModel: a file is missing, foreign, torn or altered; names folder, file and fault.
    """
    version = require_version_id(folder.name)
    expected = {NETWORK_FILE, WEIGHTS_FILE, MANIFEST_FILE}
    try:
        if folder.is_symlink():
            raise IncompatibleModel(f"{folder}: must be a folder, is a link")
        present = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise IncompatibleModel(f"{folder}: cannot be read: {error.strerror}") from error
    for name in sorted(expected ^ present):
        what = "is missing" if name in expected else "does not belong in a version; nothing of it is used"
        raise IncompatibleModel(f"{folder / name}: {what}")
    raw = _read(folder / MANIFEST_FILE)
    digest = _sha256(raw)
    if not digest.startswith(version.rpartition("-")[2]) or digest != (manifest_sha256 or digest):
        raise IncompatibleModel(
            f"{folder / MANIFEST_FILE}: altered: its sha256 begins with {digest[:12]}, "
            f"published was {(manifest_sha256 or version.rpartition('-')[2])[:12]}"
        )
    manifest = parse_manifest(raw, folder / MANIFEST_FILE)
    if manifest.files.keys() != {NETWORK_FILE, WEIGHTS_FILE}:
        raise IncompatibleModel(f"{folder / MANIFEST_FILE}: files must be {NETWORK_FILE} and {WEIGHTS_FILE}")
    return Artefact(
        onnx=_read(folder / NETWORK_FILE, manifest.files[NETWORK_FILE]),
        weights=_read(folder / WEIGHTS_FILE, manifest.files[WEIGHTS_FILE]),
        manifest=manifest,
        version=version,
        manifest_sha256=digest,
    )


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """The manifest in ``raw``.

    Raises:
        IncompatibleModel: not JSON, another schema version, or a field too many, missing or of the wrong kind.
    """
    try:
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise IncompatibleModel(f"{path}: {first_fault(error)}; it was made by other code: train anew") from error


def first_fault(error: ValidationError) -> str:
    """The first fault, as ``field: message (value)`` on a single line."""
    fault = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or "content"
    return f"{where}: {fault['msg']} (was {str(fault['input'])[:60]!r})"


def _read(path: Path, expected: StoredFile | None = None) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as handle:
            size = os.fstat(fd).st_size
            if expected and size != expected.size:
                raise IncompatibleModel(f"{path}: torn: has {size} bytes, published were {expected.size}")
            if size > LARGEST_MANIFEST_BYTES and not expected:
                raise IncompatibleModel(f"{path}: has {size} bytes, at most {LARGEST_MANIFEST_BYTES} are read")
            content = handle.read()
    except OSError as error:
        raise IncompatibleModel(f"{path}: cannot be read: {error.strerror}") from error
    if expected and _sha256(content) != expected.sha256:
        raise IncompatibleModel(
            f"{path}: altered: its sha256 begins with {_sha256(content)[:12]}, published was {expected.sha256[:12]}"
        )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
