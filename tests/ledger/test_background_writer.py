"""Work in the background: in order, in batches, tried again, and finished before the end."""

import threading
import time
from collections.abc import Sequence
from itertools import pairwise

from ledger.background_writer import BackgroundWriter
from tests.fakes.clock import eventually


def test_everything_is_done_once_and_in_order() -> None:
    done: list[int] = []

    def take(batch: Sequence[int]) -> Sequence[int]:
        done.extend(batch)
        return ()

    writer = BackgroundWriter[int]("test-writer", take)
    assert all(writer.put(number) for number in range(5000))
    assert writer.close() == 0
    assert done == list(range(5000))


def test_what_fails_is_tried_again_before_what_came_later() -> None:
    done: list[int] = []
    refusals = iter([True, True])

    def take(batch: Sequence[int]) -> Sequence[int]:
        if next(refusals, False):
            return batch
        done.extend(batch)
        return ()

    writer = BackgroundWriter[int]("test-writer", take, retry_s=0.05)
    for number in range(10):
        writer.put(number)
    eventually(lambda: len(done) == 10, what="all work")
    writer.close()
    assert done == list(range(10))


def test_what_goes_on_failing_is_tried_ever_less_often() -> None:
    tried_s: list[float] = []

    def take(batch: Sequence[int]) -> Sequence[int]:
        tried_s.append(time.monotonic())
        return batch

    writer = BackgroundWriter[int]("test-writer", take, retry_s=0.05)
    writer.put(1)
    eventually(lambda: len(tried_s) == 5, what="five tries")
    writer.close()
    pauses_s = [later - earlier for earlier, later in pairwise(tried_s[:5])]
    assert all(pause_s >= least_s for pause_s, least_s in zip(pauses_s, (0.05, 0.1, 0.2, 0.4), strict=True))


def test_too_much_is_refused_and_never_waited_for() -> None:
    gate = threading.Event()

    def take(batch: Sequence[int]) -> Sequence[int]:
        gate.wait()
        return ()

    writer = BackgroundWriter[int]("test-writer", take, capacity=10)
    accepted = sum(writer.put(number) for number in range(1000))
    assert 10 <= accepted <= 20  # ten may wait while some are being done
    gate.set()
    assert writer.close() == 0


def test_a_fault_in_the_work_does_not_end_the_thread() -> None:
    done: list[int] = []

    def take(batch: Sequence[int]) -> Sequence[int]:
        if 1 in batch:
            raise RuntimeError("a fault")
        done.extend(batch)
        return ()

    writer = BackgroundWriter[int]("test-writer", take)
    writer.put(1)
    eventually(lambda: not writer.waiting, what="the fault")
    writer.put(2)
    writer.close()
    assert done == [2]
