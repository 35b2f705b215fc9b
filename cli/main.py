"""The worker node's command line: run it, look at it, train, backtest, tune, and keep its klines."""

import json
import shlex
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from cli.chain import chain_app
from cli.data.app import data_app
from cli.place import place_of
from cli.profit.verb import profit
from cli.replay.verb import replay
from cli.scores.verb import scores
from cli.screen import JsonOption, print_json, say, screen, show_parts
from cli.session import configured_topics, log_as, market_for_once, research_session, stoppable
from cli.truth.verb import truth
from cli.verbs import (
    ConfigOption,
    DataOption,
    MarketOption,
    OneLineGroup,
    one_line_errors,
    or_example,
    settings_from,
)
from core.clock import SystemClock, moment_ms
from core.errors import ConfigError
from core.settings import Market

# Verbs import inside: a shell that completes a word waits for the imports of this file.
app = typer.Typer(cls=OneLineGroup, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(data_app, name="data")
app.add_typer(chain_app, name="chain")

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
    """Run inference, updater, monitor and a dry-run node on this machine; Ctrl-C ends them all."""
    from cli.run import run_node  # noqa: PLC0415

    raise typer.Exit(run_node(settings_from(config=config, data_dir=data_dir, market=market, port=port), replay))


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
    """Run one round now: sync the klines, train, judge, and publish a network that wins."""
    from updater.service import checked_plans, train_once  # noqa: PLC0415  (polars and the scheduler load only here)

    settings, panels = settings_from(config=config, data_dir=data_dir, market=market), panel or ()
    check = partial(checked_plans, panels=panels, training_file=config_json)
    with market_for_once(settings, replay, check=check) as (local, topics):
        outcomes = train_once(local, topics, panels=panels, training_file=config_json)
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
    from core.show.progress import progress_of  # noqa: PLC0415
    from research.backtest.backtest import STEP  # noqa: PLC0415
    from research.backtest.command import (  # noqa: PLC0415
        Asked,
        folder_of,
        introduction,
        walk_of,
    )
    from research.report.report import JSON_FILE, walk_and_report  # noqa: PLC0415
    from updater.training_settings import settings_file  # noqa: PLC0415

    settings, place, topics = research_session(config, data_dir, topic, network, days, seed)
    asked = Asked(
        topics=topics,
        data_dir=place.folder if data is None else settings.data_dir.absolute(),
        data=data,
        venues=settings.venues,
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
    log_as(settings, place.market if data is None else Market.BINANCE)
    with stoppable("the same command goes on after the last finished step"):
        walk, recording = walk_of(asked)
        folder = folder_of(asked, walk, recording)
        read = place.sentence if data is None else f"klines: {data.absolute()}"
        for line in (read, *introduction(walk, recording, folder)):
            say(line)
        with progress_of("backtest", step=STEP * len(walk.plans())) as show:
            parts = walk_and_report(asked, walk, recording, folder, show)
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
    """Search for better training settings on past klines; the updater uses the adopted settings. Resumable."""
    from core.show.progress import progress_of  # noqa: PLC0415
    from research.tune.tables import as_plain, tables  # noqa: PLC0415
    from research.tune.tune import Asked, tuned  # noqa: PLC0415

    settings, place, topics = research_session(config, data_dir, topic, network, days, seed)
    say(place.sentence if data is None else f"klines: {data.absolute()}")
    asked = Asked(
        topics=topics,
        data_dir=place.folder,
        data=data,
        venues=settings.venues,
        end_ms=moment_ms(end, "--end"),
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
    log_as(settings, place.market)
    panels = []
    with (
        stoppable("the same command goes on, and repeats the trial that was cut off"),
        progress_of("tune, time used", step=10) as show,
    ):
        for found in tuned(asked, show, say):
            panels.append(as_plain(found))
            if not as_json:
                show_parts(tables(found, screen().width))
    if as_json:
        print_json({"panels": panels})


@app.command()
@one_line_errors
def status(
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what serves each topic and how good it was, and what the updater did last and does next."""
    from cli.status.report import status_report  # noqa: PLC0415
    from cli.status.skill import skill_parts, skill_report  # noqa: PLC0415
    from cli.status.tables import status_tables  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    report = status_report(settings)
    if as_json:
        print_json(report | skill_report(settings, report["endpoint"]))
        return
    console = screen()
    for part in status_tables(report, console.width):
        console.print(part)
    # Last, because it takes seconds where many topics have many scores.
    for part in skill_parts(skill_report(settings, report["endpoint"]), console.width):
        console.print(part)


@app.command()
@one_line_errors
def ready(
    topic: Annotated[
        list[int] | None, typer.Option(help="Topic id of the config; all topics by default. Repeat it.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="Only the topics of this network.")] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    series: Annotated[
        Path | None, typer.Option(help="A CSV with the columns true,pred,gap instead of the topics.")
    ] = None,
    horizon: Annotated[str | None, typer.Option(help="Of --series: such as 20m.")] = None,
    ratio: Annotated[int | None, typer.Option(help="Of --series: horizon over epoch length.")] = None,
    submitted: Annotated[
        int | None, typer.Option(help="Of --series: answered epochs; the rows of the file by default.")
    ] = None,
    expected: Annotated[
        int | None, typer.Option(help="Of --series: expected epochs; those that the file covers by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show if and when the network would admit the answers to mainnet, by its seven criteria."""
    from cli.ready import chosen, found_in, ready_json, ready_parts  # noqa: PLC0415
    from cli.ready_live import live_of  # noqa: PLC0415
    from cli.ready_series import series_parts, series_record, series_report  # noqa: PLC0415

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
        made_ms, found = found_in(place.folder, chosen(configured_topics(settings), topic or (), network))
        say(place.sentence)
        live = live_of(settings, place, found, SystemClock().now_ms())
        document = ready_json(found, live)
        parts = ready_parts(found, made_ms, console.width, live)
    if as_json:
        print_json(document)
        return
    for part in parts:
        console.print(part)


app.command()(scores)
app.command()(truth)
app.command()(profit)
app.command()(replay)


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
    """Check configuration, disk, clock, venues and processes now; exit 1 when something is wrong."""
    from cli.doctor.verb import run_doctor  # noqa: PLC0415

    well = run_doctor(lambda: settings_from(config=config, data_dir=data_dir), market, symbol or (), as_json=as_json)
    raise typer.Exit(0 if well else 1)


@app.command()
@one_line_errors
def alarm(
    test: Annotated[bool, typer.Option("--test", help="Send one notification to each entry of ALARM_URLS.")] = False,
) -> None:
    """Try ALARM_URLS: send a notification, and tell which entries accepted it; exit 1 unless all did."""
    from cli.alarm import try_addresses  # noqa: PLC0415

    if not test:
        raise ConfigError("birnn alarm --test sends a notification; alarms that hold are on the monitor's page")
    raise typer.Exit(0 if try_addresses(settings_from()) else 1)


@app.command()
@one_line_errors
def topics(
    config: ConfigOption = None,
    known: Annotated[bool, typer.Option("--catalogue", help="The network's topics instead of the configured.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="The topics on chain now (LCD_URLS): new, changed and ended, worth, places.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The topics of config.json; with --catalogue all that this release knows, with --live those on chain."""
    from cli.topics import show_catalogue, show_configured  # noqa: PLC0415

    if known and live:
        raise ConfigError("--catalogue and --live show different topics: leave one out")
    if live:
        from cli.live.verb import show_live  # noqa: PLC0415

        raise typer.Exit(0 if show_live(settings_from(config=config), as_json=as_json) else 1)
    if known:
        show_catalogue(as_json=as_json)
    else:
        show_configured(or_example(settings_from(config=config)), as_json=as_json)


if __name__ == "__main__":
    app()
