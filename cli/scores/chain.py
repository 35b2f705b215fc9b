"""What the chain made of our answers, as ``birnn scores`` and ``birnn status`` show it: the page's numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from cli.scores.tables import topic_fields
from cli.screen import plain
from cli.verbs import config_as_far_as_known
from core.clock import SystemClock
from core.settings import Settings
from core.topic import Topic
from ledger.epochs import NETWORK_ITSELF, EpochBook
from monitor.chain.alarms import upgrade_words
from monitor.chain.api import ChainShape, EpochShape
from monitor.chain.checks import network_checked
from monitor.chain.looks import network_look
from monitor.chain.results import MOST_EPOCHS, MOST_SHOWN, ChainSeen, on_chain, results_of
from monitor.chain.words import NO_ADDRESS, NO_EPOCHS, NOT_READ, chain_shape, headline_words, where_we_stand

Shapes = Mapping[str, ChainShape | None]  # by Topic.key; None: the chain is not read and never was


def chain_shapes(url: str, settings: Settings, keys: Sequence[str]) -> dict[str, ChainShape | None]:
    """Read where topics of these keys stand, as the monitor's ``/api/topics`` says. Database faults pass through.

    Args:
        url: of a ledger of this release's schema.
    """
    book, now_ms = EpochBook(url), SystemClock().now_ms()
    try:
        looks = {network: book.sightings(network).values() for network in {key.rpartition("/")[0] for key in keys}}
        seen_ms = {network: max(look.seen_ms for look in some) for network, some in looks.items() if some}
        topics = {key: on_chain(book.epochs_of(key, MOST_EPOCHS), now_ms) for key in keys}
    finally:
        book.close()
    chain = ChainSeen(bool(settings.lcds), seen_ms, topics)
    return {key: chain_shape(chain, key, now_ms) for key in keys}


def upgrade_notices(url: str, settings: Settings, networks: Sequence[str]) -> list[str]:
    """Say what upgrades of these networks, and APIs that the official node does not speak, mean, as the alarm does."""
    nodes, now_ms = config_as_far_as_known(settings, example=True)[0].nodes, SystemClock().now_ms()
    book = EpochBook(url)
    try:
        looks = {network: network_look(book.sightings(network).get(NETWORK_ITSELF)) for network in networks}
    finally:
        book.close()
    checked = {network: network_checked(look, nodes.get(network or None)) for network, look in looks.items()}
    return [line for network, one in checked.items() for line in upgrade_words(network, one, now_ms)]


def newest_epochs(url: str, key: str, limit: int) -> list[EpochShape]:
    """Read a topic's newest epochs, the newest first. Database faults pass through."""
    book = EpochBook(url)
    try:
        return [EpochShape.of(one) for one in results_of(book.epochs_of(key, max(limit, MOST_SHOWN)))[:limit]]
    finally:
        book.close()


def chain_json(
    topics: Sequence[Topic], shapes: Shapes, epochs: Mapping[str, Sequence[EpochShape]]
) -> dict[str, list[dict[str, Any]]]:
    """What ``birnn scores --json`` says of the chain; the epochs are by ``Topic.key``."""
    return {
        "chain": [
            {**topic_fields(topic), **shape.model_dump()}
            for topic in topics
            if (shape := shapes[topic.key]) is not None
        ],
        "epochs": [
            {**topic_fields(topic), **epoch.model_dump(mode="json")} for topic in topics for epoch in epochs[topic.key]
        ],
    }


def chain_parts(shapes: Shapes, *, brief: bool) -> Iterator[RenderableType]:
    """The same as people read it.

    Args:
        brief: without where the topics stand.
    """
    figure, words = headline_words(shapes.values())
    if figure:
        yield Text(f"{figure} {words}", style="bold")
    notes = dict.fromkeys(shape.note if shape else NOT_READ for shape in shapes.values())
    yield from (Text(plain(note)) for note in notes if note)
    several = len({key.rpartition("/")[0] for key in shapes}) > 1
    seen = {key: shape for key, shape in shapes.items() if shape and shape.opened}
    if not seen and not any(notes):
        yield Text(NO_EPOCHS)
    for key, shape in seen.items():
        won, _ = headline_words([shape])
        yield Text(
            f"topic {key if several else key.rpartition('/')[2]}: {won} epochs won"
            + ("" if shape.worker else f"; {NO_ADDRESS}")
        )
        if brief:
            continue
        if shape.epochs:
            yield Text(f"  in the newest {shape.epochs} settled epochs:")
        yield from (Text(f"  {heading}: {said}") for heading, said in where_we_stand(shape))
