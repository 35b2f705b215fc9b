"""How far a long task is: a bar on a terminal, a log line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

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
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=len("0:00:00"))),  # or a long note cuts it
    )
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


class Pace:
    """How long a task will still take, by the steps that were done and the time they took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[int, float] | None = None  # steps done and seconds, when it was first asked

    def left_s(self, done: int, wanted: int) -> float | None:
        """Seconds until the last step; None before there are two moments to tell by, and after the last step.

        >>> moments = iter([10.0, 40.0, 70.0])
        >>> pace = Pace(lambda: next(moments))
        >>> pace.left_s(1, 31), pace.left_s(11, 31), pace.left_s(31, 31)
        (None, 60.0, None)
        """
        now_s = self._clock()
        if self._first is None:
            self._first = done, now_s
        first_done, first_s = self._first
        if done <= first_done or done >= wanted:
            return None
        return (now_s - first_s) / (done - first_done) * (wanted - done)


def show_cursor_again() -> None:
    """Undo what a bar that was cut off did to the terminal."""
    if sys.stderr.isatty():
        Console(stderr=True).show_cursor(show=True)
