"""``birnn VERB``: run everything on one machine, train once, look at the state and at the topics."""

import functools
import json
import shlex
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.data import data_app
from cli.freshness import Watch, status_line
from cli.market import (
    EXCHANGE,
    choose_market,
    exchange_arguments,
    local_environment,
    market_for_once,
    replaying,
    simulated_exchange,
)
from cli.place import note_run, place_of, tape_folder, try_folders
from cli.status import status_report, status_tables
from cli.supervisor import Child, Supervisor
from cli.verbs import ConfigOption, DataOption, one_line_errors, or_example, settings_from
from core.clock import SystemClock
from core.config import topics_from_config
from core.errors import ConfigError, WorkerError
from core.logs import configure_logging
from core.settings import Market
from core.topic import PROXIES, catalogue
from inference.listen import listen, url_of
from inference.probe import look, some_ready

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(data_app, name="data")

ALL_READY_PATIENCE_S = 120.0
_begun_s = time.monotonic()
MarketOption = Annotated[
    Market | None, typer.Option(help="auto: Binance if it answers within three seconds, else the simulated exchange.")
]
TopicOption = Annotated[
    list[int] | None, typer.Option(help="Topic id, of --network or, with --config, of the config; repeat it.")
]
NetworkOption = Annotated[str, typer.Option(help="Whose catalogue the ids are of.")]
KlinesOption = Annotated[
    Path | None, typer.Option(help="Folder of Parquet klines; the worker's own store when not given.")
]
DaysOption = Annotated[int | None, typer.Option(help="History of a training (TRAINING_DAYS).", min=3, max=3650)]
ReplayOption = Annotated[
    Path | None, typer.Option(help="A folder of Parquet klines for the simulated exchange to replay.")
]


@app.command()
@one_line_errors
def run(
    config: ConfigOption = None,
    data_dir: DataOption = None,
    market: MarketOption = None,
    port: Annotated[int | None, typer.Option(help="Where the inference endpoint listens (PORT).")] = None,
    replay: ReplayOption = None,
) -> None:
    """Inference, updater and a dry-run node on this machine; Ctrl-C ends them all."""
    notes: list[str] = []
    settings = settings_from(config=config, data_dir=data_dir, market=market, port=port)
    settings = or_example(replaying(settings, replay), notes.append)
    topics_from_config(*settings.config_files)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the supervisor takes over
    with ExitStack() as stack:
        # What can be wrong on this machine is tried before any venue is asked. The socket stays ours until the end:
        # questions find it while inference is started again, and no other instance can come to be asked in its place.
        listener = stack.enter_context(listen(settings.host, settings.port))
        try:
            try_folders(settings, replay)
        except ConfigError:
            raise
        except WorkerError as error:  # the disk: answers need none
            notes.append(f"warning: {error}")
        choice = choose_market(settings)
        print("\n".join([choice.sentence, *notes]), flush=True)
        note_run(settings, choice.market, replay)
        show = stack.enter_context(status_line())
        configure_logging(settings.log_level, service="birnn", simulated=choice.market is Market.SIMULATED)
        url, exchange, folder = None, None, settings.data_dir
        if choice.market is Market.SIMULATED:
            url, process = stack.enter_context(simulated_exchange(settings, replay))
            again = (*exchange_arguments(settings, replay), "--port", str(urlsplit(url).port))
            exchange = Child(module=EXCHANGE, arguments=again, process=process, starts=1)
            folder = tape_folder(settings, replay)
        environment = local_environment(settings, url, folder)
        base_url, fd = url_of(listener), listener.fileno()
        children = [
            Child(module="inference", arguments=("--socket", str(fd)), sockets=(fd,)),
            Child(module="updater"),
            Child(module="worker", arguments=("--base-url", base_url), may_start=lambda: _ready(base_url)),
        ]
        print(
            f"asking: curl -s '{base_url}/inference/TOKEN?topic=ID'; state: {base_url}/topics and birnn status; "
            f"data in {environment['DATA_DIR']}; Ctrl-C ends",
            flush=True,
        )
        with Watch(base_url, show):
            code = Supervisor(children, environment, exchange).run()
    raise typer.Exit(code)


def _ready(base_url: str) -> bool:
    """Every topic can be answered, or after a while some: what the official node waits for as well."""
    patient = time.monotonic() < _begun_s + ALL_READY_PATIENCE_S
    return look(f"{base_url}/readyz", timeout_s=1)[0] or (not patient and some_ready(base_url))


