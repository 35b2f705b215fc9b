"""A training in a process of its own, seen from the updater: started, watched, limited, and killed if need be.

Only the child writes the registry, in three steps of a rename each: champions demoted, a version's folder, champions
promoted. Only the parent writes the kline store. So a ``kill -9`` of either at any moment leaves the old state, or some
champions demoted, or a whole new version that is not champion yet, or the new champions: the next start can use each.
The child ends when the pipe on its stdin ends, that is when the parent ends in any way. The registry's lock, held for
the whole training, keeps the next updater's child waiting until then.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import structlog
from pydantic import JsonValue, TypeAdapter, ValidationError

from core.errors import ConfigError, TrainingFailed
from core.logs import readable
from core.topic import Topic
from model.registry.versions import Registry
from updater.state import Outcome, Record

TIME_LIMIT_S = 45 * 60.0  # a longer training is killed and counts as failed; usual are two to five minutes
# A second thread gains nothing on a small network, and spins while another process computes: then a batch takes 3 s
# instead of 0.2 s.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
ORPHAN_PATIENCE_S = 10.0
_POLL_S = 0.1

log = structlog.get_logger()


class Stopped(Exception):
    """The work was cut short because the updater is to end."""


def raise_if_stopped(stop: threading.Event) -> None:
    """Raise ``Stopped`` if the updater was asked to end."""
    if stop.is_set():
        raise Stopped


class Job(Record):
    """A training to do: the only line on the child's stdin."""

    data_dir: Path
    venues: tuple[str, ...]  # MARKET_VENUES, which decides a symbol's home where homes.json does not
    panel: str
    topics: tuple[Topic, ...]  # of this panel, whose symbols have klines
    start_ms: int  # klines before this are not trained on
    seed: int
    oldest_champion_ms: int  # a champion made before this may not answer any more, so it defends nothing
    simulated: bool  # True if the klines are the simulated exchange's, which each log line then says
    training_file: Path | None  # settings that differ from the defaults; None when there is no such file
    fallback: dict[str, JsonValue] | None  # settings if the file is wrong; None: the training fails then


class Step(Record):
    """Progress of a training."""

    done: int
    wanted: int
    note: str


MESSAGE: TypeAdapter[Step | Outcome] = TypeAdapter(Step | Outcome)
"""A line on the child's stdout; the last line is the outcome."""


@contextlib.contextmanager
def only_writer(registry: Registry, patience_s: float = ORPHAN_PATIENCE_S) -> Iterator[None]:
    """Hold the registry's lock for a whole training; give a killed updater's child time to end.

    Raises:
        ConfigError: another process still writes after ``patience_s``.
    """
    deadline = time.monotonic() + patience_s
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(registry.writing())
                break
            except ConfigError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)
        yield


def run_training(
    job: Job,
    *,
    stop: threading.Event,
    show: Callable[[int, int, str], None],
    time_limit_s: float = TIME_LIMIT_S,
) -> Outcome:
    """Train, judge and publish one panel in a child process, and wait for it.

    Args:
        stop: set to have the child killed.
        show: is called with the progress, from another thread.
    Raises:
        TrainingFailed: the child died or was killed, by the time limit or otherwise; says how.
        Stopped: ``stop`` was set.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "updater.training_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **ONE_THREAD},
        start_new_session=True,  # a process group to kill, and Ctrl-C at the terminal is ours alone to handle
    )
    outcomes: deque[Outcome] = deque(maxlen=1)
    errors: deque[str] = deque(maxlen=1)
    readers = [
        threading.Thread(target=_read_messages, args=(process.stdout, outcomes, show), daemon=True),
        threading.Thread(target=_forward, args=(process.stderr, errors), daemon=True),
    ]
    try:
        for reader in readers:
            reader.start()
        _send(process.stdin, job)
        _wait(process, stop, time_limit_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for reader in readers:
            reader.join(timeout=5.0)
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]  # all three are pipes
    if process.returncode or not outcomes:
        raise TrainingFailed(_how_it_ended(process.returncode, errors))
    return outcomes[0]


def _send(stdin: IO[bytes] | None, job: Job) -> None:
    """Send the job and leave the pipe open: its end tells the child that the parent has ended."""
    assert stdin is not None  # noqa: S101 - for mypy; it is a pipe
    with contextlib.suppress(BrokenPipeError):  # the child has died already; its exit status says more
        stdin.write(job.model_dump_json().encode() + b"\n")
        stdin.flush()


def _wait(process: subprocess.Popen[bytes], stop: threading.Event, time_limit_s: float) -> None:
    deadline = time.monotonic() + time_limit_s
    while process.poll() is None:
        if stop.wait(_POLL_S):
            raise Stopped
        if time.monotonic() > deadline:
            raise TrainingFailed(f"training was killed after its time limit of {time_limit_s:.0f} s")


def _read_messages(stdout: IO[bytes], outcomes: deque[Outcome], show: Callable[[int, int, str], None]) -> None:
    for line in stdout:
        try:
            message = MESSAGE.validate_json(line)
        except ValidationError:
            log.warning("child_said_nonsense", line=line[:200].decode(errors="replace"))
            continue
        if isinstance(message, Outcome):
            outcomes.append(message)
        else:
            show(message.done, message.wanted, message.note)


def _forward(stderr: IO[bytes], last: deque[str]) -> None:
    for line in stderr:
        text = line.decode(errors="replace")
        sys.stderr.write(readable(text.rstrip("\n")) + "\n")
        if text.strip():
            last.append(text.strip())


def _how_it_ended(returncode: int, errors: deque[str]) -> str:
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = "; out of memory?" if name == "SIGKILL" else ""
        return f"the training process was ended by {name}{hint}"
    last_error = f": {errors[0]}" if errors else ""
    return f"the training process ended with status {returncode} and no outcome{last_error}"
