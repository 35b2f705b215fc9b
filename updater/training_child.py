"""``python -m updater.training_child``: a training in a child process, started by ``updater.training_process``.

stdin: one line of JSON, a ``Job``; the end of stdin means that the parent has ended. stdout: lines of JSON, each a
``Step``, the last an ``Outcome``. stderr: anything else.
"""

import os
import sys
import threading
import time

from core.clock import SystemClock
from core.errors import WorkerError
from core.logs import configure_logging
from core.process.stand_back import stand_back
from model.registry.versions import Registry
from updater.state import Outcome, Record
from updater.training_process import Job, Step, only_writer

ORPHANED = 3  # exit status
STEP_EVERY_S = 1.0


def _end_with_the_parent() -> None:
    """Wait for the end of stdin, then exit. The training may stop anywhere, as the registry is written by renames."""
    os.read(0, 1)  # the parent never writes a second line
    os._exit(ORPHANED)


def _read_line(fd: int) -> bytes:
    """Read up to the first newline and no byte further; a buffered reader would also take the end of the pipe."""
    line = bytearray()
    while not line.endswith(b"\n") and (part := os.read(fd, 65536)):
        line += part
    return bytes(line)


def main() -> int:
    """Do the job that stdin names; return 0 once an outcome was sent, of a success or a failure."""
    out = os.fdopen(os.dup(1), "w", buffering=1)  # line-buffered
    os.dup2(2, 1)  # output of libraries must not come between our lines

    def send(message: Record) -> None:
        out.write(message.model_dump_json() + "\n")

    line = _read_line(0)
    if not line:
        return ORPHANED
    job = Job.model_validate_json(line)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    configure_logging("warning", service="updater", simulated=job.simulated)
    stand_back(1000)
    from updater.round import refresh_panel  # noqa: PLC0415 - importing takes seconds, in which the parent may die

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
