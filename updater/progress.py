"""How far a long task is: a bar on a terminal, a log line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LOG_EVERY_S = 5.0

Show = Callable[[int, int, str], None]
"""Called with how much is done, how much is wanted, and a note ("epoch 3 of 12, loss 0.71")."""

log = structlog.get_logger()


@contextmanager
def progress_of(task: str) -> Iterator[Show]:
    """Show one task's progress on stderr (a bar) if that is a terminal, else in the log.

    Args:
        task: its name: "sync", "train minute".
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _logged(task)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        bar_id = bar.add_task(task, total=None, note="")

        def show(done: int, wanted: int, note: str) -> None:
            bar.update(bar_id, completed=done, total=wanted, note=note)

        yield show


def _logged(task: str) -> Show:
    last_s = time.monotonic()

    def show(done: int, wanted: int, note: str) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= LOG_EVERY_S:
            last_s = time.monotonic()
            log.info("progress", task=task, done=done, wanted=wanted, note=note)

    return show


def show_cursor_again() -> None:
    """Undo what a bar that was cut off did to the terminal."""
    if sys.stderr.isatty():
        Console(stderr=True).show_cursor(show=True)
