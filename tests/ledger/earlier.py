"""Databases as earlier releases made them."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

FIRST = """
CREATE TABLE ledger_schema (version INTEGER NOT NULL PRIMARY KEY);
CREATE TABLE answers (
    network VARCHAR NOT NULL, topic_id BIGINT NOT NULL, height BIGINT NOT NULL, value VARCHAR NOT NULL,
    version VARCHAR NOT NULL, symbol VARCHAR NOT NULL, target VARCHAR NOT NULL, horizon_min INTEGER NOT NULL,
    anchor FLOAT NOT NULL, anchor_asof_ms BIGINT NOT NULL, asof_ms BIGINT NOT NULL, answered_ms BIGINT NOT NULL,
    market VARCHAR NOT NULL{more}, PRIMARY KEY (network, topic_id, height)
);
"""
# By schema: the columns that it added.
ADDED: Mapping[int, tuple[str, ...]] = {
    2: ("venue VARCHAR DEFAULT '' NOT NULL", "truth_ratio FLOAT DEFAULT '1' NOT NULL"),
    3: ("forecast VARCHAR DEFAULT '' NOT NULL",),
    4: (
        "asked_ms BIGINT DEFAULT '0' NOT NULL",
        "base_ms BIGINT DEFAULT '0' NOT NULL",
        "base_source VARCHAR DEFAULT 'asked' NOT NULL",
        "block_ms BIGINT",
        "elapsed_ms BIGINT DEFAULT '0' NOT NULL",
    ),
}
TIMES = (1700006399600, 1700006390000, 1700006400000)
PRICE = ("ETHUSDT", "price", 10, 2650.25, *TIMES, "BINANCE")
VOLATILITY = ("SOLUSDT", "volatility", 15, 55.0, *TIMES, "BINANCE")
# The columns of the first schema; MORE has those that later schemas wrote.
ROWS: tuple[tuple[object, ...], ...] = (
    ("allora-testnet-1", 1, 5, "2650.25", "persistence", *PRICE),
    ("", 1, 5, "0.1000", "hour-20261122T084500Z-1a2b3c", *PRICE),
    ("allora-testnet-1", 82, 6, "0.0004", "persistence", *VOLATILITY),
    ("allora-testnet-1", 82, 7, "0.0004", "minute-v", "SOLUSDT", "volatility rms", *VOLATILITY[2:]),
    ("", 9, 2**40, "3.1", "minute-v", *PRICE[:-1], "SIMULATED"),
)
MORE = {2: ("kraken", 1.0005), 3: ("kraken", 1.0005, "network"), 4: ("kraken", 1.0005, "network", 7, 8, "chain", 9, 1)}


def columns_of(schema: int) -> list[str]:
    """The columns that a schema added to the first."""
    return [column for version in range(2, schema + 1) for column in ADDED.get(version, ())]


def tables_of(schema: int) -> str:
    """The statements that made the tables."""
    return FIRST.format(more="".join(f", {column}" for column in columns_of(schema)))


def written_by(schema: int) -> list[tuple[object, ...]]:
    """ROWS as releases of this schema wrote them."""
    written = [(*row, *MORE.get(min(schema, 4), ())) for row in ROWS]
    if schema >= 3:  # which writes no "volatility"
        written = [tuple("volatility std" if value == "volatility" else value for value in row) for row in written]
    return written


def make_earlier(path: Path, schema: int, *, rows: int = 0) -> None:
    """Make a database of this schema with ROWS, and with ``rows`` more of one topic."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(tables_of(schema))
        connection.execute("INSERT INTO ledger_schema VALUES (?)", [schema])
        written = written_by(schema)
        more = MORE.get(min(schema, 4), ())
        written += [("big", 1, height, "2650.25", "persistence", *PRICE, *more) for height in range(rows)]
        marks = ", ".join("?" * len(written[0]))
        connection.executemany(f"INSERT INTO answers VALUES ({marks})", written)  # noqa: S608 -- question marks


def rows_of(path: Path) -> list[tuple[object, ...]]:
    """The answers of a database, by key."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM answers ORDER BY network, topic_id, height").fetchall()


def upgraded(rows: list[tuple[object, ...]], schema: int) -> list[tuple[object, ...]]:
    """The rows of a schema as an upgrade leaves them."""
    return [_upgraded(row, schema) for row in rows]


def _upgraded(row: tuple[object, ...], schema: int) -> tuple[object, ...]:
    version, target, answered_ms = row[4], row[6], row[11]
    if schema < 2:
        row += ("", 1.0)
    if schema < 3:
        row = (*row[:6], "volatility std" if target == "volatility" else target, *row[7:])
        row += ("naive" if version == "persistence" else "",)
    if schema < 4:
        row += (answered_ms, answered_ms, "asked", None, 0)
    return row
