"""The training settings that a backtest or a tuning begins with: the file's, checked before anything is written."""

from collections.abc import Iterable
from pathlib import Path

from core.errors import ConfigError
from updater.refresh import training_config
from updater.settings_file import Knobs, read_settings


def settings_in_use(path: Path | None, panels: Iterable[str]) -> dict[str, Knobs]:
    """What the file changes, by panel; nothing without a file.

    Args:
        panels: names of those that will be trained.
    Raises:
        ConfigError: it cannot be read, or a setting of one of these panels is unknown or wrong; names the file.
    """
    settings = read_settings(path)
    for panel in panels:
        try:
            training_config(panel, settings[panel])
        except ConfigError as error:
            raise ConfigError(f"{path}: panel {panel}: {str(error).removeprefix('training: ')}") from error
    return settings
