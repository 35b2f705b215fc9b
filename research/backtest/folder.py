"""A backtest's folder: finished steps, each written whole or not at all, and the fingerprint they belong to.

``backtest.json`` is the fingerprint. ``steps/PANEL-TIME.json`` and ``.parquet`` are a step: the JSON file is written
last, so a step without it was not finished. ``models/`` is the registry of the walk.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from core.clock import iso
from core.errors import ConfigError
from core.files import replace_file, replace_json, sweep_leftovers
from model.registry.versions import Registry

ABOUT_FILE = "backtest.json"
CHAMPIONS_FILE = "champions.json"

Fingerprint = Mapping[str, JsonValue]


class StepRecord(BaseModel):
    """One training and the champions after it, without the rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    panel: str
    from_ms: int
    to_ms: int
    version: str  # the published version
    verdicts: tuple[dict[str, JsonValue], ...]  # the gate's, as the updater keeps them
    before: dict[str, str]  # by Topic.key: the version that served before the round; absent where naive did
    after: dict[str, str]  # by Topic.key, after the round
    champions: JsonValue  # champions.json after the round; the next step continues from it
    rows: int
    took_s: float
    sha256: str  # of the rows' file


class Folder:
    """The folder of a backtest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = Registry(root / "models")  # of the versions that the walk publishes

    @contextmanager
    def working(self, fingerprint: Fingerprint) -> Iterator[None]:
        """Lock the folder for this backtest.

        Raises:
            ConfigError: the folder holds another backtest, is in use, or cannot be written.
        """
        try:
            (self.root / "steps").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.root}: cannot be written ({error.strerror}): give another --out") from error
        with ExitStack() as stack:
            try:
                stack.enter_context(self.registry.writing())
            except ConfigError as error:
                raise ConfigError(f"{self.root}: another backtest is at work here: wait, or give --out") from error
            sweep_leftovers(self.root / "steps")
            self._claim(fingerprint)
            yield

    def _claim(self, fingerprint: Fingerprint) -> None:
        self.refuse_another(fingerprint)
        if not (self.root / ABOUT_FILE).exists():
            replace_json(self.root / ABOUT_FILE, fingerprint)

    def refuse_another(self, fingerprint: Fingerprint) -> None:
        """Check that the folder is empty or belongs to this backtest.

        Raises:
            ConfigError: the folder belongs to another backtest; the text says how they differ.
        """
        file = self.root / ABOUT_FILE
        if not file.exists():
            return
        try:
            there = json.loads(file.read_bytes())
            differing = list(differences(there, json.loads(json.dumps(fingerprint))))
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(f"{file}: not a backtest's ({error}): delete the folder, or give --out") from error
        if differing:
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise ConfigError(
                f"{self.root} holds another backtest ({'; '.join(differing[:3])}{more}): "
                "give another --out, or delete the folder"
            )

    def step(self, panel: str, from_ms: int) -> StepRecord | None:
        """A finished step; None if the step is not finished or a file of it is damaged."""
        about, rows = self._files(panel, from_ms)
        try:
            record = StepRecord.model_validate_json(about.read_bytes())
            digest = hashlib.sha256(rows.read_bytes()).hexdigest()
        except (OSError, ValidationError):
            return None
        return record if digest == record.sha256 else None

    def rows(self, record: StepRecord) -> pl.DataFrame:
        """The rows of a finished step."""
        return pl.read_parquet(self._files(record.panel, record.from_ms)[1])

    def finish(self, record: StepRecord, rows: pl.DataFrame) -> StepRecord:
        """Write a step, which is then finished."""
        about, file = self._files(record.panel, record.from_ms)
        buffer = io.BytesIO()
        rows.write_parquet(buffer, compression="zstd", statistics=False)
        content = buffer.getvalue()
        record = record.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
        replace_file(file, content)
        replace_json(about, record.model_dump(mode="json"))
        return record

    def go_on_after(self, champions: JsonValue) -> None:
        """Restore the champions after a step; None for those before the first promotion.

        A step that was cut off may have demoted and promoted; begun anew, it must find the same champions.
        """
        file = self.registry.root / CHAMPIONS_FILE
        if champions is None:
            file.unlink(missing_ok=True)
        elif champions != self.champions():
            replace_json(file, champions)

    def champions(self) -> Any:
        """The content of ``champions.json``; None without the file."""
        try:
            return json.loads((self.registry.root / CHAMPIONS_FILE).read_bytes())
        except FileNotFoundError:
            return None

    def _files(self, panel: str, from_ms: int) -> tuple[Path, Path]:
        name = f"{panel}-{iso(from_ms)[:16].replace('-', '').replace(':', '')}"
        return self.root / "steps" / f"{name}.json", self.root / "steps" / f"{name}.parquet"


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """The differences of two JSON values, in words.

    >>> list(differences({"seed": 0, "data": {"a": 1}}, {"seed": 1, "data": {"a": 1}}))
    ['seed is 0 there, 1 here']
    >>> list(differences({"code": "0" * 64}, {"code": "f" * 64}))
    ['code differs']
    """
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*here, *(key for key in there if key not in here)]:
            yield from differences(there.get(key), here.get(key), f"{name} {key}".strip())
    elif _is_digest(there) and _is_digest(here) and there != here:
        yield f"{name} differs"
    elif there != here:
        yield f"{name} is {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    text = "nothing" if value is None else "something" if _is_digest(value) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64
