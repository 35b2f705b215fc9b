"""What ``birnn status`` says of the way of our answers to the chain."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cli.place import ledger_url, place_of
from core.settings import Settings
from core.topic import topic_key
from ledger.database import FAULTS
from ledger.epochs import Arrival, EpochBook, Stage
from monitor.chain.outcome import outcome

NEWEST = 12  # epochs of a topic that the report covers


def arrival_report(settings: Settings, topics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return how many answers of each topic arrived in its newest epochs, and why the others did not or are not known.

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
    others = {row[0].nonce: outcome(*row) for row in rows if row[0].arrival != Arrival.EQUAL}
    unknown = {str(nonce): ended.reason for nonce, ended in others.items() if ended.won is None}
    return {
        "topic": key,
        "arrived": len(rows) - len(others),
        "of": len(rows) - len(unknown),
        "not_arrived": {str(nonce): ended.reason for nonce, ended in others.items() if ended.won is not None},
        "not_known": unknown,
    }


def arrival_lines(report: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The same as people read it.

    >>> one = {"topic": "net-1/3", "arrived": 10, "of": 11, "not_arrived": {"343": "not submitted"}, "not_known": {}}
    >>> list(arrival_lines([one]))
    ['topic 3: answers to 10 of 11 epochs arrived on chain; epoch 343: not submitted']
    >>> list(arrival_lines([one | {"arrived": 0, "of": 0, "not_arrived": {}, "not_known": {"343": "not seen"}}]))
    ['topic 3: whether answers arrived on chain is not known of epoch 343: not seen']
    """
    several = len({one["topic"].rpartition("/")[0] for one in report}) > 1
    for one in report:
        said = [f"answers to {one['arrived']} of {one['of']} epochs arrived on chain"] if one["of"] else []
        said += _by_reason(one["not_arrived"])
        said += [f"whether answers arrived on chain is not known of {line}" for line in _by_reason(one["not_known"])]
        yield f"topic {one['topic'] if several else one['topic'].rpartition('/')[2]}: {'; '.join(said)}"


def _by_reason(reasons: Mapping[str, str]) -> list[str]:
    nonces: dict[str, list[str]] = {}
    for nonce, reason in reasons.items():
        nonces.setdefault(reason, []).append(nonce)
    return [f"epoch{'s' if len(some) > 1 else ''} {', '.join(some)}: {reason}" for reason, some in nonces.items()]
