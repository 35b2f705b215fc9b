"""Holds a listening socket while the process that answers on it ends and is started again.

Connections meanwhile wait in the kernel's queue. A question that nobody has accepted for too long is answered here,
with 503 and the reason, so that no node waits for ever.

Only the standard library and core's light parts are loaded: 16 MB, until there is something to log.
"""

import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from core.clock import SystemClock, iso
from core.process.listener import BACKLOG, handed_over, local_address
from core.process.supervisor import Child, Supervisor

LEAST_PATIENCE_S = 5.0
STOP_S = 3.0  # for inference to end; ``birnn run`` gives the door half a second more
PROBE = b"GET /healthz HTTP/1.1\r\nHost: door\r\nConnection: close\r\n\r\n"


class Watch:
    """Answers in the place of a process that does not.

    That the queue is not empty says little: under load it never is. So when somebody waits, the door itself stands in
    line behind them: connections are accepted in the order in which they came, and while nobody has answered the
    door's own question, nobody's that came later has been answered.

    Args:
        listener: whose queue is watched.
        child: who is to accept.
        patience_s: how long the door's question may wait before all that wait are answered here.
        market: BINANCE or SIMULATED, which every response says.
        logger: gives what to log with, when something is to be said.
    """

    def __init__(
        self, listener: socket.socket, child: Child, patience_s: float, market: str, logger: Callable[[], Any]
    ) -> None:
        self._listener = listener
        self._child = child
        self._patience_s = patience_s
        self._market = market
        self._logger = logger
        self._probe: _Probe | None = None

    def poll(self) -> None:
        """One look at the queue; it never waits."""
        if self._probe is None:
            if select.select([self._listener], [], [], 0)[0]:
                self._probe = _Probe(self._listener)
        elif self._probe.answered():
            self._leave_line()
        elif self._probe.waited_s > self._patience_s:
            reason = self._reason()
            answered = self._answer_all(reason, self._probe.address)
            self._leave_line()
            self._logger().warning("door_answered", status=503, connections=answered, reason=reason)

    def _leave_line(self) -> None:
        if self._probe:
            self._probe.close()
        self._probe = None

    def _reason(self) -> str:
        process, now_ms = self._child.process, SystemClock().now_ms()
        since = iso(now_ms - round(1000 * (time.monotonic() - self._child.started_s)))
        state = f"it runs since {since} as pid {process.pid}" if process else "it is about to be started again"
        ended = self._child.exit_code
        before = "" if ended is None else f"; the process before ended with {_named(ended)}"
        return f"inference has accepted no connection for {self._patience_s:g} s: {state}{before}"

    def _answer_all(self, reason: str, own: object) -> int:
        """Answer what waits, and not for ever what comes meanwhile; how many those were beside the door's own."""
        body = f"{reason}\n".encode()
        head = (
            "HTTP/1.1 503 Service Unavailable",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            f"X-Market: {self._market}",
            "Connection: close",
        )
        response = "\r\n".join(head).encode() + b"\r\n\r\n" + body
        self._listener.setblocking(False)
        answered = 0
        for _ in range(BACKLOG):
            try:
                connection, address = self._listener.accept()
            except OSError:  # nobody is left, or the process that answers was quicker
                break
            answered += address != own
            with connection, suppress(OSError):  # who asked may be gone
                connection.setblocking(False)
                with suppress(BlockingIOError):  # unread, the question would make the end of the connection a reset
                    connection.recv(1 << 16)
                connection.send(response)
                connection.shutdown(socket.SHUT_WR)
        return answered


class _Probe:
    def __init__(self, listener: socket.socket) -> None:
        self._began_s = time.monotonic()
        self._asked = False
        self._socket = socket.socket(listener.family)
        self._socket.setblocking(False)
        self._socket.connect_ex(local_address(listener))

    @property
    def address(self) -> object:
        return self._socket.getsockname()

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self._began_s

    def answered(self) -> bool:
        """Whether somebody took it: an answer, or the end of a connection that was accepted."""
        try:
            if not self._asked:
                self._socket.send(PROBE)
                self._asked = True
            self._socket.recv(1)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        self._socket.close()


def arguments(patience_s: float, log_level: str, log_format: str, market: str) -> tuple[str, ...]:
    """What the holder is started with: what it needs of the settings, read already."""
    return str(patience_s), log_level, log_format, market


def main(given_arguments: Sequence[str]) -> int:
    """Hold the socket that this process was started with; the exit status of inference."""
    patience_s, level, form, market = given_arguments
    listener = handed_over()
    if listener is None:
        sys.stderr.write("door.holder is given its socket by python -m door: start that\n")
        return 2

    def logger() -> Any:
        import structlog  # noqa: PLC0415 -- 14 MB, which are needed when something went wrong and else never

        from core.logs import configure_logging  # noqa: PLC0415

        if not structlog.is_configured():
            configure_logging(level, service="door", simulated=market == "simulated", form=form)  # type: ignore[arg-type]
        return structlog.get_logger()

    inference = Child(module="inference", listener_fd=listener.fileno())
    watch = Watch(listener, inference, max(LEAST_PATIENCE_S, float(patience_s)), market.upper(), logger)
    with listener:
        code = Supervisor([inference], {}, logger, each_tick=watch.poll, patience_s=STOP_S).run()
    ended = inference.process.returncode if inference.process else 0
    return code or (ended if ended >= 0 else 128 - ended)


def _named(exit_code: int) -> str:
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"status {exit_code}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
