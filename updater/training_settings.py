"""``DATA_DIR/training.json``: training settings that differ from the defaults. Every training reads the file anew.

``{"minute": {"hidden_layer_size": 48}, "hour": {"lookback": 64}}``; settings outside a panel's object hold for both
panels. ``birnn tune`` writes the file, or you do; ``--config-json FILE`` names another file.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TypeAlias

from pydantic import JsonValue, TypeAdapter, ValidationError

from core.errors import ConfigError
from core.files import replace_json
from model.panels import PANELS
from model.training.config import CONFIGS, TrainingConfig

FILE = "training.json"

Knobs: TypeAlias = dict[str, JsonValue]  # fields of TrainingConfig


def settings_file(data_dir: Path, given: Path | None = None) -> Path | None:
    """Return the given file, else ``training.json`` in the data folder; None if neither exists."""
    usual = data_dir / FILE
    return given or (usual if usual.exists() else None)


def read_settings(path: Path | None) -> dict[str, Knobs]:
    """Return the settings of a file by panel, empty without a file. Only ``settings_in_use`` checks the fields.

    Raises:
        ConfigError: the file cannot be read or has another form.
    """
    if path is None:
        return {panel: {} for panel in PANELS}
    remedy = f'give one JSON object such as {{"{next(iter(PANELS))}": {{"hidden_layer_size": 48}}}}'
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not JSON ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be an object, is {type(content).__name__}; {remedy}")
    for name, value in content.items():
        if (name in PANELS) is not isinstance(value, dict):
            problem = (
                f"panel {name} must be an object, was {value!r}" if name in PANELS else f"there is no panel {name}"
            )
            raise ConfigError(f"{path}: {problem}; {remedy}")
    common = {name: value for name, value in content.items() if name not in PANELS}
    return {panel: {**common, **content.get(panel, {})} for panel in PANELS}


def settings_in_use(path: Path | None, panels: Iterable[str]) -> dict[str, Knobs]:
    """Read the settings and check the fields of these panels, before any long work begins.

    Raises:
        ConfigError: as ``read_settings``; or a setting is unknown or wrong. The message names file, panel and setting.
    """
    settings = read_settings(path)
    for panel in panels:
        try:
            training_config(panel, settings[panel])
        except ConfigError as error:
            raise ConfigError(f"{path}: panel {panel}: {str(error).removeprefix('training: ')}") from error
    return settings


def training_config(panel: str, differing: Mapping[str, JsonValue]) -> TrainingConfig:
    """Return the default configuration of a panel with some fields changed.

    Raises:
        ConfigError: a field is unknown, or a value is wrong.
    """
    known = asdict(CONFIGS[panel])
    for name in differing.keys() - known.keys():
        raise ConfigError(
            f"training: {name}={differing[name]!r}: there is no such setting; choose among {', '.join(known)}"
        )
    for name, value in differing.items():
        if isinstance(value, float) and not isfinite(value):
            raise ConfigError(f"training: {name} must be a finite number, was {value}")
    try:
        return TypeAdapter(TrainingConfig).validate_python(known | dict(differing))
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(str(part) for part in fault["loc"])
        raise ConfigError(f"training: {name}={fault['input']!r}: {fault['msg']}; see TrainingConfig") from error


def write_settings(path: Path, panel: str, knobs: Knobs) -> None:
    """Write a panel's settings into the file; the settings of the other panel stay.

    Raises:
        ConfigError: the file cannot be read, and writing would lose the settings of the other panel.
    """
    before = read_settings(path if path.exists() else None)
    replace_json(path, {name: differing for name, differing in (before | {panel: knobs}).items() if differing})
