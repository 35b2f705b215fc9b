"""What ``birnn status`` says of the way of our answers to the chain."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cli.place import ledger_url, place_of
from core.settings import Settings
from core.topic import topic_key
from ledger.database import FAULTS
from ledger.epochs import Arrival, Epoch, EpochBook, Stage
from monitor.chain.outcome import outcome

NEWEST = 12  # epochs of a topic that are told of


def arrival_report(settings: Settings, topics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return how many answers of each topic arrived of its newest epochs, and why the others did not.

    Args:
        topics: with ``network`` and ``topic_id``, as inference lists them; those without an epoch are left out.
    """
    book = EpochBook(ledger_url(settings, place_of(settings)))
    try:
        return [one for topic in topics if (one := _arrivals(book, topic))] if book.is_begun else []
    except FAULTS:  # the part of the status that reads the ledger says so
        return []
    finally:
        book.close()


def _arrivals(book: EpochBook, topic: Mapping[str, Any]) -> dict[str, Any] | None:
    key = topic_key(topic["network"], topic["topic_id"])
    rows = [row for row in book.epochs_of(key, NEWEST + 1, inside=False) if row[0].stage != Stage.OPEN][:NEWEST]
    if not rows:
        return None
    return {
        "topic": key,
        "arrived": sum(_has_arrived(epoch) for epoch, _ in rows),
        "of": len(rows),
        "not_arrived": {
            str(epoch.nonce): outcome(epoch, answer).reason for epoch, answer in rows if not _has_arrived(epoch)
        },
    }


def _has_arrived(epoch: Epoch) -> bool:
    return epoch.arrival == Arrival.EQUAL


def arrival_lines(report: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The same as people read it.

    >>> one = {"topic": "net-1/3", "arrived": 11, "of": 12, "not_arrived": {"343": "not asked"}}
    >>> list(arrival_lines([one]))
    ['topic 3: 11 answers of the newest 12 epochs arrived on chain; not 343: not asked']
    """
    several = len({one["topic"].rpartition("/")[0] for one in report}) > 1
    for one in report:
        by_reason: dict[str, list[str]] = {}
        for nonce, reason in one["not_arrived"].items():
            by_reason.setdefault(reason, []).append(nonce)
        lost = "".join(f"; not {', '.join(nonces)}: {reason}" for reason, nonces in by_reason.items())
        name = one["topic"] if several else one["topic"].rpartition("/")[2]
        yield f"topic {name}: {one['arrived']} answers of the newest {one['of']} epochs arrived on chain{lost}"
