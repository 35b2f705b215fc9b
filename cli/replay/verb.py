"""``birnn replay``."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.scores.verb import span_of
from cli.screen import JsonOption, print_json, say, screen
from cli.verbs import ConfigOption, DataOption, one_line_errors, settings_from
from core.clock import MINUTE_MS, SECOND_MS, SystemClock, iso
from core.errors import ConfigError, IncompatibleModel, WorkerError

if TYPE_CHECKING:  # numpy, polars and onnxruntime load only where the verb runs
    from cli.place import Place
    from core.settings import Settings
    from core.topic import Topic
    from ledger.answers import Answer
    from ledger.scores import Score
    from model.registry.artefact import Artefact
    from model.registry.versions import Registry
    from monitor.candles import Candles

Asked = list[tuple["Answer", "Score | None", bool]]


@one_line_errors
def replay(
    topic: Annotated[int, typer.Option(help="Topic id of the config.")],
    version: Annotated[str, typer.Option(help="A published network, such as minute-20261122T084500Z-1a2b3c.")],
    since: Annotated[str, typer.Option(help="UTC day or moment; intervals that begin from then on.")],
    until: Annotated[str | None, typer.Option(help="UTC day or moment where that ends; now by default.")] = None,
    network: Annotated[str | None, typer.Option(help="The topic's, where two networks have its id.")] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a published network would have answered and lost in the past, beside what was answered."""
    from cli.adoptions import resolved  # noqa: PLC0415
    from cli.place import place_of  # noqa: PLC0415
    from cli.ready import chosen  # noqa: PLC0415
    from cli.replay.replayed import Replayer  # noqa: PLC0415
    from cli.replay.tables import compared, replay_json, replay_parts  # noqa: PLC0415
    from cli.session import configured_topics, log_as, stoppable  # noqa: PLC0415
    from core.show.progress import progress_of  # noqa: PLC0415
    from inference.stretches import Stretches  # noqa: PLC0415
    from market.store.home_store import HomeStore  # noqa: PLC0415
    from model.forecaster import BiRNNForecaster  # noqa: PLC0415
    from model.registry.champions import require_trained_for  # noqa: PLC0415
    from model.registry.versions import Registry  # noqa: PLC0415
    from monitor.candles import Candles  # noqa: PLC0415

    since_ms, until_ms = span_of(since, until, None, SystemClock().now_ms())
    settings = resolved(settings_from(config=config, data_dir=data_dir))
    place = place_of(settings)
    found = chosen(configured_topics(settings), (topic,), network)
    if len(found) > 1:
        networks = ", ".join(one.network or "" for one in found)
        raise ConfigError(f"--topic {topic}: is of {networks}; say which with --network")
    of = found[0]
    say(place.sentence)
    log_as(settings, place.market)
    artefact = published(Registry(place.folder), version)
    try:
        require_trained_for(of, artefact)
    except IncompatibleModel as error:
        raise ConfigError(f"--version {version}: {error}") from error
    store = HomeStore(place.folder / "klines", settings.venues)
    candles, stretches = Candles(store, settings.truth_venue), Stretches(settings.objective, place.folder)
    stretches.poll()
    replayer = Replayer(
        topic=of, forecaster=BiRNNForecaster(artefact), store=store, candles=candles, stretches=stretches
    )
    with stoppable("nothing was written"), progress_of("replay") as show:
        asked = _asked(settings, place, of, candles, since_ms, until_ms)
        result = replayer.run(asked, lambda done, wanted: show(done, wanted, f"topic {of.key}"))
    if not result.epochs:
        reasons = "; ".join(f"{count:,} epochs: {reason}" for reason, count in result.unanswered.most_common())
        raise WorkerError(
            f"nothing to replay from {iso(since_ms)} to {iso(until_ms)}: {reasons or 'no candle is stored there'} "
            "(birnn data gaps shows what is stored)"
        )
    summed = compared(of, result, artefact.manifest)
    if as_json:
        print_json(replay_json(of, artefact.version, result, summed, artefact.manifest, since_ms, until_ms))
        return
    console = screen()
    span = since_ms, until_ms
    for part in replay_parts(of, artefact.version, result, summed, artefact.manifest, span, console.width):
        console.print(part)


def published(registry: "Registry", version: str) -> "Artefact":
    """A published version by its id, or by the short form that tables show.

    Raises:
        ConfigError: there is no such version; lists those that there are.
        IncompatibleModel: it is torn or altered.
    """
    from core.logs import short_version  # noqa: PLC0415

    there = registry.versions()
    named = [one for one in there if version in {one, short_version(one)}]
    if len(named) != 1:
        listed = ", ".join(there) or "none yet (birnn status says when the next training is)"
        fault = "is short for several versions" if named else "no such version is published"
        raise ConfigError(f"--version {version!r}: {fault}; there are {listed}")
    return registry.open(named[0])


def _asked(
    settings: "Settings", place: "Place", topic: "Topic", candles: "Candles", since_ms: int, until_ms: int
) -> Asked:
    """The answers of a span with their scores, and between them the epochs that nobody answered."""
    from admission.replay import BLOCK_MS  # noqa: PLC0415
    from cli.place import ledger_url  # noqa: PLC0415
    from cli.replay.replayed import made_up, recorded  # noqa: PLC0415
    from cli.scores.record import reading  # noqa: PLC0415
    from ledger.scores import start_ms_of  # noqa: PLC0415
    from updater.admission.answered import Answered, answered_of  # noqa: PLC0415
    from updater.admission.records import guaranteed_s  # noqa: PLC0415

    market, url = place.market.value.upper(), ledger_url(settings, place)
    asked: Asked = []
    try:
        with reading(url) as record:
            asked = [(*row, True) for row in recorded(record.book, topic, market, since_ms, until_ms)]
    except WorkerError as error:
        say(f"without what was answered: {error}")
    measured = answered_of(url, (topic,), SystemClock().now_ms()).get(topic.key, Answered())
    known_ms = sorted(answer.elapsed_ms for answer, _, _ in asked)
    typical_ms = known_ms[len(known_ms) // 2] if asked else None
    if typical_ms is None:
        typical_ms = int(guaranteed_s(topic, settings, dry_run=place.last is not None) * SECOND_MS)
    starts_ms = sorted(start_ms_of(answer) for answer, _, _ in asked)
    others = made_up(
        topic,
        candles,
        starts_ms,
        since_ms,
        until_ms,
        known_min=typical_ms // MINUTE_MS,
        block_ms=measured.block_ms or BLOCK_MS,
        nonce_ms=starts_ms[-1] if asked else measured.nonce_ms,
        market=market,
    )
    return asked + [(answer, None, False) for answer in others]
