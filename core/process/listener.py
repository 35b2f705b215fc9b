"""The socket that the endpoint answers on: bound here, or handed over by the parent process."""

import errno
import os
import socket
import time

from core.errors import ConfigError
from core.process.commands import can_tell, described, is_ending, is_listened_on, listeners

BACKLOG = 2048
LISTEN_PATIENCE_S = 6.0  # an ending run, and the children of a killed run, end within five seconds
PAUSE_S = 0.1
HANDED = 3  # the file descriptor by which systemd hands over a socket
HAND_OVER = "BIRNN_LISTENER"  # variable for core.process.child: the socket's descriptor before it is at HANDED
UNSEEN_LOOKS = 3  # at a taken port without a visible holder: the holder may be ending


def listen(host: str, port: int, prefix: str = "") -> socket.socket:
    """Listen on a port; wait for a process that holds the port and is about to end.

    Args:
        prefix: of the names of the settings, in messages.
    Raises:
        ConfigError: the port cannot be had. The message names the process that holds it.
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
                    f"{prefix}HOST={host} {prefix}PORT={port}: cannot listen there: "
                    f"{getattr(error, 'strerror', None) or error}; "
                    f"choose another {prefix}PORT (1024 or more), or a {prefix}HOST of this machine"
                ) from error
        holders = _holders(host, port)
        unseen += not holders
        ending = all(map(is_ending, holders)) if holders else not can_tell() or unseen < UNSEEN_LOOKS
        if not ending or time.monotonic() > deadline:
            by = " and ".join(map(described, holders)) or _unseen(host, port)
            taken = f"{by} holds the port; end it, or choose another {prefix}PORT"
            if os.getpid() in holders:
                taken = f"{by}, this program itself, holds the port for another setting; choose another {prefix}PORT"
            raise ConfigError(f"{prefix}HOST={host} {prefix}PORT={port}: cannot listen there: {taken}")
        time.sleep(PAUSE_S)


def hand_over(listener_fd: int, pid: int) -> dict[str, str]:
    """Put the socket where process ``pid`` finds it after an exec; return the environment variables for that."""
    if listener_fd != HANDED:
        os.dup2(listener_fd, HANDED)
        os.close(listener_fd)
    os.set_inheritable(HANDED, True)
    return {"LISTEN_FDS": "1", "LISTEN_PID": str(pid)}


def pass_on() -> None:
    """Hand the socket of a child process over to the module that the child is about to run."""
    if fd := os.environ.pop(HAND_OVER, ""):
        os.environ |= hand_over(int(fd), os.getpid())


def handed_over() -> socket.socket | None:
    """Return the listening socket that this process was started with, in systemd's way; None if no socket was passed.

    Source: man 3 sd_listen_fds.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    if (pid, count) != (str(os.getpid()), "1"):
        return None
    os.set_inheritable(HANDED, False)
    return socket.socket(fileno=HANDED)


def local_address(listener: socket.socket) -> tuple[str, int]:
    """Return host and port of the socket on this machine, as numbers: a name may lead to another socket."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104


def url_of(listener: socket.socket) -> str:
    """Return the socket's URL on this machine."""
    host, port = local_address(listener)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _holders(host: str, port: int) -> list[int]:
    return listeners(_address(host, port), port)


def _address(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.getaddrinfo(host or "0.0.0.0", port, family, socket.SOCK_STREAM)[0][4][0]  # noqa: S104
    return str(address).partition("%")[0]


def _unseen(host: str, port: int) -> str:
    """Return who holds the port, if no process can be named."""
    if not can_tell():
        return f"a process that sudo lsof -nP -iTCP:{port} -sTCP:LISTEN names,"
    if is_listened_on(_address(host, port), port):
        return f"a process that sudo ss -ltnp 'sport = :{port}' names,"
    return "a process that has bound it without listening, whose name this machine does not tell,"
