"""Hold a listening socket while the process that answers on it ends and is started again.

Meanwhile connections wait in the kernel's queue. If no process accepts them for too long, they are answered here with
503 and the reason, so that no node waits for ever.

Only the standard library and light parts of core are loaded, 16 MB, until there is something to log.
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

LEAST_PATIENCE_S = 5.0  # also if ANSWER_PATIENCE_S is shorter
STOP_S = 3.0  # for inference to end; ``birnn run`` gives the door half a second more
PROBE = b"GET /healthz HTTP/1.1\r\nHost: door\r\nConnection: close\r\n\r\n"


class Watch:
    """Answers the waiting connections in place of a process that accepts none.

    Under load the queue is never empty, so its length says nothing. Instead the door connects to its own socket as soon
    as a connection waits. Connections are accepted in order: while the door's own question has no answer, no later
    question has one either.

    Args:
        listener: whose queue is watched.
        child: the process that is to accept.
        patience_s: how long the door's question may wait before all waiting connections are answered here.
        market: BINANCE or SIMULATED, for the header of every response.
        logger: returns the logger; called only when there is something to log.
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
        """Check the queue, without waiting."""
        if self._probe is None:
            if select.select([self._listener], [], [], 0)[0]:
                self._probe = _Probe(self._listener)
        elif self._probe.answered():
            self._close_probe()
        elif self._probe.waited_s > self._patience_s:
            reason = self._reason()
            answered = self._answer_all(reason, self._probe.address)
            self._close_probe()
            self._logger().warning("door_answered", status=503, connections=answered, reason=reason)

    def _close_probe(self) -> None:
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

    def _answer_all(self, reason: str, own_address: object) -> int:
        """Answer at most BACKLOG waiting connections; return how many there were beside the door's own."""
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
            except OSError:  # the queue is empty, or inference was quicker
                break
            answered += address != own_address
            with connection, suppress(OSError):  # the client may be gone
                connection.setblocking(False)
                with suppress(BlockingIOError):  # closing with an unread question would be a reset
                    connection.recv(1 << 16)
                connection.send(response)
                connection.shutdown(socket.SHUT_WR)
        return answered


class _Probe:
    """The door's own question."""

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
        """True if the connection was accepted: there is an answer, or the connection has ended."""
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
    """Return the holder's command line: the settings that it needs."""
    return str(patience_s), log_level, log_format, market


def main(given_arguments: Sequence[str]) -> int:
    """Hold the socket that this process was started with; return the exit status of inference."""
    listener = handed_over()
    if listener is None:
        sys.stderr.write("door.holder gets the socket and the arguments from python -m door: start python -m door\n")
        return 2
    patience_s, level, form, market = given_arguments

    def logger() -> Any:
        import structlog  # noqa: PLC0415 -- 14 MB, needed only when something went wrong

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
