"""Keeps the processes of ``birnn run`` running, and ends all of them together."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from cli.market import child_command

STOP_PATIENCE_S = 4.0  # of the five seconds in which everything must have ended
LONGEST_PAUSE_S = 30.0
HEALTHY_AFTER_S = 60.0
CONFIG_EXIT = 2


@dataclass(kw_only=True)
class Child:
    """One supervised process: started when ``may_start`` says so, restarted with back-off when it ends."""

    module: str
    arguments: tuple[str, ...] = ()
    may_start: Callable[[], bool] = lambda: True
    process: "subprocess.Popen[bytes] | None" = None
    started_s: float = 0.0
    ended_in_a_row: int = 0
    not_before_s: float = field(default=0.0)

    def start(self, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            child_command(self.module, *self.arguments),
            stdin=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C reaches only us; we tell the children
        )
        self.started_s = time.monotonic()


class Supervisor:
    """Runs children until a signal, a refused configuration, or the end of ``must_live``."""

    def __init__(
        self,
        children: list[Child],
        environment: Mapping[str, str],
        must_live: "subprocess.Popen[str] | None" = None,
    ) -> None:
        self.children = children
        self.environment = environment
        self.must_live = must_live
        self.stopping = threading.Event()
        self.log = structlog.get_logger()

    def run(self) -> int:
        """Returns the exit code: 0 after a signal, 2 when a child refused its configuration, else 1."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stopping.set())
        code = 0
        try:
            while not self.stopping.wait(0.2):
                if self.must_live is not None and self.must_live.poll() is not None:
                    self.log.error("the simulated exchange ended", exit_code=self.must_live.returncode)
                    code = 1
                    break
                refused = [child for child in self.children if self._tend(child)]
                if refused:
                    self.log.error("a process refused its configuration", process=refused[0].module)
                    code = CONFIG_EXIT
                    break
        finally:
            self._stop_all()
        return code

    def _tend(self, child: Child) -> bool:
        """Start or restart ``child`` when it is time; True when it refused its configuration."""
        now = time.monotonic()
        if child.process is None:
            if now >= child.not_before_s and child.may_start():
                child.start(self.environment)
            return False
        exit_code = child.process.poll()
        if exit_code is None:
            return False
        if exit_code == CONFIG_EXIT:
            return True
        lived_s = now - child.started_s
        child.ended_in_a_row = 1 if lived_s > HEALTHY_AFTER_S else child.ended_in_a_row + 1
        pause_s = min(LONGEST_PAUSE_S, 2.0 ** (child.ended_in_a_row - 1))
        self.log.warning("process ended; it is started again", process=child.module, exit_code=exit_code, in_s=pause_s)
        _close(child.process)
        child.process, child.not_before_s = None, now + pause_s
        return False

    def _stop_all(self) -> None:
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_PATIENCE_S
        for process in running:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.log.warning("process did not end in time; it is killed", pid=process.pid)
                process.kill()
                process.wait()
            _close(process)


def _close(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        process.stdin.close()
