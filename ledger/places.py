"""Where a topic stands in the tables: its network and its id."""

from collections.abc import Iterable

from core.topic import Topic


def place_of(topic: Topic | str) -> tuple[str, int]:
    """Return network and topic id of a topic or of its key.

    >>> place_of("net-1/64"), place_of("64")
    (('net-1', 64), ('', 64))
    """
    if isinstance(topic, Topic):
        return topic.network or "", topic.topic_id
    network, _, topic_id = topic.rpartition("/")
    return network, int(topic_id)


def by_network(topics: Iterable[Topic]) -> dict[str, list[Topic]]:
    """Return topics by the network they are on."""
    found: dict[str, list[Topic]] = {}
    for topic in topics:
        found.setdefault(topic.network or "", []).append(topic)
    return found
