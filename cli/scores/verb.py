"""``birnn scores``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.screen import JsonOption, print_json, say, screen
from cli.verbs import ConfigOption, DataOption, one_line_errors, settings_from
from core.clock import DAY_MS, SystemClock, iso, moment_ms
from core.errors import ConfigError, WorkerError

if TYPE_CHECKING:  # numpy and the database load only where the verb runs
    from cli.scores.record import ScoreRecord
    from core.show.progress import Show
    from core.topic import Topic

DEFAULT_DAYS = 30
NEWEST = 50  # answers, and epochs, of a topic in JSON


@one_line_errors
def scores(
    topic: Annotated[
        list[int] | None, typer.Option(help="Topic id of the config; all topics by default. Repeat it.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="Only the topics of this network.")] = None,
    by: Annotated[str, typer.Option(help="A row for each topic, version or day.")] = "topic",
    since: Annotated[str | None, typer.Option(help="UTC day or moment; intervals that ended from then on.")] = None,
    until: Annotated[str | None, typer.Option(help="UTC day or moment where that ends, itself not included.")] = None,
    days: Annotated[
        int | None, typer.Option(help="The last so many days instead of --since; 30 by default.", min=1, max=36500)
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write every scored row to FILE.csv or FILE.parquet instead.")
    ] = None,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how good the answers were: each compared with what came true, beside the naive forecast."""
    from cli.place import ledger_url, place_of  # noqa: PLC0415
    from cli.ready import chosen  # noqa: PLC0415
    from cli.scores.chain import chain_json, chain_parts, chain_shapes, newest_epochs  # noqa: PLC0415
    from cli.scores.export import ending_of, write_scores  # noqa: PLC0415
    from cli.scores.record import reading  # noqa: PLC0415
    from cli.scores.summary import By, summaries  # noqa: PLC0415
    from cli.scores.tables import scores_json, scores_parts, span_words  # noqa: PLC0415
    from cli.session import configured_topics, log_as  # noqa: PLC0415
    from core.show.progress import progress_of  # noqa: PLC0415
    from model.stretch import STRETCH_COSTS, is_for_admission  # noqa: PLC0415

    if by not in [*By]:
        raise ConfigError(f"--by must be one of {', '.join(By)}, was {by!r}")
    if export:
        ending_of(export)
    now_ms = SystemClock().now_ms()
    since_ms, until_ms = span_of(since, until, days, now_ms)
    settings = settings_from(config=config, data_dir=data_dir)
    place = place_of(settings)
    topics = chosen(configured_topics(settings), topic or (), network)
    say(place.sentence)
    log_as(settings, place.market)
    url = ledger_url(settings, place)
    with reading(url) as record, progress_of("scores") as show:
        chain = chain_shapes(url, settings, [one.key for one in topics])
        if record.newest_end_ms(topics) is None and (export or not any(one and one.opened for one in chain.values())):
            raise WorkerError(nothing_scored(record.first_due_ms(topics), now_ms))
        if export:
            wanted = sum(record.count(one, since_ms, until_ms) for one in topics)
            write_scores(export, _parts(record, topics, since_ms, until_ms, wanted, show))
            if as_json:
                print_json({"file": str(export), "rows": wanted, "since": iso(since_ms), "until": iso(until_ms)})
            else:
                say(f"{export}: {wanted:,} rows of intervals that ended {span_words(since_ms, until_ms)}")
            return
        found = []
        for number, one in enumerate(topics):
            show(number, len(topics), f"topic {one.key}")
            scored = record.book.columns(one, since_ms, until_ms)
            missing = record.not_scorable(one, since_ms, until_ms)
            found.append((one, list(summaries(one, scored, missing, By(by)))))
        note = STRETCH_COSTS if any(is_for_admission(one, settings.objective) for one in topics) else ""
        if as_json:
            newest = [(one, record.book.answers_of(one, NEWEST)) for one in topics]
            epochs = {one.key: newest_epochs(url, one.key, NEWEST) for one in topics}
            print_json(scores_json(found, newest, By(by), since_ms, until_ms, note) | chain_json(topics, chain, epochs))
            return
    console = screen()
    for part in scores_parts(found, By(by), since_ms, until_ms, console.width, note):
        console.print(part)
    for part in chain_parts(chain, brief=not topic):
        console.print(part)


def span_of(since: str | None, until: str | None, days: int | None, now_ms: int) -> tuple[int, int]:
    """The span that the options name, its end not included.

    Raises:
        ConfigError: an option is no day, or they contradict each other; names the option.
    """
    since_ms, until_ms = moment_ms(since, "--since"), moment_ms(until, "--until")
    if since_ms is not None and days is not None:
        raise ConfigError("--since and --days both say where the span begins: leave one out")
    end_ms = now_ms if until_ms is None else until_ms
    start_ms = end_ms - (days or DEFAULT_DAYS) * DAY_MS if since_ms is None else since_ms
    if start_ms >= end_ms:
        ends = "now" if until is None else f"--until {until}"
        raise ConfigError(f"--since {since} is not before {ends}: nothing lies between")
    return start_ms, end_ms


def nothing_scored(due_ms: int | None, now_ms: int) -> str:
    """Say why there is no score yet, and when the first is due."""
    if due_ms is None:
        return "nothing scored yet: nothing has been answered for these topics (birnn status says what is answered)"
    due = f"{iso(due_ms)[:16].replace('T', ' ')}Z"
    if due_ms > now_ms:
        return f"nothing scored yet: the first answer's interval is over at {due}, and the monitor scores it then"
    return (
        f"nothing scored yet: the first interval was over at {due}, and the monitor scores it once the updater has "
        "stored its candles, every five minutes and after a training: both must run (birnn doctor says whether they "
        "do; scripts/run starts everything)"
    )


def _parts(
    record: "ScoreRecord", topics: "Sequence[Topic]", since_ms: int, until_ms: int, wanted: int, show: "Show"
) -> Iterator[Sequence[Any]]:
    done = 0
    for topic in topics:
        for rows in record.rows(topic, since_ms, until_ms):
            yield rows
            done += len(rows)
            show(done, wanted, f"topic {topic.key}")
