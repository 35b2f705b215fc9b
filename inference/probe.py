"""Ask a running inference process how it is: ``python -m inference.probe healthz|readyz [--wait S]``.

For health checks and start order in images without curl or wget. Exit code 0 if the process is well, else 1.
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

TIMEOUT_S = 3.0
PAUSE_S = 0.5
LONGEST_LINE = 300

# Without the environment's proxy: the process is on this machine or in this compose file.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def look(url: str, timeout_s: float = TIMEOUT_S) -> tuple[bool, str]:
    """Return whether ``url`` answers 200, and its body on one line."""
    try:
        with _open(url, timeout=timeout_s) as response:
            return response.status == 200, _one_line(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return False, f"{error.code} {_one_line(error.read())}"
    except (OSError, ValueError) as error:
        return False, f"no answer from {url}: {getattr(error, 'reason', None) or error}"


def _one_line(body: bytes) -> str:
    return "; ".join(body.decode("utf-8", "replace").split("\n"))[:LONGEST_LINE]


def some_ready(url: str) -> bool:
    """True if at least one topic can be answered."""
    try:
        with _open(f"{url}/topics", timeout=TIMEOUT_S) as response:
            return any(topic["ready"] for topic in json.load(response))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Ask once, or with ``--wait`` until the process is well or the time is up."""
    parser = argparse.ArgumentParser(prog="python -m inference.probe", description=__doc__)
    parser.add_argument("what", choices=("healthz", "readyz"))
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="keep asking for this long")
    parser.add_argument(
        "--or-some", action="store_true", help="when the time is up, one topic that can be answered is enough"
    )
    parser.add_argument("--url", default=f"http://127.0.0.1:{os.environ.get('PORT') or 8000}", help="of the process")
    arguments = parser.parse_args(argv)
    if not arguments.url.startswith(("http://", "https://")):
        parser.error(f"--url must begin with http:// or https://, was {arguments.url!r}")
    deadline = time.monotonic() + arguments.wait
    while True:
        well, words = look(f"{arguments.url.rstrip('/')}/{arguments.what}")
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
