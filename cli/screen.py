"""Output of the verbs: tables that fit the terminal, or one JSON document alone on standard output."""

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

UNBOUNDED = 180  # columns, if the output is a file or a pipe
INDENT = "    "  # before the second and later rows of a broken line
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ROOMY = 100  # columns; on screens of this width or more, tables have wider gaps

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable: JSON and nothing else on standard output.")]


# The real standard output inside ``json_alone``.
_answers: ContextVar[TextIO | None] = ContextVar("answers", default=None)


@contextmanager
def json_alone() -> Iterator[None]:
    """Reserve standard output for ``print_json``; output of libraries and children goes to standard error."""
    with ExitStack() as undo:
        stdout = undo.enter_context(_descriptor_kept()) if _is_descriptor_1(sys.stdout) else sys.stdout
        token = _answers.set(stdout)
        undo.callback(_answers.reset, token)
        undo.enter_context(redirect_stdout(sys.stderr))
        yield


@contextmanager
def _descriptor_kept() -> Iterator[TextIO]:
    """Point file descriptor 1 at standard error while the block runs; yield the real standard output."""
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
    except (OSError, ValueError, AttributeError):  # a stream in memory, or no stream
        return False


def print_json(found: object) -> None:
    """Write the document of a verb with ``--json`` to standard output."""
    stdout = _answers.get() or sys.stdout
    stdout.write(json.dumps(found, indent=1, allow_nan=False) + "\n")
    stdout.flush()


def screen() -> Console:
    """A console on standard output, as wide as the terminal; lines in a file or a pipe are not broken."""
    console = Console(highlight=False)
    seen = os.environ.get("COLUMNS") or any(os.isatty(fd) for fd in (0, 1, 2))
    return console if seen else Console(highlight=False, width=UNBOUNDED)


def folded(line: str, width: int) -> str:
    """Break a line between words into rows of at most ``width`` columns; indented text stays.

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
    """Print text; on a terminal lines are broken between words.

    Args:
        to: the stream; standard output by default.
    """
    stream = to or sys.stdout
    if stream.isatty():
        width = screen().width
        line = "\n".join(folded(part, width) for part in line.split("\n"))
    print(line, file=stream, flush=True)


def show_parts(parts: Iterable[RenderableType]) -> None:
    """Print text as ``say`` does, and tables as wide as the screen."""
    console = screen()
    for part in parts:
        if isinstance(part, str):
            say(part)
        else:
            console.print(part)


@contextmanager
def asking(what: str) -> Iterator[Callable[[str], None]]:
    """Show a waiting message on standard error while the block runs.

    Yields:
        A function; call it with the name of each part when the part begins.
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
    least_width: int = 0  # the column is hidden on narrower screens
    wraps: bool = False  # True if text that does not fit is broken between words
    right: bool = False


def table_of(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], width: int, *, title: str = "") -> Table:
    """Return a table without the columns that a screen is too narrow for. It fits if a shown column wraps.

    Args:
        rows: a cell for each column, hidden columns included.
        width: of the screen, in columns.
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


def plain(text: str) -> str:
    """Text of another program on one line: what would move the cursor or colour the screen becomes a blank.

    >>> plain("to\\x1b[31mken\\n")
    'to [31mken '
    """
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _text(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)
