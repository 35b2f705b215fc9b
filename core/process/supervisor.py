"""Keep processes running and end them together: the processes of ``birnn run``, or inference behind the door."""

import fcntl
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.backoff import backoff
from core.process.commands import READY, child_command, say_ending
from core.process.listener import HAND_OVER, HANDED

TICK_S = 0.1
STOP_PATIENCE_S = 3.5  # of the five seconds in which everything must have ended, this process too
LAST_PATIENCE_S = 0.5  # of those for the exchange, which ends after all who ask it
LONGEST_PAUSE_S = 30.0
HEALTHY_AFTER_S = 60.0
CONFIG_EXIT = 2


def pause_s(ends: int) -> float:
    """Seconds to wait after this many ends in a row.

    >>> [pause_s(ends) for ends in (1, 2, 3, 5, 6, 10_000)]
    [1.0, 2.0, 4.0, 16.0, 30.0, 30.0]
    """
    return backoff(ends, 1.0, LONGEST_PAUSE_S)


@dataclass(kw_only=True)
class Child:
    """A supervised process, started when ``may_start`` allows it and again when the process ends.

    A process that had reported ready is started again at once, any other after a growing pause.
    """

    module: str
    arguments: tuple[str, ...] = ()
    listener_fd: int | None = None  # of the listening socket that it gets (core.process.listener.handed_over)
    may_start: Callable[[], bool] | None = None
    process: "subprocess.Popen[Any] | None" = None
    starts: int = 0
    started_s: float = 0.0
    ended_in_a_row: int = 0
    not_before_s: float = 0.0
    exit_code: int | None = None  # of the last one that ended
    _ready_fd: int | None = None  # where it says that it is ready
    _asking: threading.Thread | None = None
    _answer: bool = False

    def cleared(self) -> bool:
        """True if the process may start. ``may_start`` runs in a thread, so that a hanging server delays nothing."""
        if self.may_start is None:
            return True
        if self._asking is None:
            self._answer = False
            self._asking = threading.Thread(target=self._ask, daemon=True, name=f"may-{self.module}-start")
            self._asking.start()
        elif not self._asking.is_alive():
            self._asking = None
        return self._asking is None and self._answer

    def _ask(self) -> None:
        self._answer = bool(self.may_start and self.may_start())

    def start(self, environment: Mapping[str, str]) -> None:
        self._ready_fd, said = os.pipe()
        os.set_blocking(self._ready_fd, False)
        its_end = fcntl.fcntl(said, fcntl.F_DUPFD_CLOEXEC, HANDED + 1)  # where no socket takes its place
        environment = {**os.environ, **environment, READY: str(its_end)}
        passed = [its_end]
        if self.listener_fd is not None:
            environment[HAND_OVER] = str(self.listener_fd)
            passed.append(self.listener_fd)
        try:
            self.process = subprocess.Popen(
                child_command(self.module, *self.arguments),
                stdin=subprocess.PIPE,
                env=environment,
                pass_fds=passed,
                start_new_session=True,  # Ctrl-C reaches only us; we tell the children
            )
        finally:
            os.close(said)
            os.close(its_end)
        self.starts += 1
        self.started_s = time.monotonic()

    def ended(self, exit_code: int) -> float:
        """Record the end of the process; return the seconds until the next start."""
        now_s, in_s = time.monotonic(), 0.0
        if self._was_ready():
            self.ended_in_a_row = 0
        else:
            healthy = now_s - self.started_s > HEALTHY_AFTER_S
            self.ended_in_a_row = 1 if healthy else self.ended_in_a_row + 1
            in_s = pause_s(self.ended_in_a_row)
        if self.process:
            _close(self.process)
        self.process, self.exit_code, self.not_before_s = None, exit_code, now_s + in_s
        return in_s

    def _was_ready(self) -> bool:
        fd, self._ready_fd = self._ready_fd, None
        if fd is None:
            return False
        try:
            return bool(os.read(fd, 1))
        except BlockingIOError:  # a process that it started holds the pipe
            return False
        finally:
            os.close(fd)


class Supervisor:
    """Runs children until a signal, or until a child refuses its configuration at the first start.

    Args:
        logger: makes the logger at the first event; the door does not load a log before.
        exchange: the simulated exchange, already running; it ends after the children, which ask it to the last.
        each_tick: called ten times a second.
        patience_s: how long the children have to end.
    """

    def __init__(
        self,
        children: list[Child],
        environment: Mapping[str, str],
        logger: Callable[[], Any],
        *,
        exchange: Child | None = None,
        each_tick: Callable[[], None] = lambda: None,
        patience_s: float = STOP_PATIENCE_S,
    ) -> None:
        self.children = children
        self.environment = environment
        self.exchange = exchange
        self._logger = logger
        self._each_tick = each_tick
        self._patience_s = patience_s

    def run(self) -> int:
        """Run; return the exit code, 0 after a signal, 2 if a child refused its configuration."""
        # A handler may interrupt any statement; putting into a SimpleQueue is safe there.
        signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _: signals.put(received))
        try:
            while not _came(signals):
                refused = [child for child in self._all() if self._tend(child)]
                if refused:
                    if len(self._all()) > 1:  # else it is clear which process has said the reason
                        self._logger().error("configuration_refused", process=refused[0].module)
                    return CONFIG_EXIT
                self._each_tick()
        finally:
            say_ending()
            self._stop_all()
        return 0

    def _all(self) -> list[Child]:
        return [*([self.exchange] if self.exchange else []), *self.children]

    def _tend(self, child: Child) -> bool:
        """Start or restart ``child`` when it is due; True if it refused its configuration at its first start.

        A later refusal counts as any other end: the file may be half edited or the port not free yet.
        """
        exit_code = child.process.poll() if child.process else None
        if child.process and exit_code is None:
            return False
        if exit_code == CONFIG_EXIT and child.starts == 1:
            return True
        in_s = None if exit_code is None else child.ended(exit_code)
        if time.monotonic() >= child.not_before_s and child.cleared():
            child.start(self.environment)
        if in_s is not None:  # logged after the start, which others wait for
            self._logger().warning("process_restarted", process=child.module, exit_code=exit_code, in_s=in_s)
        return False

    def _stop_all(self) -> None:
        children = [child.process for child in self.children if child.process is not None]
        exchange = [self.exchange.process] if self.exchange and self.exchange.process else []
        deadline_s = time.monotonic() + self._patience_s
        self._stop(children, deadline_s - LAST_PATIENCE_S)
        self._stop(exchange, deadline_s)
        for process in (*children, *exchange):
            _close(process)

    def _stop(self, running: "Sequence[subprocess.Popen[Any]]", deadline_s: float) -> None:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._logger().warning("process_killed", pid=process.pid)
                process.kill()
                process.wait()


def _came(signals: "queue.SimpleQueue[int]") -> bool:
    try:
        signals.get(timeout=TICK_S)
    except queue.Empty:
        return False
    return True


def _close(process: "subprocess.Popen[Any]") -> None:
    if process.stdin is not None:
        process.stdin.close()
