"""The worker node's command line: run it, look at it, train, backtest, tune, and keep its klines."""

import json
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import structlog
import typer

from cli.data import data_app
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
from cli.screen import ROOMY, Column, JsonOption, asking, print_json, say, screen, show_parts, table_of
from cli.verbs import (
    ConfigOption,
    DataOption,
    OneLineGroup,
    one_line_errors,
    or_example,
    settings_from,
    topics_as_far_as_known,
)
from core.clock import SystemClock
from core.errors import ConfigError, WorkerError
from core.logs import configure_logging
from core.process.listener import listen, url_of
from core.settings import Market, Settings
from core.topic import CLASSIFICATION, PROXIES, Topic, catalogue, default_symbol
from inference.probe import look, some_ready
from node.config_file import read_config, topics_from_config

# Verbs import what they need themselves: a shell that completes a word waits for the imports of this file.
app = typer.Typer(cls=OneLineGroup, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(data_app, name="data")

ALL_READY_PATIENCE_S = 120.0
EPOCH_COLUMN = "blocks/epoch"
LISTING_PATIENCE_S = 2.0  # for the venues' own lists, when topics are shown
_begun_s = time.monotonic()
MarketOption = Annotated[
    Market | None,
    typer.Option(
        help="auto: Binance if it answers within three seconds, else the simulated exchange.", case_sensitive=False
    ),
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


def _say_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"birnn {installed_version('birnn-worker')}")
        except PackageNotFoundError:
            print("birnn, run from a folder where it is not installed")
        raise typer.Exit


@app.callback(help=__doc__)
def birnn(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None: ...


@app.command()
@one_line_errors
def run(
    config: ConfigOption = None,
    data_dir: DataOption = None,
    market: MarketOption = None,
    port: Annotated[
        int | None, typer.Option(help="Where the inference endpoint listens (PORT).", min=0, max=65535)
    ] = None,
    replay: ReplayOption = None,
) -> None:
    """Inference, updater and a dry-run node on this machine; Ctrl-C ends them all."""
    from cli.freshness import Watch, status_line  # noqa: PLC0415
    from core.process.supervisor import Child, Supervisor  # noqa: PLC0415
    from door.holder import arguments as door_arguments  # noqa: PLC0415

    notes: list[str] = []
    settings = settings_from(config=config, data_dir=data_dir, market=market, port=port)
    settings = or_example(replaying(settings, replay), notes.append)
    config_read = read_config(*settings.config_files, node_version=settings.node_version, own=settings.address)
    notes += [f"warning: {line}" for line in config_read.warnings]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the supervisor takes over
    with ExitStack() as stack:
        # What can be wrong on this machine is tried before any venue is asked. The socket stays ours until the end:
        # questions find it even while the door is started again, and no other instance comes to be asked in its place.
        listener = stack.enter_context(listen(settings.host, settings.port))
        try:
            try_folders(settings, replay)
        except ConfigError:
            raise
        except WorkerError as error:  # the disk: answers need none
            notes.append(f"warning: {error}")
        choice = choose_market(settings, replay)
        for line in (choice.sentence, *notes):
            say(line)
        note_run(settings, choice.market, replay, url_of(listener))
        show = stack.enter_context(status_line(settings.log_format))
        form = "json" if show else settings.log_format  # what the status line makes readable of it, if it is to be
        simulated = choice.market is Market.SIMULATED
        configure_logging(settings.log_level, service="birnn", simulated=simulated, form=form)
        url, exchange, folder = None, None, settings.data_dir
        if choice.market is Market.SIMULATED:
            url, process = stack.enter_context(simulated_exchange(settings, replay))
            again = (*exchange_arguments(settings, replay), "--port", str(urlsplit(url).port))
            exchange = Child(module=EXCHANGE, arguments=again, process=process, starts=1)
            folder = tape_folder(settings, replay)
        environment = local_environment(settings, url, folder) | {"LOG_FORMAT": form}
        base_url = url_of(listener)
        door = door_arguments(settings.answer_patience_s, settings.log_level, form, choice.market.value)
        children = [
            Child(module="door.holder", arguments=door, listener_fd=listener.fileno()),
            Child(module="updater"),
            Child(module="worker", arguments=("--base-url", base_url), may_start=lambda: _ready(base_url)),
        ]
        say(
            f"asking: curl -s '{base_url}/inference/TOKEN?topic=ID'; state: {base_url}/topics and birnn status; "
            f"data in {environment['DATA_DIR']}; Ctrl-C ends"
        )
        with Watch(base_url, show, Path(environment["DATA_DIR"])):
            code = Supervisor(children, environment, structlog.get_logger, exchange=exchange).run()
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
        Path | None, typer.Option(help="JSON of training settings, instead of training.json in DATA_DIR.")
    ] = None,
) -> None:
    """One round now: sync the klines, train, judge, publish what wins."""
    from updater.service import checked_plans, train_once  # noqa: PLC0415  (polars and the scheduler load only here)

    settings = settings_from(config=config, data_dir=data_dir, market=market)
    files = or_example(settings, lambda _: None).config_files
    topics = topics_from_config(*files, node_version=settings.node_version)
    checked_plans(topics, panel or (), config_json)
    with market_for_once(settings, replay) as local:
        simulated = local.market is Market.SIMULATED
        configure_logging(local.log_level, service="birnn", simulated=simulated, form=local.log_format)
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
        Path | None, typer.Option(help="JSON of training settings, instead of training.json in DATA_DIR.")
    ] = None,
    unseen: Annotated[
        list[str] | None, typer.Option(help="Symbol that no training may see, such as ARBUSDT; repeat it.")
    ] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Only this baseline; repeat it.")] = None,
    baselines: Annotated[bool, typer.Option(help="Whether to fit the baselines as well.")] = True,
    quick: Annotated[bool, typer.Option("--quick", help="Two months, fewer trainings, smaller baselines.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Walk through the past with the code that trains and serves; table, JSON and an HTML report."""
    from core.progress import progress_of, show_cursor_again  # noqa: PLC0415
    from research.backtest.backtest import STEP  # noqa: PLC0415
    from research.backtest.command import (  # noqa: PLC0415
        Asked,
        chosen_topics,
        folder_of,
        introduction,
        walk_and_report,
        walk_of,
    )
    from research.report.report import JSON_FILE  # noqa: PLC0415
    from updater.training_settings import settings_file  # noqa: PLC0415

    settings = settings_from(config=config, data_dir=data_dir, training_days=days, seed=seed)
    place = place_of(settings_from(data_dir=data_dir))
    configured = None
    if config or not topic:
        configured = topics_from_config(*or_example(settings).config_files, node_version=settings.node_version)
    asked = Asked(
        topics=chosen_topics(network, topic or (), configured),
        data_dir=place.folder if data is None else settings.data_dir.absolute(),
        data=data,
        start=start,
        end=end,
        every_days=every,
        training_days=settings.training_days,
        seed=settings.seed,
        stride=stride,
        out=out,
        training_file=settings_file(place.folder, training_json),
        unseen=unseen or (),
        baselines=baseline if baselines else (),
        quick=quick,
        command=shlex.join(["birnn", *sys.argv[1:]]),
    )
    simulated = data is None and place.market is Market.SIMULATED
    configure_logging(settings.log_level, service="birnn", simulated=simulated, form=settings.log_format)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        walk, recording = walk_of(asked)
        folder = folder_of(asked, walk, recording)
        read = place.sentence if data is None else f"klines: {data.absolute()}"
        for line in (read, *introduction(walk, recording, folder)):
            say(line)
        with progress_of("backtest", step=STEP * len(walk.plans())) as show:
            parts = walk_and_report(asked, walk, recording, folder, show)
    except KeyboardInterrupt:
        show_cursor_again()
        say("stopped; the same command goes on after the last finished step", to=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print_json(json.loads((folder.root / JSON_FILE).read_bytes()))
        return
    show_parts(parts)


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
    as_json: JsonOption = False,
) -> None:
    """Search for better training settings on past klines; the updater reads what is adopted. Resumable."""
    from core.progress import progress_of, show_cursor_again  # noqa: PLC0415
    from research.backtest.command import chosen_topics, moment_of  # noqa: PLC0415
    from research.tune.tables import as_plain, tables  # noqa: PLC0415
    from research.tune.tune import Asked, tuned  # noqa: PLC0415

    settings = settings_from(config=config, data_dir=data_dir, training_days=days, seed=seed)
    place = place_of(settings_from(data_dir=data_dir))
    say(place.sentence)
    configured = None
    if config or not topic:
        configured = topics_from_config(*or_example(settings).config_files, node_version=settings.node_version)
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
    simulated = place.market is Market.SIMULATED
    configure_logging(settings.log_level, service="birnn", simulated=simulated, form=settings.log_format)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    panels = []
    try:
        with progress_of("tune, time used", step=10) as show:
            for found in tuned(asked, show, say):
                panels.append(as_plain(found))
                if not as_json:
                    show_parts(tables(found, screen().width))
    except KeyboardInterrupt:
        show_cursor_again()
        say("stopped; the same command goes on, and repeats the trial that was cut off", to=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print_json({"panels": panels})


@app.command()
@one_line_errors
def status(
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is served, how good it is, what the updater did last and does next."""
    from cli.status import status_report, status_tables  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    report = status_report(settings)
    if as_json:
        print_json(report)
        return
    console = screen()
    for part in status_tables(report, console.width):
        console.print(part)


@app.command()
@one_line_errors
def ready(
    topic: Annotated[
        list[int] | None, typer.Option(help="Topic id of the config; all of it when not given. Repeat it.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="Only the topics of this network.")] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    series: Annotated[
        Path | None, typer.Option(help="A CSV with the columns true,pred,gap instead of the topics.")
    ] = None,
    horizon: Annotated[str | None, typer.Option(help="Of --series: such as 20m.")] = None,
    ratio: Annotated[int | None, typer.Option(help="Of --series: horizon over epoch length.")] = None,
    submitted: Annotated[int | None, typer.Option(help="Of --series: epochs; its rows when not given.")] = None,
    expected: Annotated[int | None, typer.Option(help="Of --series: epochs; those it covers when not given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Whether the network would admit the answers to mainnet, and when, by its seven criteria."""
    from cli.ready import (  # noqa: PLC0415
        chosen,
        found_in,
        ready_json,
        ready_parts,
        series_parts,
        series_record,
        series_report,
    )

    console = screen()
    if series or horizon or ratio or submitted is not None or expected is not None:
        if topic or network:
            raise ConfigError("--series reads a file: leave out --topic and --network")
        record = series_record(series, horizon, ratio, submitted, expected)
        document: object = series_report(record)
        parts = series_parts(record, console.width)
    else:
        settings = settings_from(config=config, data_dir=data_dir)
        place = place_of(settings)
        configured = or_example(settings)
        topics = topics_from_config(*configured.config_files, node_version=settings.node_version)
        made_ms, found = found_in(place.folder, chosen(topics, topic or (), network))
        say(place.sentence)
        document = ready_json(found)
        parts = ready_parts(found, made_ms, console.width)
    if as_json:
        print_json(document)
        return
    for part in parts:
        console.print(part)


@app.command()
@one_line_errors
def doctor(
    market: Annotated[bool, typer.Option("--market", help="The venues alone, each one's state.")] = False,
    symbol: Annotated[
        list[str] | None, typer.Option(help="As Binance writes it; the configured topics' when not given. Repeat it.")
    ] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is well and what is not, asked now; exit 1 when something is wrong."""
    from cli.checks import Check, Subject, all_checks, checks_table, verdict  # noqa: PLC0415
    from cli.doctor import examine, reasons, report_of, unserved, venues_table  # noqa: PLC0415

    console, clock = screen(), SystemClock()
    checks: list[Check] = []
    try:
        settings = settings_from(config=config, data_dir=data_dir)
    except ConfigError as error:
        if market or symbol:
            raise
        checks.append(
            Check(name="settings", state="wrong", line=str(error), remedy="nothing starts before it is mended")
        )
        findings = []
    else:
        if market or symbol:
            if not symbol:
                settings = or_example(settings)
                configured = topics_from_config(*settings.config_files)
                symbol = list(dict.fromkeys(topic.symbol for topic in configured))
            else:
                configured = topics_as_far_as_known(settings)
            with asking(f"asking each venue for {', '.join(symbol)}"):
                findings = examine(settings, symbol, configured, clock)
        else:
            subject = Subject(settings=settings, clock=clock)
            with asking("looking at everything, and asking each venue where prices are real") as told:
                checks = all_checks(subject, told)
            findings = subject.findings
    lacking = unserved(findings, settings) if market or symbol else []
    well = not lacking and all(check.state != "wrong" for check in checks)
    if as_json:
        found = {"well": well, "checks": [asdict(check) for check in checks]} if not (market or symbol) else {}
        print_json(found | {"venues": report_of(findings, clock.now_ms()), "unserved": lacking})
        raise typer.Exit(0 if well else 1)
    if checks:
        console.print(verdict(checks), style="bold")
        console.print(checks_table(checks, console.width))
    if findings:
        console.print(venues_table(findings, clock.now_ms(), console.width))
    for line in (*reasons(findings), *lacking):
        say(line)
    raise typer.Exit(0 if well else 1)


@app.command()
@one_line_errors
def topics(
    config: ConfigOption = None,
    known: Annotated[bool, typer.Option("--catalogue", help="The network's topics instead of the configured.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The topics of config.json, or with --catalogue all that the shipped catalogue knows."""
    columns = [Column(heading="topic")]
    columns += [Column(heading=name) for name in ("token", "symbol", "target", "horizon", "loss")]
    columns += [
        Column(heading="network", wraps=True),
        Column(heading=EPOCH_COLUMN, least_width=ROOMY if known else 0),
    ]
    rows: list[tuple[int | str, ...]] = []
    warnings: list[str] = []
    if known:
        for (network, topic_id), entry in sorted(catalogue().items()):
            symbol = default_symbol(entry.asset) if entry.target != CLASSIFICATION else "none"
            asked = (topic_id, entry.asset, symbol, entry.target, entry.horizon, entry.loss)
            rows.append((*asked, network, entry.epoch_length_blocks))
        notes = {
            f"{asset} is no pair of the exchange: {default_symbol(asset)} stands for it (or {', '.join(others)} in "
            "dollars)"
            for asset, (_, *others) in PROXIES.items()
        }
    else:
        settings = or_example(settings_from(config=config))
        read = read_config(*settings.config_files, node_version=settings.node_version, own=settings.address)
        for topic in read.topics:
            asked = (topic.topic_id, topic.token, topic.symbol, topic.target, topic.horizon, topic.loss)
            rows.append((*asked, topic.network or "not said", topic.epoch_length_blocks or "not said"))
        notes = {f"{topic.proxy}: prices of {topic.symbol}" for topic in read.topics if topic.proxy}
        unknown = [topic.key for topic in read.topics if (topic.network or "", topic.topic_id) not in catalogue()]
        notes |= {f"topic {key} is not in the catalogue: asked as config.json says, unchecked" for key in unknown}
        warnings = list(read.warnings)
    if as_json:
        warnings += [] if known else [line for _, line in _listing_doubts(settings, read.topics)]
        names = ["epoch" if column.heading == EPOCH_COLUMN else column.heading for column in columns]
        named = [dict(zip(names, row, strict=True)) for row in rows]
        print_json({"topics": named, "notes": sorted(notes), "warnings": warnings})
        return
    console = screen()
    console.print(table_of(columns, [[str(cell) for cell in row] for row in rows], console.width))
    for note in sorted(notes):
        say(note)
    for line in warnings:
        say(f"warning: {line}")
    for kind, line in [] if known else _listing_doubts(settings, read.topics):  # what is above need not wait for it
        say(f"{kind}: {line}")


def _listing_doubts(settings: Settings, configured: Sequence[Topic]) -> list[tuple[str, str]]:
    """What the venues' own lists say against configured symbols; nothing where no venue can be asked from here."""
    from market.build import market_from  # noqa: PLC0415
    from market.listings import asked_pairs  # noqa: PLC0415

    try:
        clock, wait_s = SystemClock(), LISTING_PATIENCE_S
        venues = market_from(settings, clock, topics=configured, timeout_s=wait_s, patience_s=0).venues
    except ConfigError as error:  # such as MARKET=simulated without the exchange: the start says it, this is a list
        return [("warning", f"symbols were not looked up: {error}")]
    pairs = asked_pairs(venues, configured, LISTING_PATIENCE_S)
    return [("refused" if pair.contradiction else "warning", pair.line) for pair in pairs if pair.line]


if __name__ == "__main__":
    app()
