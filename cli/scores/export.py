"""Write the scored rows to a CSV or Parquet file, some thousands at a time."""

import contextlib
import csv
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core.errors import ConfigError
from ledger.schema import scores

COLUMNS = tuple(column.name for column in scores.c)
Rows = Iterable[Sequence[Sequence[Any]]]  # parts of some thousand rows, in the order of COLUMNS
GROUP_ROWS = 100_000  # of a Parquet file, which a reader may take by themselves


def ending_of(path: Path) -> str:
    """The form of a file: ``.csv`` or ``.parquet``; raises ConfigError if it is another."""
    if path.suffix.lower() not in _WRITERS:
        raise ConfigError(f"--export {path}: a file of scores ends in {' or '.join(_WRITERS)}; give it such an ending")
    return path.suffix.lower()


def write_scores(path: Path, parts: Rows) -> None:
    """Write rows to a file in the form of its ending, beside it first: a reader never sees half of it.

    Args:
        parts: are taken one after the other, and none is kept.
    Raises:
        ConfigError: another ending. OSError: the file cannot be written; an older one stays.
    """
    write = _WRITERS[ending_of(path)]
    with _beside(path) as unfinished:
        write(unfinished, parts)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".tmp-{path.name}-", dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # not the name of the unfinished file
    os.close(descriptor)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(0o644)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _csv(path: Path, parts: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for rows in parts:
            writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value  # as Parquet's readers write it


def _parquet(path: Path, parts: Rows) -> None:
    import polars as pl  # noqa: PLC0415  (a third of a second)
    from polars.io.plugins import register_io_source  # noqa: PLC0415

    kinds = {sa.String: pl.String, sa.Float: pl.Float64, sa.Boolean: pl.Boolean}
    schema = pl.Schema({column.name: kinds.get(type(column.type), pl.Int64)() for column in scores.c})

    def frames(*_: object) -> Iterator[pl.DataFrame]:
        for rows in parts:
            yield pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")

    source = register_io_source(frames, schema=schema)
    source.sink_parquet(path, compression="zstd", row_group_size=GROUP_ROWS)


_WRITERS: Mapping[str, Callable[[Path, Rows], None]] = {".csv": _csv, ".parquet": _parquet}