@app.command()
@one_line_errors
def train(
    config: ConfigOption = None,
    data_dir: DataOption = None,
    market: MarketOption = None,
    replay: ReplayOption = None,
    panel: Annotated[list[str] | None, typer.Option(help="minute or hour; both when not given.")] = None,
    config_json: Annotated[
        Path | None, typer.Option(help="JSON of training settings, in the place of DATA_DIR/training.json.")
    ] = None,
) -> None:
    """One round now: sync the klines, train, judge, publish what wins."""
    from updater.service import checked_plans, train_once  # noqa: PLC0415  (polars and the scheduler load only here)

    settings = settings_from(config=config, data_dir=data_dir, market=market)
    topics = topics_from_config(*or_example(settings, lambda _: None).config_files)
    checked_plans(topics, panel or (), config_json)
    with market_for_once(settings, replay) as local:
        configure_logging(local.log_level, service="birnn", simulated=local.market is Market.SIMULATED)
        outcomes = train_once(local, topics, panels=panel or (), training_file=config_json)
    raise typer.Exit(0 if all(outcome.ok for outcome in outcomes) else 1)


@app.command()
@one_line_errors
def backtest(
    topic: TopicOption = None,
    network: NetworkOption = "allora-testnet-1",
    config: ConfigOption = None,
    data: KlinesOption = None,
    data_dir: DataOption = None,
    start: Annotated[
        str | None, typer.Option(help="UTC day of the first training; three months before the end.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="UTC day where the span ends; where the klines do.")] = None,
    every: Annotated[int | None, typer.Option(help="Days between trainings; 14, with --quick 30.")] = None,
    days: DaysOption = None,
    stride: Annotated[int | None, typer.Option(help="Score every so many minutes; 1, with --quick 5.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every training (SEED).")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where it is kept; a folder of its own in DATA_DIR/backtests.")
    ] = None,
    training_json: Annotated[
        Path | None, typer.Option(help="JSON of training settings, in the place of DATA_DIR/training.json.")
    ] = None,
    unseen: Annotated[
        list[str] | None, typer.Option(help="Symbol that no training may see, such as ARBUSDT; repeat it.")
    ] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Only this baseline; repeat it.")] = None,
    baselines: Annotated[bool, typer.Option(help="Whether to fit the baselines as well.")] = True,
    quick: Annotated[bool, typer.Option("--quick", help="Two months, fewer trainings, smaller baselines.")] = False,
) -> None:
    """Walk through the past with the code that trains and serves; table, JSON and an HTML report."""
    from research.command import Asked, chosen_topics, folder_of, introduction, walk_and_report, walk_of  # noqa: PLC0415
    from research.report import TABLE_WIDTH  # noqa: PLC0415
    from updater.progress import progress_of, show_cursor_again  # noqa: PLC0415

    settings = settings_from(config=config, data_dir=data_dir, training_days=days, seed=seed)
    place = place_of(settings_from(data_dir=data_dir))
    print(place.sentence, flush=True)
    configured = None
    if config or not topic:
        configured = topics_from_config(*or_example(settings).config_files)
    asked = Asked(
        topics=chosen_topics(network, topic or (), configured),
        data_dir=place.folder,
        data=data,
        start=start,
        end=end,
        every_days=every,
        training_days=settings.training_days,
        seed=settings.seed,
        stride=stride,
        out=out,
        training_file=training_json,
        unseen=unseen or (),
        baselines=baseline if baselines else (),
        quick=quick,
        command=shlex.join(["birnn", *sys.argv[1:]]),
    )
    configure_logging(settings.log_level, service="birnn", simulated=place.market is Market.SIMULATED)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        walk, recording = walk_of(asked)
        folder = folder_of(asked, walk, recording)
        for line in introduction(walk, recording, folder):
            print(line, flush=True)
        with progress_of("backtest") as show:
            parts = walk_and_report(asked, walk, recording, folder, show)
    except KeyboardInterrupt:
        show_cursor_again()
        print("stopped; the same command goes on after the last finished step", file=sys.stderr)
        raise typer.Exit(130) from None
    console = Console()
    console = Console(width=max(console.width, TABLE_WIDTH))
    for part in parts:
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))


