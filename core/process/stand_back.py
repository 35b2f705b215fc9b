"""Let this process give way to inference."""

import contextlib
import os
from pathlib import Path

# At niceness 10 a process gets a tenth of a core that other processes keep busy: answers are not delayed, and a
# training still ends in time. At 19 or under SCHED_IDLE a training would not end in time.
NICENESS = 10


def stand_back(oom_score_adj: int) -> None:
    """Give inference precedence: for the processor, and when memory runs out (then this process is killed first).

    Args:
        oom_score_adj: up to 1000; of two processes the one with more is killed first.
    """
    os.nice(NICENESS)
    files = {"oom_score_adj": oom_score_adj}
    if os.getsid(0) == os.getpid():
        # Linux may share the processor among sessions instead of processes (man 7 sched, "The autogroup feature"). This
        # process leads its own session, so its niceness alone has no effect against inference in another session.
        files["autogroup"] = NICENESS
    for name, number in files.items():
        with contextlib.suppress(OSError):  # only Linux has these files
            Path("/proc/self", name).write_text(str(number))
