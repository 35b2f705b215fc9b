"""``birnn truth``."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.screen import JsonOption, print_json, say, screen
from cli.verbs import ConfigOption, DataOption, one_line_errors, settings_from
from core.errors import ConfigError, WorkerError

if TYPE_CHECKING:  # numpy and the database load only where the verb runs
    from collections.abc import Sequence

    from core.topic import Topic

DEFAULT_EPOCHS = 40


@one_line_errors
def truth(
    topic: Annotated[int, typer.Option(help="Topic id of the config.")],
    network: Annotated[
        str | None, typer.Option(help="Of the topic, if two networks of the config have its id.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="The newest so many.", min=1, max=100_000)] = DEFAULT_EPOCHS,
    config: ConfigOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Solve for what the network scored against, and rank our candles' candidates for it.

    Prints each epoch's truth beside the candidates, and which TRUTH_VENUE, Volatility and BASE_RULE fits best.
    """
    from cli.place import ledger_url, place_of  # noqa: PLC0415
    from cli.ready import chosen  # noqa: PLC0415
    from cli.scores.record import reading  # noqa: PLC0415
    from cli.session import configured_topics, log_as  # noqa: PLC0415
    from cli.truth.tables import truth_json, truth_parts  # noqa: PLC0415
    from ledger.epochs import EpochBook  # noqa: PLC0415
    from market.store.home_store import HomeStore  # noqa: PLC0415
    from monitor.candles import Candles  # noqa: PLC0415
    from truth.study import settled, study  # noqa: PLC0415

    settings = settings_from(config=config, data_dir=data_dir)
    place = place_of(settings)
    one = _single(chosen(configured_topics(settings), [topic], network))
    say(place.sentence)
    log_as(settings, place.market)
    url = ledger_url(settings, place)
    with reading(url):  # its checks: there is a ledger, of this release, and it can be read
        book = EpochBook(url)
        rows = settled(book, one, epochs)
        book.close()
    if not rows:
        raise WorkerError(
            f"topic {one.key}: no settled epoch of it was seen on the chain yet; the monitor collects them while "
            "it runs with LCD_URLS set, and the chain forgets them soon after"
        )
    homes = HomeStore(place.folder / "klines", settings.venues)
    found = study(one, rows, homes, Candles(homes).deviation)
    if as_json:
        print_json(truth_json(found))
        return
    console = screen()
    for part in truth_parts(one, found, console.width):
        if isinstance(part, str):
            say(part)
        else:
            console.print(part)


def _single(topics: "Sequence[Topic]") -> "Topic":
    if len(topics) > 1:
        networks = ", ".join(one.network or "no network" for one in topics)
        raise ConfigError(
            f"--topic {topics[0].topic_id}: several networks have it: name one of {networks} by --network"
        )
    return topics[0]