@app.command()
@one_line_errors
def tune(
    topic: TopicOption = None,
    network: NetworkOption = "allora-testnet-1",
    config: ConfigOption = None,
    data: KlinesOption = None,
    data_dir: DataOption = None,
    panel: Annotated[list[str] | None, typer.Option(help="minute or hour; both when not given.")] = None,
    end: Annotated[
        str | None, typer.Option(help="UTC day where what it reads ends; not given, that is before what gates judge.")
    ] = None,
    days: DaysOption = None,
    minutes: Annotated[float, typer.Option(help="Time for all panels together.")] = 60.0,
    trials: Annotated[int | None, typer.Option(help="Most trials of a panel, earlier runs counted in.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes, a core each.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Of trainings and search (SEED).")] = None,
    study: Annotated[Path | None, typer.Option(help="SQLite file of the trials; DATA_DIR/tuning.sqlite3.")] = None,
    out: Annotated[Path | None, typer.Option(help="What is adopted goes here; DATA_DIR/training.json.")] = None,
    adopt: Annotated[bool, typer.Option(help="Whether to write what is better.")] = True,
    new: Annotated[bool, typer.Option("--new", help="Forget the earlier trials of this very study.")] = False,
) -> None:
    """Search for better training settings on past klines; the updater reads what is adopted. Resumable."""
    from research.command import chosen_topics, moment_of  # noqa: PLC0415
    from research.tune import Asked, tuned  # noqa: PLC0415
    from research.tune_tables import tables  # noqa: PLC0415
    from updater.progress import progress_of, show_cursor_again  # noqa: PLC0415

    settings = settings_from(config=config, data_dir=data_dir, training_days=days, seed=seed)
    place = place_of(settings_from(data_dir=data_dir))
    print(place.sentence, flush=True)
    configured = None
    if config or not topic:
        configured = topics_from_config(*or_example(settings).config_files)
    asked = Asked(
        topics=chosen_topics(network, topic or (), configured),
        data_dir=place.folder,
        data=data,
        end_ms=moment_of(end, "--end"),
        panels=panel or (),
        training_days=settings.training_days,
        seed=settings.seed,
        minutes=minutes,
        trials=trials,
        jobs=jobs,
        study=study,
        out=out,
        adopt=adopt,
        anew=new,
    )
    configure_logging(settings.log_level, service="birnn", simulated=place.market is Market.SIMULATED)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    try:
        with progress_of("tune") as show:
            for found in tuned(asked, show, functools.partial(print, flush=True)):
                for part in tables(found):
                    console.print(part, highlight=False, soft_wrap=isinstance(part, str))
    except KeyboardInterrupt:
        show_cursor_again()
        print("stopped; the same command goes on, and repeats the trial that was cut off", file=sys.stderr)
        raise typer.Exit(130) from None


@app.command()
@one_line_errors
def status(
    data_dir: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """What is served, how good it is, what the updater did last and does next."""
    settings = settings_from(data_dir=data_dir)
    report = status_report(settings)
    if as_json:
        print(json.dumps(report, indent=1))
        return
    console = Console()
    for part in status_tables(report):
        console.print(part)


@app.command()
@one_line_errors
def doctor(
    market: Annotated[bool, typer.Option("--market", help="Every venue's state, asked now.")] = False,
    symbol: Annotated[
        list[str] | None, typer.Option(help="As Binance writes it; the configured topics' when not given. Repeat it.")
    ] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """What is well and what is not, asked now; exit 1 when a symbol cannot be served."""
    from cli.doctor import TABLE_WIDTH, examine, reasons, report_of, table_of, unserved  # noqa: PLC0415

    if not market:
        raise ConfigError("say what to look at: birnn doctor --market")
    settings = settings_from(config=config)
    if not symbol:
        settings = or_example(settings)
        symbol = list(dict.fromkeys(topic.symbol for topic in topics_from_config(*settings.config_files)))
    clock = SystemClock()
    if not as_json:
        print(f"asking each venue for {', '.join(symbol)} ...", file=sys.stderr, flush=True)
    findings = examine(settings, symbol, clock)
    lacking = unserved(findings, settings)
    if as_json:
        print(json.dumps({"venues": report_of(findings, clock.now_ms()), "unserved": lacking}, indent=1))
    else:
        console = Console()
        Console(width=max(console.width, TABLE_WIDTH)).print(table_of(findings, clock.now_ms()), highlight=False)
        for line in (*reasons(findings), *lacking):
            print(line)
    raise typer.Exit(1 if lacking else 0)


@app.command()
@one_line_errors
def topics(
    config: ConfigOption = None,
    known: Annotated[bool, typer.Option("--catalogue", help="The network's topics instead of the configured.")] = False,
) -> None:
    """The topics of config.json, or with --catalogue all that the shipped catalogue knows."""
    table = Table("topic", "token", "target", "horizon", "loss", "network", "epoch", box=SIMPLE, pad_edge=False)
    if known:
        for (network, topic_id), entry in sorted(catalogue().items()):
            row = (topic_id, entry.asset, entry.target, entry.horizon, entry.loss, network, entry.epoch_length_blocks)
            table.add_row(*(str(cell) for cell in row))
        notes = {f"{asset} is no pair of the exchange: {pair} stands for it" for asset, pair in PROXIES.items()}
    else:
        configured = topics_from_config(*or_example(settings_from(config=config)).config_files)
        for topic in configured:
            said = (topic.network or "not said", str(topic.epoch_length_blocks or "not said"))
            table.add_row(str(topic.topic_id), topic.token, topic.target, topic.horizon, topic.loss, *said)
        notes = {f"{topic.proxy}: prices of {topic.symbol}" for topic in configured if topic.proxy}
    Console().print(table)
    for note in sorted(notes):
        print(note)


if __name__ == "__main__":
    app()
