"""What the chain made of each epoch: the monitor collects and writes it, and all may read it.

A real chain forgets an epoch soon after it was settled, so a row grows while the chain still tells. What could not be
seen stays None and is named in ``missing``. Every call waits for the disk or the network, and raises one of
``ledger.database.FAULTS`` if the database cannot be used now.
"""

import zlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from core.topic import Topic, topic_key
from ledger.answers import Answer
from ledger.database import file_of, open_made
from ledger.places import place_of
from ledger.schema import adoptions, answers, balances, epochs, sightings
from ledger.upsert import upsert

NETWORK_ITSELF = 0  # topic id of a sighting of the network


class Stage(StrEnum):
    """How far an epoch has come, as seen."""

    OPEN = "open"  # its submission window is open
    CLOSED = "closed"  # the window is over; losses are not there yet
    SETTLED = "settled"  # losses, scores and rewards were read, or are named as missing
    GONE = "gone"  # the chain had forgotten the epoch before it was read


class Arrival(StrEnum):
    """What became of our answer on its way to the chain."""

    EQUAL = "equal"  # it is on chain, with an equal decimal
    OTHER = "other"  # another value of our worker is on chain
    ABSENT = "absent"  # the chain was read in time and had none
    UNKNOWN = "unknown"  # the chain was not read in time


class Inferer(NamedTuple):
    """One worker's part in an epoch; texts as the chain wrote them, None: not seen."""

    address: str
    value: str | None = None
    loss: str | None = None  # or its base-10 logarithm
    score: str | None = None
    reward: str | None = None  # uallo
    one_out: str | None = None  # the network's inference without this worker


class Detail(NamedTuple):
    """The workers of an epoch, and each reputer's own losses."""

    inferers: tuple[Inferer, ...] = ()
    reputers: Mapping[str, Mapping[str, str]] = {}  # loss by inferer, by the reputer's address
    stakes: Mapping[str, str] = {}  # by the reputer's address

    def packed(self) -> bytes:
        """Return the detail as the database keeps it: JSON, compressed."""
        inferers = [tuple(one) for one in self.inferers]
        reputers = {address: dict(losses) for address, losses in self.reputers.items()}
        return zlib.compress(orjson.dumps([inferers, reputers, dict(self.stakes)]), 6)

    @classmethod
    def unpacked(cls, packed: bytes) -> "Detail":
        """Return what ``packed`` made."""
        inferers, reputers, stakes = orjson.loads(zlib.decompress(packed))
        return cls(tuple(Inferer(*one) for one in inferers), reputers, stakes)


class Epoch(NamedTuple):
    """An epoch of a topic, as seen. The fields are in the order of the table's columns; texts as the chain wrote them.

    Losses are the chain's own: of the loss itself, or its base-10 logarithm (``truth.recovered`` finds out which).
    """

    network: str  # chain id; empty when the config does not say
    topic_id: int
    nonce: int
    block_ms: int | None  # time of the nonce block's header
    seen_ms: int  # when the row was last changed
    stage: str  # a Stage
    worker: str = ""  # WORKER_ADDRESS at the time; empty if it was not set
    arrival: str = Arrival.UNKNOWN.value  # an Arrival
    value: str | None = None  # of our worker on chain
    active: bool | None = None  # True if our worker was in the epoch's active set
    combined: str | None = None  # the network's inference
    combined_without: str | None = None  # the network's inference without ours
    naive: str | None = None  # the network's naive inference
    combined_loss: str | None = None
    combined_loss_without: str | None = None
    naive_loss: str | None = None
    loss: str | None = None  # of our worker
    score: str | None = None  # of our worker in this epoch
    score_ema: str | None = None  # of our worker after this epoch
    reward: str | None = None  # of our worker, uallo
    settled_height: int | None = None
    missing: str = ""  # what could not be seen, comma-separated: fields of this row, or "inferers"
    detail: bytes | None = None  # a Detail, packed; None: not read, or trimmed

    @property
    def key(self) -> str:
        """``Topic.key`` of the epoch's topic."""
        return topic_key(self.network, self.topic_id)

    @property
    def inside(self) -> Detail:
        """The workers and reputers; empty if they are not kept."""
        return Detail.unpacked(self.detail) if self.detail else Detail()


