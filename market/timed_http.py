"""Requests whose answers end: a read timeout alone ends none that drips, byte by byte, in its head or its body."""

import http.client
import io
import socket
import time
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

TIMEOUTS = 6  # an answer may take six read timeouts from its first byte to its last


class _TimedReader(io.RawIOBase):
    """What a socket receives, until the answer's time is over."""

    def __init__(self, sock: socket.socket) -> None:
        self._raw = sock.makefile("rb", buffering=0)
        patience_s = sock.gettimeout()
        self._deadline = float("inf") if patience_s is None else time.monotonic() + TIMEOUTS * patience_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self._deadline:
            raise TimeoutError("the answer has not ended in time")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedReader(sock))


class _TimedConnection(HTTPConnection):
    response_class = _TimedResponse


class _TimedSecureConnection(HTTPSConnection):
    response_class = _TimedResponse


class _TimedPool(HTTPConnectionPool):
    ConnectionCls = _TimedConnection


class _TimedSecurePool(HTTPSConnectionPool):
    ConnectionCls = _TimedSecureConnection


class TimedAdapter(HTTPAdapter):
    """For ``requests.Session.mount``: every answer has an end."""

    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        super().init_poolmanager(*args, **named)
        self.poolmanager.pool_classes_by_scheme = {"http": _TimedPool, "https": _TimedSecurePool}

    def proxy_manager_for(self, proxy: str, **named: Any) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **named)
        if not proxy.lower().startswith("socks"):  # those have pools of their own
            manager.pool_classes_by_scheme = {"http": _TimedPool, "https": _TimedSecurePool}
        return manager
