"""Watches what processes do by themselves: which hosts they turn to, and where they write.

Each process gets an empty HOME, a working directory and a temporary folder of its own, and a proxy in its environment
that notes whom it is asked for. Where strace is there, the connections and the files opened for writing are read from
the kernel as well; the snapshot of the folders alone would miss what is written elsewhere or removed again.
"""

import os
import re
import shutil
import socket
import socketserver
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
STRACE = shutil.which("strace")
CALLS = "connect,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,symlink,symlinkat,link,linkat"
# Of each call: the name, the arguments and what came back.
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>\S+)")
_INTERNET = re.compile(r'(?:sin_addr=inet_addr\(|sin6_addr=|inet_pton\(AF_INET6, )"(?P<address>[^"]+)"')
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<folder>[^>]*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_WRITES = re.compile(r"O_(?:WRONLY|RDWR|CREAT)")


class _Handler(socketserver.StreamRequestHandler):
    """One connection through the proxy."""

    def handle(self) -> None:
        proxy = self.server
        assert isinstance(proxy, _Proxy)
        method, _, target = self.rfile.readline().decode("latin-1").strip().partition(" ")
        url = target.split(" ")[0]
        host = urlsplit(url if "://" in url else f"//{url}").hostname or url
        with proxy.noting:
            proxy.asked.add(host)
        if host not in proxy.forwarded:
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with socket.create_connection(proxy.forwarded[host]) as behind:
            if method == "CONNECT":
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                parts = urlsplit(url)
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                # One request a connection: the next one on it might be for another host.
                behind.sendall(f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode())
            back = threading.Thread(target=_pass_on, args=(behind, self.connection), daemon=True)
            back.start()
            with suppress(OSError):
                while data := self.rfile.read1():
                    behind.sendall(data if method == "CONNECT" else _without_keep_alive(data))
            with suppress(OSError):
                behind.shutdown(socket.SHUT_WR)
            back.join()


def _without_keep_alive(head: bytes) -> bytes:
    return re.sub(rb"(?i)\r\n(?:proxy-)?connection: [^\r]*(?=\r\n)", b"", b"\r\n" + head)[2:]


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, forwarded: dict[str, tuple[str, int]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.forwarded = forwarded
        self.asked: set[str] = set()
        self.noting = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that was cut off is nothing to report."""


class Watch:
    """The folders, the proxy and the trace of one or more processes.

    Args:
        folder: an empty one; all of theirs lie in it.
        forwarded: the configured hosts by name, and where each of them really is; any other one is refused.
    """

    def __init__(self, folder: Path, forwarded: dict[str, tuple[str, int]] | None = None) -> None:
        self.home, self.working, self.temporary, self.data = (
            folder / name for name in ("home", "working", "temporary", "data")
        )
        for made in (self.home, self.working, self.temporary):
            made.mkdir()
        self._traces = folder / "traces"
        self._traces.mkdir()
        self._watched = 0
        self._proxy = _Proxy(forwarded or {})

    def __enter__(self) -> Self:
        threading.Thread(target=self._proxy.serve_forever, daemon=True, name="proxy").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._proxy.shutdown()
        self._proxy.server_close()

    def environment(self, **more: str) -> dict[str, str]:
        """What the processes get, and nothing of this one's but the path of programs."""
        url = f"http://127.0.0.1:{self._proxy.server_address[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY")
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "DATA_DIR": str(self.data),
            **dict.fromkeys(names, url),
            **{name.lower(): url for name in names},
            **more,
        }

    def command(self, *arguments: str) -> list[str]:
        """``python`` with these arguments, under strace where it is there."""
        python = [sys.executable, *arguments]
        if STRACE is None:
            return python
        self._watched += 1
        # A file of its own for each thread: in one for all, calls that take a while are cut in two.
        options = ["--follow-forks", "--output-separately", f"--output={self._traces / str(self._watched)}"]
        options += ["--seccomp-bpf", "--quiet=all", "--signal=none", "--decode-fds=path", "--string-limit=4096"]
        return [STRACE, *options, f"--trace={CALLS}", *python]

    def hosts(self) -> set[str]:
        """Whom the proxy was asked for, and every address outside this machine that was connected to."""
        with self._proxy.noting:
            asked = set(self._proxy.asked)
        for name, arguments, _ in self._calls():
            found = _INTERNET.search(arguments) if name == "connect" else None
            if found and not re.match(r"127\.|::1$|::ffff:127\.", found["address"]):
                asked.add(found["address"])
        return asked

    def files(self) -> set[str]:
        """What was written outside the data folder and the temporary one; Python's compiled files do not count."""
        left = {str(path) for folder in (self.home, self.working) for path in folder.rglob("*")}
        for name, arguments, result in self._calls():
            if name == "connect" or result == "-1" or ("open" in name and not _WRITES.search(arguments)):
                continue
            for found in _PATH.finditer(arguments):
                left.add(os.path.normpath(Path(found["folder"] or self.working, found["path"])))
        return {path for path in left if not self._is_expected(path)}

    def _is_expected(self, path: str) -> bool:
        ours = (*map(str, (self.data, self.temporary)), "/dev", "/proc")
        return path.startswith(tuple(f"{folder}/" for folder in ours)) or path in ours or "__pycache__" in path

    def _calls(self) -> Sequence[tuple[str, str, str]]:
        traces = (trace.read_text(errors="replace") for trace in self._traces.iterdir())
        lines = (line for trace in traces for line in trace.splitlines())
        found = (_CALL.match(line) for line in lines)
        return [(call["name"], call["arguments"], call["result"]) for call in found if call]
