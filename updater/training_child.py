"""``python -m updater.training_child``: a training in a process of its own, which ``updater.training_process`` starts.

stdin: a line of JSON, a ``Job``; the end of stdin means that the parent is gone. stdout: lines of JSON, ``Step`` and at
last an ``Outcome``. stderr: anything else.
"""

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

from core.clock import SystemClock
from core.errors import WorkerError
from core.logs import configure_logging
from model.registry.versions import Registry
from updater.state import Outcome, Record
from updater.training_process import Job, Step, only_writer

# A tenth of a core that other processes want fully: answers are not delayed, and a training of minutes still ends in
# time. At 19 or under SCHED_IDLE it would not.
NICENESS = 10
ORPHANED = 3  # exit status
STEP_EVERY_S = 1.0


def _end_with_the_parent() -> None:
    """Wait for the pipe's end, as the parent never writes a second line. The training may be cut off anywhere: the
    registry is written by renames."""
    os.read(0, 1)
    os._exit(ORPHANED)


def _stand_back() -> None:
    """Training can wait, an answer cannot; and if memory runs out, it is this process that goes."""
    os.nice(NICENESS)
    files = {"oom_score_adj": 1000}
    if os.getsid(0) == os.getpid():
        # Linux may weigh sessions and not processes against each other (man 7 sched, "The autogroup feature"), and this
        # is a session of its own: against inference, in another session, its niceness alone has no effect.
        files["autogroup"] = NICENESS
    for name, number in files.items():
        with contextlib.suppress(OSError):  # only Linux has these files
            Path("/proc/self", name).write_text(str(number))


def _read_line(fd: int) -> bytes:
    """Read up to the first newline and no byte further; a buffered reader would swallow the pipe's end."""
    line = bytearray()
    while not line.endswith(b"\n") and (part := os.read(fd, 65536)):
        line += part
    return bytes(line)


def main() -> int:
    """Do the job on stdin; exit status 0 with an outcome, good or bad."""
    out = os.fdopen(os.dup(1), "w", buffering=1)  # a line at a time
    os.dup2(2, 1)  # prints of libraries must not come between our lines

    def send(message: Record) -> None:
        out.write(message.model_dump_json() + "\n")

    line = _read_line(0)
    if not line:
        return ORPHANED
    job = Job.model_validate_json(line)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    configure_logging("warning", service="updater", simulated=job.simulated)
    _stand_back()
    from updater.round import refresh_panel  # noqa: PLC0415 - it takes seconds, during which the parent may die

    clock = SystemClock()
    started_ms = clock.now_ms()
    sent_s = 0.0

    def show(done: int, wanted: int, note: str) -> None:
        nonlocal sent_s
        if time.monotonic() - sent_s >= STEP_EVERY_S:
            sent_s = time.monotonic()
            send(Step(done=done, wanted=wanted, note=note))

    try:
        registry = Registry(job.data_dir)
        with only_writer(registry):
            outcome = refresh_panel(job, registry, clock, show)
    except (WorkerError, OSError, MemoryError) as error:
        now_ms = clock.now_ms()
        reason = f"{type(error).__name__}: {error}"
        outcome = Outcome(
            panel=job.panel, ok=False, reason=reason, finished_ms=now_ms, took_s=(now_ms - started_ms) / 1000
        )
    send(outcome)
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # an orderly end of torch takes seconds, and everything is on disk and sent
