"""The preparation of a verb: settings, topics, market, log, and the handling of Ctrl-C."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import typer

from cli.market import choose_market, local_environment, replaying, simulated_exchange
from cli.place import Place, place_of, tape_folder, try_folders
from cli.screen import say
from cli.verbs import or_example, settings_from
from core.errors import MarketUnavailable
from core.logs import LogFormat, configure_logging
from core.settings import Market, Settings, load_settings
from core.topic import Topic
from node.config_file import topics_from_config


def configured_topics(settings: Settings) -> tuple[Topic, ...]:
    """Return the topics of config.json, or of the example if no file was named and config.json does not exist."""
    return topics_from_config(
        *or_example(settings).config_files, node_version=settings.node_version, workers=settings.workers
    )


def log_as(settings: Settings, market: Market, *, level: str = "", form: LogFormat | None = None) -> None:
    """Configure the log of a verb; the defaults of level and form are LOG_LEVEL and LOG_FORMAT."""
    configure_logging(
        level or settings.log_level,
        service="birnn",
        simulated=market is Market.SIMULATED,
        form=form or settings.log_format,
    )


@contextmanager
def stoppable(words: str, stop: threading.Event | None = None) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set ``stop``, end the block, print ``words`` and exit with status 130."""

    def interrupt(*_: object) -> NoReturn:
        if stop:
            stop.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        from core.show.progress import show_cursor_again  # noqa: PLC0415  (loads rich's progress)

        show_cursor_again()
        say(f"stopped; {words}", to=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def research_session(
    config: str | None,
    data_dir: Path | None,
    topic: Sequence[int] | None,
    network: str,
    days: int | None,
    seed: int | None,
) -> tuple[Settings, Place, tuple[Topic, ...]]:
    """Return settings, place and topics of a verb that works on stored klines."""
    from research.backtest.command import chosen_topics  # noqa: PLC0415  (matplotlib and torch load only here)

    settings = settings_from(config=config, data_dir=data_dir, training_days=days, seed=seed)
    place = place_of(settings_from(data_dir=data_dir))
    configured = configured_topics(settings) if config or not topic else None
    return settings, place, chosen_topics(network, topic or (), configured)


@contextmanager
def market_for_once(
    settings: Settings,
    replay: Path | None = None,
    *,
    check: Callable[[tuple[Topic, ...]], object] = lambda _: None,
    quiet: bool = False,
) -> Iterator[tuple[Settings, tuple[Topic, ...]]]:
    """Choose a market for one run of a verb, keep the market up while the block runs, yield settings and topics.

    The market is MARKET if set, else that of the last run, else real if a venue answers. The folder is checked first.

    Args:
        check: raises if the topics do not suit the verb.
        quiet: True to log warnings and errors only, because a progress bar shows the rest.
    Raises:
        ConfigError: the configuration is wrong, or another process works on the folder.
        WorkerError: the disk is full or read-only, or the simulated exchange did not come up.
    """
    notes: list[str] = []
    settings = or_example(replaying(settings, replay), notes.append)
    topics = topics_from_config(*settings.config_files, node_version=settings.node_version, workers=settings.workers)
    check(topics)
    place = place_of(settings) if replay is None else None
    if place and place.last:
        settings = settings.model_copy(update={"market": place.market, "seed": place.last.seed})
        replay = place.last.replay
        notes.append(place.sentence)
    try_folders(settings, replay)
    choice = choose_market(settings, replay)
    say("\n".join([choice.sentence, *notes]))
    with ExitStack() as stack:
        url, folder = None, settings.data_dir
        if choice.market is Market.SIMULATED:
            url, _ = stack.enter_context(simulated_exchange(settings, replay))
            folder = tape_folder(settings, replay)
        environment = local_environment(settings, url, folder)
        if not (place and place.last):
            say(f"data: {environment['DATA_DIR']}")
        local = settings_for(environment, seed=settings.seed)
        log_as(local, choice.market, level="warning" if quiet and local.log_level == "info" else "")
        yield local, topics


def settings_for(environment: Mapping[str, str], **others: object) -> Settings:
    """Return the settings of a process with this environment."""
    return load_settings(**{name.lower(): value for name, value in environment.items()}, **others)


@contextmanager
def market_of(place: Place) -> Iterator[Settings]:
    """Yield settings for the market whose prices a place holds; a simulated exchange runs as long as the block.

    Raises:
        MarketUnavailable: the simulated exchange did not come up, or the folder of the replayed klines is not known.
    """
    settings = load_settings()
    if place.market is Market.BINANCE:
        yield settings.model_copy(update={"data_dir": place.folder})
        return
    seed, replay = place.folder.name.removeprefix("seed-"), place.last.replay if place.last else None
    if not seed.isdecimal() and replay is None:
        raise MarketUnavailable(f"{place.folder}: no record says which klines were replayed there")
    changes = {"data_dir": place.folder.parents[1], "seed": int(seed) if seed.isdecimal() else settings.seed}
    settings = settings.model_copy(update=changes)
    with simulated_exchange(settings, replay) as (url, _):
        yield settings_for(local_environment(settings, url, place.folder))
