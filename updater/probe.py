"""Health check of the updater for containers, without any package, because it runs every few seconds.

``python -m updater.probe [--data-dir DIR] [--max-age S]`` exits 0 while the heartbeat in ``DATA_DIR/updater.json``
is fresh, else 1 with one line that says why. DATA_DIR is read from the environment alone, not from ``.env``.
"""

import json
import os
import sys
import time
from pathlib import Path

from core.errors import ConfigError
from core.process.command_line import CommandLine

MAX_AGE_S = 90.0  # the updater writes every 20 s
MAX_AHEAD_S = 60.0  # of a heartbeat written before the machine's clock was set back


def check(data_dir: Path, max_age_s: float, now_ms: int) -> str:
    """Why the updater does not look alive; empty if it does."""
    path = data_dir / "updater.json"
    try:
        heartbeat_ms = int(json.loads(path.read_bytes())["heartbeat_ms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{path} cannot be read: {error}; is the updater running with this DATA_DIR?"
    age_s = (now_ms - heartbeat_ms) / 1000
    if age_s > max_age_s:
        return f"{path}: the last heartbeat is {age_s:.0f} s old, allowed are {max_age_s:.0f} s; see the updater's log"
    if age_s < -MAX_AHEAD_S:
        return f"{path}: the last heartbeat lies {-age_s:.0f} s in the future; is the machine's clock right?"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Exit status for the container's health check."""
    parser = CommandLine(prog="python -m updater.probe", description="is the updater alive?")
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("DATA_DIR") or "data"))
    parser.add_argument("--max-age", type=float, default=MAX_AGE_S, metavar="S")
    try:
        options = parser.parse_args(arguments)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    reason = check(options.data_dir, options.max_age, time.time_ns() // 1_000_000)
    sys.stdout.write(f"{reason or 'alive'}\n")
    return 1 if reason else 0


if __name__ == "__main__":
    raise SystemExit(main())
