"""Which process listens on a port or holds a lock file, and whether it is about to end; as far as /proc tells.

A child of ``birnn run`` stands for the run: that is what a person can end.
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
READY = "BIRNN_READY"  # to a child: the descriptor of the pipe in which it says that it works
RUN = "BIRNN_RUN"  # set for the children of ``birnn run``, which has said what is unwise in the settings
ENDING = "birnn-ending"  # at most 15 bytes: the name of a run's process while it ends
_LISTENING = "0A"
_LONGEST_COMMAND = 80


def child_command(module: str, *arguments: str) -> list[str]:
    """The command of one of our modules, tied to this process's life."""
    return [sys.executable, "-m", CHILD, str(_run_of(sys.orig_argv) or os.getpid()), module, *arguments]


def say_ready() -> None:
    """Tell whoever started this process that it works; said once. After that its end is followed by a start at once."""
    if fd := os.environ.pop(READY, ""):
        with contextlib.suppress(OSError):  # who started it is gone
            os.write(int(fd), b"1")
        os.close(int(fd))


def can_tell() -> bool:
    """True if this machine has a /proc with sockets in it."""
    return (PROC / "net" / "tcp").exists()


def say_ending() -> None:
    """Let others know that this process is about to end: who starts in its place waits for it, and not for another."""
    with contextlib.suppress(OSError):  # Linux alone has it
        (PROC / "self" / "comm").write_text(ENDING)


def is_ending(pid: int) -> bool:
    """True if the process is gone, dead, or told to end."""
    try:
        return (PROC / str(pid) / "comm").read_text().strip() == ENDING or _status(pid, 0) in {"Z", "X"}
    except OSError:
        return can_tell()


def described(pid: int) -> str:
    """The process as a message names it.

    >>> described(2**31)
    'pid 2147483648'
    """
    with contextlib.suppress(OSError):
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").strip("\0").split("\0")
        return f"pid {pid} ({_shortened(words)})"
    return f"pid {pid}"


def listeners(address: str, port: int) -> list[int]:
    """Pids of those whose listening keeps others from listening on ``address``; of children of a run, the run's.

    Empty also where they are another user's, whose sockets this one may not see.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(ipaddress.ip_address(address), port)}
    found: set[int] = set()
    for folder in PROC.glob("[0-9]*/fd") if sockets else ():
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            if any(str(fd.readlink()) in sockets for fd in folder.iterdir()):
                found.add(_responsible(int(folder.parent.name)))
    return sorted(found)


def is_listened_on(address: str, port: int) -> bool:
    """True if some process, of any user, listens where that keeps others from listening on ``address``."""
    return any(True for _ in _listening_inodes(ipaddress.ip_address(address), port))


def try_lock(fd: int) -> bool:
    """Lock the open file, until this process ends at the latest, and write into it whose it is; False if it is held."""
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
    """Pid of who holds the lock file, None where it is not said, and the process as a message names it."""
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
    """Pid of the ``birnn run`` that started a process with these arguments; None if none did."""
    after = list(arguments[arguments.index(CHILD) + 1 :]) if CHILD in arguments else []
    return int(after[0]) if after and after[0].isdigit() else None


def _status(pid: int, field: int) -> str:
    """A field of /proc/PID/stat after the name, which may hold blanks and brackets."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[field]


def _shortened(words: Sequence[str]) -> str:
    """A command in one line, without the folders of its programs and files, not longer than a message can take."""
    short = " ".join(word.rpartition("/")[2] if word.startswith("/") else word for word in words)
    return " ".join(short.split())[:_LONGEST_COMMAND]
