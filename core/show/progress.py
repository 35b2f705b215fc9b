"""Progress of a long task: a bar on a terminal, a log line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from core.show.words import duration

LOG_EVERY_S = 5.0
ROOMY = 100  # columns of a terminal from which on the bar is shown beside the per cent

Show = Callable[[int, int, str], None]
"""Called with the steps done, the steps wanted, and a note ("epoch 3 of 12, loss 0.71")."""

log = structlog.get_logger()


@contextmanager
def progress_of(task: str, step: int = 1) -> Iterator[Show]:
    """Show a task's progress: on a terminal per cent and, with room, a bar on stderr; else in the log.

    Args:
        task: a name such as "sync" or "train minute".
        step: as for ``Pace``, which estimates the time left.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _logged(task)
        return
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        *([BarColumn()] if console.width >= ROOMY else []),
        TextColumn("{task.percentage:>3.0f} %", table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
    )
    pace = Pace(step=step)
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        bar_id = bar.add_task(task, total=None, note="", left="")

        def show(done: int, wanted: int, note: str) -> None:
            left_s = pace.left_s(done, wanted)
            left = "" if left_s is None else f"about {duration(left_s)} left"
            bar.update(bar_id, completed=done, total=wanted, note=note, left=left)

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
    """Estimates the time left of a task by the whole steps done and the time they took.

    Args:
        step: a size at which all parts of the task take about equally long.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, step: int = 1) -> None:
        self._clock = clock
        self._step = step
        self._first: tuple[int, float] | None = None  # steps done and seconds at the first call
        self._measured: tuple[int, float] | None = None  # whole steps done since, and the seconds they took

    def left_s(self, done: int, wanted: int) -> float | None:
        """Seconds until the end; None before a step is measured, and at the end.

        >>> moments = iter([10.0, 40.0, 70.0])
        >>> pace = Pace(lambda: next(moments))
        >>> pace.left_s(1, 31), pace.left_s(11, 31), pace.left_s(31, 31)
        (None, 60.0, None)
        """
        now_s = self._clock()
        if self._first is None:
            self._first = done, now_s
        first_done, first_s = self._first
        whole = (done - first_done) // self._step * self._step
        if whole > (self._measured[0] if self._measured else 0):
            self._measured = whole, now_s - first_s
        if self._measured is None or done >= wanted:
            return None
        measured, took_s = self._measured
        left_s = took_s / measured * (wanted - first_done) - (now_s - first_s)
        return max(left_s, took_s / measured * (wanted - first_done - measured - self._step), 0.0)


def show_cursor_again() -> None:
    """Show the cursor that a cut-off bar has left hidden."""
    if sys.stderr.isatty():
        Console(stderr=True).show_cursor(show=True)
