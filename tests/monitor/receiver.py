"""A server on loopback: takes notifications of Apprise's json:// scheme, and serves pages of metrics."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """What has arrived, and how the next notifications are answered."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.received: list[dict[str, Any]] = []  # accepted
        self.attempts = 0
        self.status = 200
        self.holding: threading.Event | None = None  # answers wait for it
        self.page = ""  # of metrics

    @property
    def alarm_url(self) -> str:
        """For ALARM_URLS, with a secret in each place where a URL can have one."""
        return f"json://user:SECRET1@{self.address}/SECRET2/?-token=SECRET3"

    @property
    def metrics_url(self) -> str:
        """For NODE_METRICS_URLS."""
        return f"http://{self.address}/metrics"

    @property
    def text(self) -> str:
        """Title and body of everything that was accepted."""
        return "\n".join(f"{one['title']}\n{one['message']}" for one in self.received)

    def told(self, words: str) -> int:
        """How often the accepted notifications say this."""
        return self.text.count(words)


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """Run the server while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.attempts += 1
            if receiver.holding:
                receiver.holding.wait()
            if receiver.status == 200:
                receiver.received.append(content)
            self._answer(receiver.status, b"")

        def do_GET(self) -> None:
            self._answer(200 if receiver.page else 404, receiver.page.encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4")  # of metrics
            self.send_header("Content-Length", str(len(body)))
            with suppress(OSError):  # the sending process was killed
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class names it
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        receiver = Receiver(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield receiver
        finally:
            if receiver.holding:
                receiver.holding.set()
            server.shutdown()
            thread.join()
