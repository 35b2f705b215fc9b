"""``DATA_DIR/training.json``: training settings that differ from the code's defaults, read anew by every training.

``{"minute": {"hidden_layer_size": 48}, "hour": {"lookback": 64}}``; what stands outside a panel's object holds for both
panels. ``birnn tune`` writes it, people may, and ``--config-json FILE`` names another file.
"""

import json
from pathlib import Path
from typing import TypeAlias

from pydantic import JsonValue

from core.errors import ConfigError
from core.files import replace_json
from model.heads import PANELS

FILE = "training.json"

Knobs: TypeAlias = dict[str, JsonValue]  # fields of TrainingConfig


def settings_file(data_dir: Path, given: Path | None = None) -> Path | None:
    """The file that counts: the one given, else the one in the data folder, if there is one."""
    usual = data_dir / FILE
    return given or (usual if usual.exists() else None)


def read_settings(path: Path | None) -> dict[str, Knobs]:
    """What the file changes, by panel; nothing without a file. Whether the fields exist is for the training to say.

    Raises:
        ConfigError: it cannot be read or is no such file, in one line.
    """
    if path is None:
        return {panel: {} for panel in PANELS}
    remedy = f'give one JSON object such as {{"{next(iter(PANELS))}": {{"hidden_layer_size": 48}}}}'
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON ({error}); {remedy}") from error
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


def write_settings(path: Path, panel: str, knobs: Knobs) -> None:
    """Put one panel's settings into the file; the other's stay as they are.

    Raises:
        ConfigError: the file that is there cannot be read, so what it says of the other panel would be lost.
    """
    before = read_settings(path if path.exists() else None)
    replace_json(path, {name: differing for name, differing in (before | {panel: knobs}).items() if differing})
