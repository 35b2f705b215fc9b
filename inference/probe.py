"""Ask a running inference process how it is: ``python -m inference.probe healthz|readyz [--wait S]``.

For health checks and start order in images without curl or wget. Exit code 0 if the process is well, else 1; 2 if
``--contract`` was given and a topic on chain is not the topic that we train for.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from core.net.http_get import NoAnswer, http_get
from core.process.command_line import CommandLine

if TYPE_CHECKING:
    from truth.start_check import StartCheck

TIMEOUT_S = 3.0
PAUSE_S = 0.5  # between two requests of --wait
LONGEST_LINE = 300  # characters of a body that are shown


def ask(url: str, timeout_s: float = TIMEOUT_S) -> tuple[bool, str]:
    """Return whether ``url`` answers 200, and a line: the body, status and body, or why no answer came."""
    try:
        answer = http_get(url, timeout_s)
    except NoAnswer as error:
        return False, f"no answer from {url}: {error}"
    words = _one_line(answer.body)
    return answer.status == 200, words if answer.status == 200 else f"{answer.status} {words}"


def _one_line(body: bytes) -> str:
    return "; ".join(body.decode("utf-8", "replace").strip().split("\n"))[:LONGEST_LINE]


def topics_of(url: str, timeout_s: float = TIMEOUT_S) -> list[dict[str, Any]]:
    """Return the topics that inference at ``url`` lists on ``/topics``; the shape of the JSON is not checked.

    Raises:
        NoAnswer: inference does not answer, answers with a status other than 200, or sends no JSON.
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
    """Return whether inference at ``url`` lists a topic that is ready; False also if inference does not answer."""
    try:
        return any(topic["ready"] for topic in topics_of(url))
    except (NoAnswer, KeyError, TypeError):
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Ask once, or with ``--wait`` until the route answers 200 or the time is up."""
    parser = CommandLine(prog="python -m inference.probe", description=__doc__)
    parser.add_argument("route", choices=("healthz", "readyz"), help="the route to ask")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="keep asking for this long")
    parser.add_argument(
        "--or-some", action="store_true", help="when the time is up, end with 0 if at least one topic is ready"
    )
    parser.add_argument(
        "--contract",
        action="store_true",
        help="compare the config's topics with the chain meanwhile (LCD_URLS, at most 5 s); end with 2 if they differ",
    )
    parser.add_argument(
        "--url", default=f"http://127.0.0.1:{os.environ.get('PORT') or 8000}", help="address of inference"
    )
    try:
        arguments = parser.parse_args(argv)
        if not arguments.url.startswith(("http://", "https://")):
            parser.error(f"--url must begin with http:// or https://, was {arguments.url!r}")
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    deadline = time.monotonic() + arguments.wait
    contract = _contract() if arguments.contract else None
    while True:
        well, words = ask(f"{arguments.url.rstrip('/')}/{arguments.route}")
        left_s = deadline - time.monotonic()
        if contract and contract.is_over and contract.found().stops:
            break
        if well or left_s <= 0:
            break
        time.sleep(min(PAUSE_S, left_s))
    if not well and arguments.or_some and some_ready(arguments.url.rstrip("/")):
        # One delisted symbol must not keep the node from asking: topics of that symbol get 503, all others an answer.
        well, words = True, f"some topics are ready, but not all: {words}"
    found = contract.wait() if contract else None
    for line in (*found.warnings, *found.stops) if found else ():
        sys.stderr.write(f"contract: {line}\n")
    (sys.stdout if well else sys.stderr).write(f"{arguments.route}: {words}\n")
    return 2 if found and found.stops else 0 if well else 1


def _contract() -> "StartCheck | None":
    """Begin to ask the chain; None if the configuration is wrong, which inference has said."""
    # A health check must not wait for these.
    from core.clock import SystemClock  # noqa: PLC0415
    from core.settings import load_settings  # noqa: PLC0415
    from node.config_file import topics_from_config  # noqa: PLC0415
    from truth.start_check import StartCheck  # noqa: PLC0415

    try:
        settings = load_settings()
        topics = topics_from_config(*settings.config_files, node_version=settings.node_version)
    except ConfigError as error:
        sys.stderr.write(f"contract: not compared with the chain: {error}\n")
        return None
    return StartCheck(settings, topics, SystemClock())


if __name__ == "__main__":
    sys.exit(main())
