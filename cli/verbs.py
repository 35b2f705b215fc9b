"""What the verbs of ``birnn`` share: settings from options, and failures in one line."""

import contextlib
import functools
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cli.screen import json_alone, say
from core.config import topics_from_config
from core.errors import ConfigError, WorkerError
from core.settings import Settings, load_settings, settings_warnings
from core.topic import Topic

EXAMPLE_CONFIG = Path("config.example.json")
NOT_FOR_SERVING = (
    "torch",
    "onnx",
    "safetensors",
    "lightgbm",
    "matplotlib",
    "optuna",
)  # pyproject.toml: train, research

ConfigOption = Annotated[
    str | None, typer.Option("--config", help="The node's config.json, or several, comma-separated (CONFIG_FILE).")
]
DataOption = Annotated[Path | None, typer.Option("--data-dir", help="Where everything is kept (DATA_DIR).")]


def _fail(error: WorkerError) -> NoReturn:
    print(f"birnn: {error}", file=sys.stderr)
    raise typer.Exit(2 if isinstance(error, ConfigError) else 1)


def one_line_errors(verb: Callable[..., None]) -> Callable[..., None]:
    """A failure we name is one line and an exit code, never a traceback; with ``--json`` nothing else is on stdout."""

    @functools.wraps(verb)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with json_alone() if kwargs.get("as_json") else nullcontext():
                verb(*args, **kwargs)
        except WorkerError as error:
            _fail(error)
        except OSError as error:
            if error.filename is None:  # no file's: a bug, or a connection
                raise
            _fail(WorkerError(f"{error.filename}: {error.strerror}"))
        except ModuleNotFoundError as error:
            if error.name not in NOT_FOR_SERVING:
                raise
            _fail(
                ConfigError(
                    f"{verb.__name__} needs the package {error.name}, which a container does not have: run it from a "
                    "checkout of the repository, after pip install '.[train,research]' there"
                )
            )

    return wrapped


def settings_from(*, config: str | None = None, data_dir: Path | None = None, **others: object) -> Settings:
    """The settings of this process, with what options say.

    Raises:
        ConfigError: as ``load_settings``.
    """
    given = {"config_file": config, "data_dir": data_dir, **others}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    _warn_once()
    return settings


@functools.cache
def _warn_once() -> None:
    for warning in settings_warnings():
        print(f"birnn: warning: {warning}", file=sys.stderr, flush=True)


def or_example(settings: Settings, tell: Callable[[str], None] = say) -> Settings:
    """A first run needs no config.json; one that was named must be there.

    Raises:
        ConfigError: neither is in the working folder.
    """
    if "config_file" in settings.model_fields_set or settings.config_files[0].exists():
        return settings
    if not EXAMPLE_CONFIG.exists():
        raise ConfigError(
            f"{Path.cwd() / settings.config_file}: no such file, nor {EXAMPLE_CONFIG} beside it; "
            "change to the folder of the checkout, or name the file with --config or CONFIG_FILE"
        )
    tell("no config.json here: using config.example.json (copy it to config.json to choose your own topics)")
    return settings.model_copy(update={"config_file": str(EXAMPLE_CONFIG)})


def topics_as_far_as_known(settings: Settings) -> tuple[Topic, ...]:
    """The configured topics; none where the files cannot be read, for a verb that needs no config.json."""
    with contextlib.suppress(ConfigError):
        return topics_from_config(*settings.config_files, node_version=settings.node_version)
    return ()
