"""Ask a running inference process how it is: ``python -m inference.probe healthz|readyz [--wait S]``.

For health checks and start order in images without curl or wget. Exit code 0 if the process is well, else 1.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from core.errors import ConfigError
from core.net.http_get import NoAnswer, http_get
from core.process.command_line import CommandLine

TIMEOUT_S = 3.0
PAUSE_S = 0.5
LONGEST_LINE = 300


def ask(url: str, timeout_s: float = TIMEOUT_S) -> tuple[bool, str]:
    """Return whether ``url`` answers 200, and its body on one line."""
    try:
        answer = http_get(url, timeout_s)
    except NoAnswer as error:
        return False, f"no answer from {url}: {error}"
    words = _one_line(answer.body)
    return answer.status == 200, words if answer.status == 200 else f"{answer.status} {words}"


def _one_line(body: bytes) -> str:
    return "; ".join(body.decode("utf-8", "replace").split("\n"))[:LONGEST_LINE]


def topics_of(url: str, timeout_s: float = TIMEOUT_S) -> list[dict[str, Any]]:
    """What ``/topics`` of the process at ``url`` says.

    Raises:
        NoAnswer: it does not answer, or not with topics.
    """
    answer = http_get(f"{url}/topics", timeout_s)
    if answer.status != 200:
        raise NoAnswer(f"status {answer.status}", _one_line(answer.body))
    try:
        topics: list[dict[str, Any]] = json.loads(answer.body)
    except ValueError as error:
        raise NoAnswer("not JSON", str(error)) from error
    return topics


def some_ready(url: str) -> bool:
    """True if at least one topic can be answered."""
    try:
        return any(topic["ready"] for topic in topics_of(url))
    except (NoAnswer, KeyError, TypeError):
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Ask once, or with ``--wait`` until the process is well or the time is up."""
    parser = CommandLine(prog="python -m inference.probe", description=__doc__)
    parser.add_argument("what", choices=("healthz", "readyz"))
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="keep asking for this long")
    parser.add_argument(
        "--or-some", action="store_true", help="when the time is up, one topic that can be answered is enough"
    )
    parser.add_argument("--url", default=f"http://127.0.0.1:{os.environ.get('PORT') or 8000}", help="of the process")
    try:
        arguments = parser.parse_args(argv)
        if not arguments.url.startswith(("http://", "https://")):
            parser.error(f"--url must begin with http:// or https://, was {arguments.url!r}")
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    deadline = time.monotonic() + arguments.wait
    while True:
        well, words = ask(f"{arguments.url.rstrip('/')}/{arguments.what}")
        left_s = deadline - time.monotonic()
        if well or left_s <= 0:
            break
        time.sleep(min(PAUSE_S, left_s))
    if not well and arguments.or_some and some_ready(arguments.url.rstrip("/")):
        # One delisted symbol must not keep all other topics from the network: its own answers are 503.
        well, words = True, f"not all, but some topics: {words}"
    (sys.stdout if well else sys.stderr).write(f"{arguments.what}: {words}\n")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
