"""Find the process that listens on a port or holds a lock file, and whether it is about to end, by /proc.

For a child of ``birnn run`` the run is named: that is the process that a person can end.
"""

import contextlib
import fcntl
import ipaddress
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

PROC = Path("/proc")
CHILD = "core.process.child"  # the module that runs children; its first argument is the pid of the run, or of the door
READY = "BIRNN_READY"  # to a child: descriptor of the pipe in which it reports that it is ready
RUN = "BIRNN_RUN"  # set for children of ``birnn run``, which has shown the warnings
ENDING = "birnn-ending"  # at most 15 bytes: the name of a run's process while it ends
_LISTENING = "0A"
_LONGEST_COMMAND = 80


def child_command(module: str, *arguments: str) -> list[str]:
    """The command of one of our modules, tied to this process's life."""
    return [sys.executable, "-m", CHILD, str(_run_of(sys.orig_argv) or os.getpid()), module, *arguments]


def say_ready() -> None:
    """Report to the parent, once, that this process is ready. The parent then restarts it at once when it ends."""
    if fd := os.environ.pop(READY, ""):
        with contextlib.suppress(OSError):  # the parent is gone
            os.write(int(fd), b"1")
        os.close(int(fd))


def can_tell() -> bool:
    """True if this machine has a /proc with sockets in it."""
    return (PROC / "net" / "tcp").exists()


def say_ending() -> None:
    """Mark this process as about to end: a successor waits for it."""
    with contextlib.suppress(OSError):  # Linux alone has it
        (PROC / "self" / "comm").write_text(ENDING)


def is_ending(pid: int) -> bool:
    """True if the process is gone, dead, or told to end."""
    try:
        return (PROC / str(pid) / "comm").read_text().strip() == ENDING or _status(pid, 0) in {"Z", "X"}
    except OSError:
        return can_tell()


def described(pid: int) -> str:
    """The name of a process in a message.

    >>> described(2**31)
    'pid 2147483648'
    """
    with contextlib.suppress(OSError):
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").strip("\0").split("\0")
        return f"pid {pid} ({_shortened(words)})"
    return f"pid {pid}"


def listeners(address: str, port: int) -> list[int]:
    """Pids of the processes that keep the port on ``address`` busy; for a child of a run, the run's.

    Empty too if the processes belong to another user, whose sockets are hidden.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(ipaddress.ip_address(address), port)}
    found: set[int] = set()
    for folder in PROC.glob("[0-9]*/fd") if sockets else ():
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            if any(str(fd.readlink()) in sockets for fd in folder.iterdir()):
                found.add(_responsible(int(folder.parent.name)))
    return sorted(found)


def is_listened_on(address: str, port: int) -> bool:
    """True if a process of any user keeps the port on ``address`` busy."""
    return any(True for _ in _listening_inodes(ipaddress.ip_address(address), port))


def try_lock(fd: int) -> bool:
    """Lock the open file for this process and write its name into it; False if the file is locked."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    run = _run_of(sys.orig_argv)
    holder = f"{run or os.getpid()} {'birnn run' if run else _shortened(sys.orig_argv)}"
    with contextlib.suppress(OSError):  # a full disk: the lock is held all the same
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder.encode(errors="replace"), 0)
    return True


def lock_holder(fd: int) -> tuple[int | None, str]:
    """Pid of the lock's holder, None if not known, and the holder's name in a message."""
    pid, _, command = os.pread(fd, 1000, 0).decode(errors="replace").partition(" ")
    if not (pid.isascii() and pid.isdigit()):
        return None, "another process"
    return int(pid), f"pid {pid} ({command})"


def _listening_inodes(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                host, _, its_port = local.partition(":")
                other = _address(host)
                overlap = other.is_unspecified or address.is_unspecified or other == address
                if state == _LISTENING and int(its_port, 16) == port and overlap:
                    yield rest[5]


def _address(words: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address of /proc/net/tcp: words of 32 bits, each in the machine's own order of bytes."""
    parts = (int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    found = ipaddress.ip_address(b"".join(parts))
    return getattr(found, "ipv4_mapped", None) or found


def _responsible(pid: int) -> int:
    return _run_of((PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")) or pid


def _run_of(arguments: Sequence[str]) -> int | None:
    """Pid of the ``birnn run`` that started a process with these arguments, or None."""
    after = list(arguments[arguments.index(CHILD) + 1 :]) if CHILD in arguments else []
    return int(after[0]) if after and after[0].isdigit() else None


def _status(pid: int, field: int) -> str:
    """A field of /proc/PID/stat after the name, which may hold blanks and brackets."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[field]


def _shortened(words: Sequence[str]) -> str:
    """A command in one short line, without folders."""
    short = " ".join(word.rpartition("/")[2] if word.startswith("/") else word for word in words)
    return " ".join(short.split())[:_LONGEST_COMMAND]
