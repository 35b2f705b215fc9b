"""Run one of our modules as a child that never outlives the process that started it.

Arguments: pid of the run or of the door, module, the module's own. ``core.process.commands`` recognises children by
the pid. A listening socket is passed on as systemd does (``core.process.listener.handed_over``).

The parent holds the other end of this process's standard input. When the parent is gone, even
killed, reading gives end of file and the module is asked to stop: no orphan keeps the port or the data folder.
"""

import os
import runpy
import signal
import sys
import threading
import time

from core.process.listener import pass_on

PATIENCE_S = 4.0


def _stop_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os._exit(1)


if __name__ == "__main__":
    # Signals are blocked in the watch: the module's own threads may wait for them (sigwait).
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    threading.Thread(target=_stop_with_parent, daemon=True, name="parent-watch").start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    pass_on()
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