class Sighting(NamedTuple):
    """The newest look at a network or a topic."""

    seen_ms: int
    body: Mapping[str, Any]  # as ``monitor.chain`` writes it


class Adoption(NamedTuple):
    """The value that a setting with the value ``auto`` stands for."""

    setting: str  # TRUTH_VENUE or BASE_RULE
    value: str
    evidence: str  # a sentence
    adopted_ms: int


class EpochBook:
    """Reads and writes the tables of epochs, sightings, balances and adoptions.

    Args:
        url: SQLAlchemy URL, SQLite or PostgreSQL; an SQLite file is never made.
    Raises:
        ConfigError: not the URL of a database that can be used.
    """

    def __init__(self, url: str) -> None:
        self._readers, self._writers = open_made(url), open_made(url, "rw")
        self._file = file_of(url)

    @property
    def is_begun(self) -> bool:
        """False if the database is an SQLite file that is not there: nothing was answered yet."""
        return self._file is None or self._file.is_file()

    def write(self, rows: Sequence[Epoch]) -> None:
        """Write epochs in place of those with the same keys, in one transaction."""
        if rows:
            with self._writers.begin() as connection:
                connection.execute(upsert(self._writers, epochs), [row._asdict() for row in rows])

    def epochs_of(
        self,
        topic: Topic | str,
        limit: int,
        *,
        before_nonce: int | None = None,
        since_ms: int = 0,
        inside: bool = True,
    ) -> list[tuple[Epoch, Answer | None]]:
        """Return a topic's newest epochs, the newest first, each with our answer to its nonce; None: none was given.

        Args:
            topic: or its ``Topic.key``.
            before_nonce: only epochs below this nonce; None is all.
            since_ms: only epochs whose row was changed then or later.
            inside: False leaves out the details, which are most of the bytes.
        """
        network, topic_id = place_of(topic)
        where = [epochs.c.network == network, epochs.c.topic_id == topic_id, epochs.c.seen_ms >= since_ms]
        if before_nonce is not None:
            where.append(epochs.c.nonce < before_nonce)
        joined = epochs.outerjoin(
            answers,
            sa.and_(
                answers.c.network == epochs.c.network,
                answers.c.topic_id == epochs.c.topic_id,
                answers.c.height == epochs.c.nonce,
            ),
        )
        query = sa.select(*_columns(inside), answers).select_from(joined).where(*where)
        with self._readers.connect() as connection:
            rows = connection.execute(query.order_by(epochs.c.nonce.desc()).limit(limit)).all()
        width = len(epochs.c)
        return [(Epoch(*row[:width]), None if row[width] is None else Answer(*row[width:])) for row in rows]

    def unsettled(self, network: str, *, inside: bool = True) -> list[Epoch]:
        """Return the network's epochs that are open or closed: those that a follower goes on with after a start.

        Args:
            inside: False leaves out the details; such rows are not to be written.
        """
        stages = (Stage.OPEN.value, Stage.CLOSED.value)
        query = sa.select(*_columns(inside)).where(epochs.c.network == network, epochs.c.stage.in_(stages))
        with self._readers.connect() as connection:
            return [Epoch(*row) for row in connection.execute(query.order_by(epochs.c.topic_id, epochs.c.nonce))]

    def answer(self, network: str, topic_id: int, nonce: int) -> Answer | None:
        """Return our answer to a nonce; None: none was given."""
        where = answers.c.network == network, answers.c.topic_id == topic_id, answers.c.height == nonce
        with self._readers.connect() as connection:
            row = connection.execute(sa.select(answers).where(*where)).first()
        return Answer(*row) if row else None

    def keys(self, since_ms: int = 0) -> list[str]:
        """Return ``Topic.key`` of each topic that has an epoch whose row was changed then or later."""
        query = sa.select(epochs.c.network, epochs.c.topic_id).where(epochs.c.seen_ms >= since_ms).distinct()
        with self._readers.connect() as connection:
            return [topic_key(*row) for row in connection.execute(query.order_by(epochs.c.network, epochs.c.topic_id))]

    def newest_ms(self) -> int:
        """Return when an epoch was last written; 0 without any."""
        with self._readers.connect() as connection:
            return connection.execute(sa.select(sa.func.max(epochs.c.seen_ms))).scalar_one() or 0

    def note(self, network: str, topic_id: int, seen_ms: int, body: Mapping[str, Any]) -> None:
        """Write the newest look at a topic, or at the network itself (``NETWORK_ITSELF``)."""
        row = {"network": network, "topic_id": topic_id, "seen_ms": seen_ms, "body": orjson.dumps(body).decode()}
        with self._writers.begin() as connection:
            connection.execute(upsert(self._writers, sightings), [row])

    def sightings(self, network: str) -> dict[int, Sighting]:
        """Return the newest looks by topic id; the network's own is at ``NETWORK_ITSELF``."""
        query = sa.select(sightings.c.topic_id, sightings.c.seen_ms, sightings.c.body)
        with self._readers.connect() as connection:
            rows = connection.execute(query.where(sightings.c.network == network)).all()
        return {topic_id: Sighting(seen_ms, orjson.loads(body)) for topic_id, seen_ms, body in rows}

    def note_balance(self, network: str, address: str, read_ms: int, amount: str) -> None:
        """Keep a wallet's balance in uallo."""
        row = {"network": network, "address": address, "read_ms": read_ms, "amount": amount}
        with self._writers.begin() as connection:
            connection.execute(upsert(self._writers, balances), [row])

    def balances(self, network: str, address: str, since_ms: int = 0) -> list[tuple[int, str]]:
        """Return when a wallet's balance was read and how much it was, oldest first."""
        where = balances.c.network == network, balances.c.address == address, balances.c.read_ms >= since_ms
        query = sa.select(balances.c.read_ms, balances.c.amount).where(*where).order_by(balances.c.read_ms)
        with self._readers.connect() as connection:
            return [(read_ms, amount) for read_ms, amount in connection.execute(query)]

    def adopt(self, adoption: Adoption) -> bool:
        """Write what a setting stands for, once for ever; False if that was adopted before."""
        with self._writers.begin() as connection:
            query = sa.select(adoptions.c.value).where(adoptions.c.setting == adoption.setting)
            if connection.execute(query).first():
                return False
            connection.execute(adoptions.insert(), [adoption._asdict()])
        return True

    def adoptions(self) -> dict[str, Adoption]:
        """Return what was adopted, by the setting's name."""
        with self._readers.connect() as connection:
            return {row.setting: Adoption(*row) for row in connection.execute(sa.select(adoptions))}

    def trim(self, before_ms: int, detail_before_ms: int, most_rows: int) -> int:
        """Delete epochs and balances that are too old, and the details of old epochs, a few rows at a time.

        Args:
            before_ms: rows that were last changed before are deleted.
            detail_before_ms: of rows that were last changed before only the summary stays.
            most_rows: of epochs that are touched in this call.
        Returns:
            the number of epochs that were touched.
        """
        key = [epochs.c.network, epochs.c.topic_id, epochs.c.nonce]

        def oldest(*where: sa.ColumnElement[bool]) -> sa.Select[Any]:
            return sa.select(*key).where(*where).order_by(epochs.c.seen_ms).limit(most_rows)

        old = oldest(epochs.c.seen_ms < before_ms)
        heavy = oldest(epochs.c.seen_ms < detail_before_ms, epochs.c.detail.is_not(None))
        with self._writers.begin() as connection:
            gone = connection.execute(epochs.delete().where(sa.tuple_(*key).in_(old))).rowcount
            lighter = connection.execute(epochs.update().where(sa.tuple_(*key).in_(heavy)).values(detail=None)).rowcount
            connection.execute(balances.delete().where(balances.c.read_ms < before_ms))
        return gone + lighter

    def close(self) -> None:
        """Close all connections."""
        self._readers.dispose()
        self._writers.dispose()


def _columns(inside: bool) -> list[Any]:
    return [*epochs.c] if inside else [*(column for column in epochs.c if column.name != "detail"), sa.null()]
