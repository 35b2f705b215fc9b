"""Sends notifications through Apprise, each from a process of its own: ``python -m monitor.send``.

Apprise and its 150 plugins write URLs with tokens into logs and errors, take 40 MB and may hang. In a process that
writes nowhere, gets the URL by a pipe, answers with a word and is killed when its time is up, none of that matters.
"""

import json
import logging
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from pydantic import SecretStr

TIMEOUT_S = 30.0
NOT_UNDERSTOOD = "not understood"
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}(?=://)")


class Kind(StrEnum):
    """What a notification tells; many services show it as a colour. The values are Apprise's."""

    ALARM = "failure"
    OVER = "success"
    TEST = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A notification."""

    title: str
    body: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One entry of ALARM_URLS. Only position and scheme may be shown."""

    position: int  # from 1
    url: SecretStr

    @property
    def name(self) -> str:
        """The entry in messages.

        >>> Address(position=2, url=SecretStr("tgram://TOKEN/CHAT")).name
        'entry 2 of ALARM_URLS (tgram)'
        """
        scheme = SCHEME.match(self.url.get_secret_value())
        return f"entry {self.position} of ALARM_URLS ({scheme[0].lower() if scheme else 'without a scheme'})"


def addresses_of(alarm_urls: SecretStr) -> tuple[Address, ...]:
    """Read ALARM_URLS. A comma ends an entry only before another scheme, because a URL may contain commas.

    >>> [a.name for a in addresses_of(SecretStr("mailto://a:b@c?to=d,e, json://f"))]
    ['entry 1 of ALARM_URLS (mailto)', 'entry 2 of ALARM_URLS (json)']
    """
    parts = re.split(r",\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)", alarm_urls.get_secret_value())
    urls = [part.strip(" \t,") for part in parts]
    return tuple(Address(position=number, url=SecretStr(url)) for number, url in enumerate(filter(None, urls), 1))


class Delivery:
    """Hands one notification at a time to a sending process."""

    def __init__(self, address: Address, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def send(self, message: Message | None) -> str:
        """Send, and wait for the outcome.

        Args:
            message: None to check the address alone; nothing is sent then.
        Returns:
            why the notification was not accepted: NOT_UNDERSTOOD if the address is none of Apprise's; empty if it was.
        """
        asked = {"url": self.address.url.get_secret_value()}
        if message:
            asked |= {"title": message.title, "body": message.body, "kind": message.kind.value}
        environment = {name: value for name, value in os.environ.items() if name.upper() != "ALARM_URLS"}
        try:
            with self._lock:
                if self._ended:
                    return "the monitor ends"
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "monitor.send"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                )
            with self._process as process:
                try:
                    said, _ = process.communicate(json.dumps(asked).encode(), timeout=self._timeout_s)
                except subprocess.TimeoutExpired:
                    process.kill()
                    return f"no answer within {self._timeout_s:g} s"
                return said.decode(errors="replace").strip() if process.returncode == 0 else "the sending process broke"
        except OSError as error:  # such as no memory for another process
            return f"no process could be started: {error.strerror}"

    def end(self) -> None:
        """Give up the notification at hand, and send no other."""
        with self._lock:
            self._ended = True
            if self._process and self._process.poll() is None:
                with suppress(OSError):
                    self._process.kill()


class _Statuses(logging.Handler):
    """Finds the HTTP status in the lines that plugins log. The lines themselves may hold the URL."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found = ""

    def emit(self, record: logging.LogRecord) -> None:
        if status := re.search(r"\berror=(\d{3})\b", record.getMessage()):
            self.found = status[1]


def main() -> NoReturn:
    """Send what standard input describes; write why that failed, or an empty line."""
    asked = json.loads(sys.stdin.buffer.read())
    import apprise  # noqa: PLC0415 -- half a second and 40 MB, in this process alone

    logger, statuses = logging.getLogger("apprise"), _Statuses()
    logger.handlers, logger.propagate = [statuses], False
    # No path of plugins and no storage: nothing but what is installed is loaded, and nothing is written.
    asset = apprise.AppriseAsset(app_id="birnn-worker", storage_mode=apprise.PersistentStoreMode.MEMORY)
    service = apprise.Apprise.instantiate(asked["url"], asset=asset)
    if service is None:
        said = NOT_UNDERSTOOD
    elif "body" not in asked or service.notify(
        body=asked["body"], title=asked["title"], notify_type=apprise.NotifyType(asked["kind"]), body_format="text"
    ):
        said = ""
    else:
        said = f"status {statuses.found}" if statuses.found else "no connection, or the service refused"
    sys.stdout.write(f"{said}\n")
    sys.stdout.flush()
    os._exit(0)  # at once: between the service's word and ours a killed monitor forgets that the alarm was told


if __name__ == "__main__":
    main()
