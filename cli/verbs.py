"""Shared by the verbs of ``birnn``: options, settings from options, and failures in one line."""

import errno
import functools
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from typer.core import TyperGroup
from typer.exceptions import TyperException

from cli.screen import json_alone, say
from core.errors import ConfigError, WorkerError
from core.files import DISK_REFUSES
from core.settings import Market, Settings, in_words, load_settings, settings_warnings
from core.topic import Topic
from node.config_file import Config, read_config

EXAMPLE_CONFIG = Path("config.example.json")
# What the extras of pyproject.toml bring: train, which the container of updater has too, and research.
TRAIN = ("apscheduler", "onnx", "polars", "safetensors", "torch")
RESEARCH = ("jinja2", "lightgbm", "matplotlib", "optuna")

ConfigOption = Annotated[
    str | None, typer.Option("--config", help="The node's config.json, or several, comma-separated (CONFIG_FILE).")
]
DataOption = Annotated[Path | None, typer.Option("--data-dir", help="Where everything is kept (DATA_DIR).")]
MarketOption = Annotated[
    Market | None,
    typer.Option(
        help="auto: Binance if it answers within three seconds, else the simulated exchange.", case_sensitive=False
    ),
]


class OneLineGroup(TyperGroup):
    """A group of verbs that reports a wrong command line or a broken standard output in one line."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})  # the exit status of the verb
            sys.stdout.flush()  # a failure can still be reported here
        except TyperException as error:
            if said := _in_one_line(error):  # empty after the help of a group without a verb
                say(f"birnn: {said}", to=sys.stderr)
            code = error.exit_code
        except OSError as error:
            if error.errno not in {*DISK_REFUSES, errno.EPIPE, errno.EIO}:
                raise
            if error.errno != errno.EPIPE:  # a closed pipe, such as of head, is no failure
                say(f"birnn: the output cannot be written: {error.strerror}", to=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python writes the rest again at exit
            code = 1
        sys.exit(code)


def _in_one_line(error: TyperException) -> str:
    said = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    if isinstance(error, typer.BadParameter) and isinstance(error.__cause__, ValidationError) and error.param:
        first = error.__cause__.errors()[0]
        said = f"{max(error.param.opts, key=len)} was {first['input']!r}: {in_words(first['msg'])}"
    return f"{said}; {context.command_path} --help says more" if said and context else said


def _fail(error: WorkerError) -> NoReturn:
    say(f"birnn: {error}", to=sys.stderr)
    raise typer.Exit(2 if isinstance(error, ConfigError) else 1)


def one_line_errors(verb: Callable[..., None]) -> Callable[..., None]:
    """Report a WorkerError as one line and an exit code; with ``--json`` keep standard output for the document."""

    @functools.wraps(verb)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with json_alone() if kwargs.get("as_json") else nullcontext():
                verb(*args, **kwargs)
        except WorkerError as error:
            _fail(error)
        except OSError as error:
            if error.filename is None:  # a bug or a connection, not a file
                raise
            _fail(WorkerError(f"{error.filename}: {error.strerror}"))
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in (*TRAIN, *RESEARCH):
                raise
            where = " in the container of updater, or" if package in TRAIN else ""
            _fail(
                ConfigError(
                    f"{verb.__name__} needs the package {package}, which is not installed here: run it{where} from a "
                    "checkout of the repository, after pip install '.[train,research]' there"
                )
            )

    return wrapped


def settings_from(*, config: str | None = None, data_dir: Path | None = None, **others: object) -> Settings:
    """The settings of this process, overridden by options.

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
        say(f"birnn: warning: {warning}", to=sys.stderr)


def or_example(settings: Settings, tell: Callable[[str], None] = say) -> Settings:
    """Use config.example.json if no file was named and there is no config.json.

    Raises:
        ConfigError: the working folder has neither.
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
    """The configured topics; empty if the files cannot be read."""
    return config_as_far_as_known(settings)[0].topics


def config_as_far_as_known(settings: Settings, *, example: bool = False) -> tuple[Config, str]:
    """The content of the config's files; empty, and why, if they cannot be read.

    Args:
        example: True uses config.example.json as ``or_example`` does, without a word.
    """
    try:
        settings = or_example(settings, lambda _: None) if example else settings
        read = read_config(*settings.config_files, node_version=settings.node_version, workers=settings.workers)
    except ConfigError as error:
        return Config(topics=(), warnings=(), rpc_urls={}, nodes={}), str(error).partition("\n")[0]
    return read, ""
