"""The socket that the endpoint answers on."""

import errno
import socket
import time

from core.errors import ConfigError
from core.processes import can_tell, described, is_ending, is_listened_on, listeners

BACKLOG = 2048
LISTEN_PATIENCE_S = 6.0  # a run that is told to end, and the children of a killed one, end within five seconds
PAUSE_S = 0.1
UNSEEN_LOOKS = 3  # at a port that is taken by nobody who can be seen: one who ends just then is not seen either


def listen(host: str, port: int) -> socket.socket:
    """The socket to answer on. Who holds the port and is about to end is waited for.

    Raises:
        ConfigError: it cannot be had; names the process that has it.
    """
    deadline = time.monotonic() + LISTEN_PATIENCE_S
    unseen = 0
    while True:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
            return listener
        except (OSError, UnicodeError) as error:
            listener.close()
            if getattr(error, "errno", None) != errno.EADDRINUSE:
                raise ConfigError(
                    f"HOST={host} PORT={port}: cannot listen there: {getattr(error, 'strerror', None) or error}; "
                    "choose another PORT (1024 or more), or a HOST of this machine"
                ) from error
        holders = _holders(host, port)
        unseen += not holders
        ending = all(map(is_ending, holders)) if holders else not can_tell() or unseen < UNSEEN_LOOKS
        if not ending or time.monotonic() > deadline:
            by = " and ".join(map(described, holders)) or _unseen(host, port)
            raise ConfigError(
                f"HOST={host} PORT={port}: cannot listen there: {by} holds the port; end it, or choose another PORT"
            )
        time.sleep(PAUSE_S)


def url_of(listener: socket.socket) -> str:
    """Where this very socket is asked on this machine: by its number, for a name may lead to another's."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _holders(host: str, port: int) -> list[int]:
    return listeners(_address(host, port), port)


def _address(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.getaddrinfo(host or "0.0.0.0", port, family, socket.SOCK_STREAM)[0][4][0]  # noqa: S104
    return str(address).partition("%")[0]


def _unseen(host: str, port: int) -> str:
    """Who has the port, where no process can be named."""
    if not can_tell():
        return f"a process that sudo lsof -nP -iTCP:{port} -sTCP:LISTEN names,"
    if is_listened_on(_address(host, port), port):
        return f"a process that sudo ss -ltnp 'sport = :{port}' names,"
    return "a process that has bound it without listening, whose name this machine does not tell,"
