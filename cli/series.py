"""``birnn ready --series``: a CSV of forecasts and true values, judged by the network's criteria."""

import csv
import io
import math
import re
from pathlib import Path

import numpy as np

from admission.criteria import Record
from core.errors import ConfigError

COLUMNS = ("true", "pred", "gap")
HEADER = ",".join(COLUMNS)
LARGEST = 700.0  # log-return; exp of more overflows
LONGEST_GAP = 1_000_000  # epochs
SHOWN = 40  # characters of a cell in a message


def read_series(
    path: Path, *, horizon_min: int, ratio: int, submitted: int | None = None, expected: int | None = None
) -> Record:
    """The record that a CSV holds.

    Args:
        path: UTF-8, with the columns true, pred and gap in any order; blank lines are left out.
        submitted, expected: epochs; not given, the rows and the epochs from the first row to the last.
    Raises:
        ConfigError: names the file, the line, the column, the value and what to write instead.
    """
    rows = csv.reader(io.StringIO(_text(path), newline=None))
    places: dict[str, int] | None = None
    values: dict[str, list[float]] = {name: [] for name in COLUMNS}
    try:
        for cells in rows:
            if len(cells) < 2 and not "".join(cells).strip():
                continue
            where = f"{path} line {rows.line_num}"
            if places is None:
                places = _places(where, [cell.strip() for cell in cells])
                continue
            if len(cells) != len(COLUMNS):
                raise ConfigError(
                    f"{where}: has {len(cells)} cells, {_short(','.join(cells))}; give {len(COLUMNS)}, separated by "
                    "commas, with a point in decimals"
                )
            for name, place in places.items():
                number = _gap if name == "gap" else _log_return
                values[name].append(number(f"{where}, column {name}", cells[place].strip()))
    except csv.Error as error:
        raise ConfigError(f"{path} line {rows.line_num}: is not CSV ({error}); write {HEADER} in plain text") from error
    if places is None:
        raise ConfigError(f"{path}: is empty; its first line must be {HEADER}")
    if not values["gap"]:
        raise ConfigError(f"{path}: has no row below its header; give one for each submission, oldest first")
    gap = np.array(values["gap"], np.int64)
    return Record(
        truth=np.array(values["true"]),
        forecast=np.array(values["pred"]),
        gap=gap,
        horizon_min=horizon_min,
        ratio=ratio,
        submitted=len(gap) if submitted is None else submitted,
        expected=1 + int(gap[1:].sum()) if expected is None else expected,
    )


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give a CSV with the columns {HEADER}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; give a CSV with the columns {HEADER}") from None
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"} or b"\0" in content[:4]:
        raise ConfigError(f"{path}: is UTF-16 text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path} line {line}: byte {content[error.start]:#04x} is not UTF-8; save it as UTF-8"
        ) from None


def _places(where: str, names: list[str]) -> dict[str, int]:
    whole = ",".join(names)
    separator = next((sign for sign in ";\t|" if len(names) == 1 and sign in whole), None)
    if separator:
        raise ConfigError(
            f"{where}: cells are separated by {separator!r}; separate them by commas, with a point in decimals: "
            f"{HEADER}"
        )
    if all(re.fullmatch(r"[-+.\d]\S*|nan|inf", name) for name in names):
        raise ConfigError(f"{where}: is {_short(whole)} and no header; put the line {HEADER} before it")
    for name in names:
        if name not in COLUMNS:
            raise ConfigError(f"{where}: column {_short(name)} is not one of {HEADER}; take it out")
        if names.count(name) > 1:
            raise ConfigError(f"{where}: column {name} is there {names.count(name)} times; leave one")
    for name in COLUMNS:
        if name not in names:
            raise ConfigError(f"{where}: column {name} is missing, there are {whole}; add it: {HEADER}")
    return {name: names.index(name) for name in COLUMNS}


def _number(text: str) -> float | None:
    """A number as programs write it; None if the text is something else."""
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def _log_return(where: str, text: str) -> float:
    number = _number(text)
    if number is None:
        raise ConfigError(f"{where}: {_short(text)} is not a number; write one such as -0.0012, or nan without one")
    if math.isfinite(number) and abs(number) > LARGEST:
        raise ConfigError(f"{where}: {_short(text)} is no log-return; of a price give ln(price / price at the base)")
    return number


def _gap(where: str, text: str) -> int:
    number = _number(text)
    if number is None or not (1 <= number <= LONGEST_GAP and number == int(number)):
        raise ConfigError(
            f"{where}: {_short(text)} is not a whole number from 1 to {LONGEST_GAP:,}; write the epochs since the row "
            "before, 1 in the first"
        )
    return int(number)


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}...")
