"""A topic's epochs beside our candidates: what ``birnn truth`` shows, and what settings are adopted by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.topic import Topic
from ledger.epochs import EpochBook, Stage
from market.store.home_store import HomeStore
from truth.candidates import Candidate, Row, candidates
from truth.ranking import Ranking, rank
from truth.recovered import Recovered, recover_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Epochs, newest first, with their truths and what each candidate says."""

    nonces: tuple[int, ...]
    truths: tuple[Recovered | str, ...]  # a sentence where it cannot be told
    values: dict[Candidate, list[float | None]]
    ranking: Ranking


def settled(book: EpochBook, topic: Topic, limit: int) -> list[Row]:
    """Return a topic's newest epochs of those whose losses are due, the newest first."""
    rows: list[Row] = []
    before: int | None = None
    while len(rows) < limit and (page := book.epochs_of(topic, limit, before_nonce=before)):
        rows += [row for row in page if row[0].stage not in {Stage.OPEN, Stage.CLOSED}]
        before = page[-1][0].nonce
    return rows[:limit]


def study(
    topic: Topic, rows: Sequence[Row], homes: HomeStore, deviation: Callable[[Topic, int], float] | None = None
) -> Study:
    """Recover the truth of each epoch and compare it with what our candles say.

    Args:
        rows: settled epochs, as ``EpochBook.epochs_of`` returns them.
        homes: the kline store; every venue with minutes of the topic's symbol is a candidate.
        deviation: of past returns, by topic and time; for the losses that need it.
    """
    truths = []
    for epoch, _ in rows:
        std = deviation(topic, epoch.block_ms) if deviation and epoch.block_ms is not None else None
        truths.append(recover_epoch(epoch.inside, topic.loss, std=std or None))
    values = candidates(topic, homes, rows)
    return Study(
        nonces=tuple(epoch.nonce for epoch, _ in rows),
        truths=tuple(truths),
        values=values,
        ranking=rank(topic, truths, values),
    )
