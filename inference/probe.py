"""Ask a running inference process how it is: ``python -m inference.probe healthz|readyz [--wait S]``.

For health checks and start order, where neither curl nor wget is at hand. Exit code 0 when it is well, else 1.
"""

import argparse
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

TIMEOUT_S = 3.0
PAUSE_S = 0.5
LONGEST_LINE = 300


def look(url: str, timeout_s: float = TIMEOUT_S) -> tuple[bool, str]:
    """Whether ``url`` answers 200, and what it says, on one line."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:  # noqa: S310 -- main requires http(s)
            return response.status == 200, _one_line(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return False, f"{error.code} {_one_line(error.read())}"
    except (OSError, ValueError) as error:
        return False, f"no answer from {url}: {getattr(error, 'reason', None) or error}"


def _one_line(body: bytes) -> str:
    return "; ".join(body.decode("utf-8", "replace").split("\n"))[:LONGEST_LINE]


def main(argv: Sequence[str] | None = None) -> int:
    """Look once, or until it is well or the time is up."""
    parser = argparse.ArgumentParser(prog="python -m inference.probe", description=__doc__)
    parser.add_argument("what", choices=("healthz", "readyz"))
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="keep asking for this long")
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
    (sys.stdout if well else sys.stderr).write(f"{arguments.what}: {words}\n")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
