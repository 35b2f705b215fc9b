"""What a terminal shows of a long task: which part, how far, and the time that is left by what was measured."""

import sys

import pytest

from core.show.progress import Pace
from tests.terminal import on_terminal

SHOWN = """
import time
from core.show.progress import progress_of
with progress_of("backtest", step=1000) as show:
    note = "3 of 14, minute 2024-03-20: epoch 3 of 12, loss 0.7123"
    show(0, 4000, note)
    time.sleep(0.1)
    show(1000, 4000, note)
    show(1500, 4000, note)
"""


def test_time_is_told_by_whole_steps_and_only_after_one_is_measured() -> None:
    moments = iter([0.0, 50.0, 100.0, 130.0, 190.0, 250.0])
    pace = Pace(lambda: next(moments), step=1000)
    assert [pace.left_s(done, 4000) for done in (0, 900)] == [None, None]
    assert [pace.left_s(done, 4000) for done in (1000, 1900, 1950)] == [300.0, 270.0, 210.0]
    assert pace.left_s(1990, 4000) == 200.0, "a step that takes longer does not use up the time of the later ones"


@pytest.mark.parametrize("columns", [80, 120])
def test_a_long_note_leaves_room_for_per_cent_and_time(columns: int) -> None:
    with on_terminal([sys.executable, "-c", SHOWN], columns) as (terminal, process):
        assert process.wait(60) == 0
    newest = [row for row in terminal.written.replace("\r", "\n").split("\n") if "38 %" in row]
    assert newest, terminal.written
    assert all("minute 2024-03-20: epoch 3 of 12" in row and "s left" in row and "about" in row for row in newest)
