"""How verbs show what they found: tables that fit the terminal, or one JSON document alone on standard output."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, TextIO

import typer
from rich.box import SIMPLE
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

UNBOUNDED = 180  # columns where there is no screen: in a file, in a pipe
INDENT = "    "  # of the rows that go on with a line
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ROOMY = 100  # columns from which on tables have wider gaps

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable: JSON and nothing else on standard output.")]


_answers: ContextVar[TextIO | None] = ContextVar("answers", default=None)  # standard output, while it is kept


@contextmanager
def json_alone() -> Iterator[None]:
    """Keep standard output for ``print_json``: all else goes to standard error, that of libraries and children too."""
    with ExitStack() as undo:
        stdout = undo.enter_context(_descriptor_kept()) if _is_descriptor_1(sys.stdout) else sys.stdout
        token = _answers.set(stdout)
        undo.callback(_answers.reset, token)
        undo.enter_context(redirect_stdout(sys.stderr))
        yield


@contextmanager
def _descriptor_kept() -> Iterator[TextIO]:
    """File descriptor 1 leads to standard error while the block runs; yields what still leads to standard output."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as kept:
        os.dup2(2, 1)
        try:
            yield kept
        finally:
            kept.flush()
            os.dup2(kept.fileno(), 1)


def _is_descriptor_1(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 1
    except (OSError, ValueError, AttributeError):  # a stream in memory, or none
        return False


def print_json(found: object) -> None:
    """Write what a verb with ``--json`` found to standard output, as one document."""
    stdout = _answers.get() or sys.stdout
    stdout.write(json.dumps(found, indent=1, allow_nan=False) + "\n")
    stdout.flush()


def screen() -> Console:
    """Standard output, as wide as the terminal; a file or a pipe has no width, and lines in it are not broken."""
    console = Console(highlight=False)
    seen = os.environ.get("COLUMNS") or any(os.isatty(fd) for fd in (0, 1, 2))
    return console if seen else Console(highlight=False, width=UNBOUNDED)


def folded(line: str, width: int) -> str:
    """A line in rows of at most ``width`` columns, broken between words; colours take no room, indented text stays.

    >>> folded("12:00:00 synced fetched=4 symbol=BTCUSDT", 27)
    '12:00:00 synced fetched=4\\n    symbol=BTCUSDT'
    """
    first, *words = line.split(" ")
    if not first:
        return line
    rows, used = [first], len(COLOUR.sub("", first))
    for word in words:
        length = len(COLOUR.sub("", word))
        if used + 1 + length > width and length:
            rows.append(f"{INDENT}{word}")
            used = len(INDENT) + length
        else:
            rows[-1] += f" {word}"
            used += 1 + length
    return "\n".join(rows)


def say(line: str, *, to: TextIO | None = None) -> None:
    """Print text for people; on a terminal each of its lines is broken between words.

    Args:
        to: standard output when not given.
    """
    stream = to or sys.stdout
    if stream.isatty():
        width = screen().width
        line = "\n".join(folded(one, width) for one in line.split("\n"))
    print(line, file=stream, flush=True)


def show_parts(parts: Iterable[RenderableType]) -> None:
    """Print what a verb found: text as ``say`` does, tables as wide as the screen."""
    console = screen()
    for part in parts:
        if isinstance(part, str):
            say(part)
        else:
            console.print(part)


@contextmanager
def asking(what: str) -> Iterator[Callable[[str], None]]:
    """Say on standard error that something takes a while, on a terminal for as long as it does.

    Yields:
        What is called with the name of each part that begins.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"{what} ...", file=sys.stderr, flush=True)
        yield lambda _: None
        return
    with console.status(f"{what} ...") as status:
        yield lambda part: status.update(f"{what}: {part} ...")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table."""

    heading: str
    least_width: int = 0  # of the screen, below which the column is left out
    wraps: bool = False  # True if its text is broken between words where it does not fit
    right: bool = False


def table_of(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], width: int, *, title: str = "") -> Table:
    """A table that fits a screen, if one of the columns that remain wraps.

    Args:
        rows: a cell for each column, also for those that are left out.
        width: of the screen.
    """
    table = Table(
        title=title or None,
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
        show_edge=width >= ROOMY,
        padding=(0, 1) if width >= ROOMY else (0, 1, 0, 0),
    )
    shown = [number for number, column in enumerate(columns) if width >= column.least_width]
    for column in (columns[number] for number in shown):
        table.add_column(
            column.heading, no_wrap=not column.wraps, overflow="fold", justify="right" if column.right else "left"
        )
    for row in rows:
        table.add_row(*(_text(row[number]) for number in shown))
    return table


def _text(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)
