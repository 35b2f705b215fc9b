"""How verbs show what they found: tables that fit the terminal, or one JSON document alone on standard output."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNBOUNDED = 180  # columns where there is no screen: in a file, in a pipe
ROOMY = 100  # columns from which on tables have wider gaps

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable: JSON and nothing else on standard output.")]


class Print(Protocol):
    """Called once, with what the verb found."""

    def __call__(self, found: Any) -> None: ...


@contextmanager
def json_alone(wanted: bool = True) -> Iterator[Print]:
    """Keep standard output for one JSON document: what anything else of this process prints goes to standard error.

    Args:
        wanted: False changes nothing.
    Yields:
        What writes the document.
    """
    stdout = sys.stdout

    def write(found: Any) -> None:
        stdout.write(json.dumps(found, indent=1) + "\n")
        stdout.flush()

    with redirect_stdout(sys.stderr) if wanted else nullcontext():
        yield write


def screen() -> Console:
    """Standard output, as wide as the terminal; a file or a pipe has no width, and lines in it are not broken."""
    console = Console(highlight=False)
    seen = os.environ.get("COLUMNS") or any(os.isatty(fd) for fd in (0, 1, 2))
    return console if seen else Console(highlight=False, width=UNBOUNDED)


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
