"""Python as a process of its own, run to its end or killed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> "subprocess.CompletedProcess[str]":
    """Run ``python ARGUMENTS``; ``env`` is the whole environment, None this process's."""
    return subprocess.run(
        [sys.executable, *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def kill_writer(program: str, *arguments: str, moments: random.Random) -> None:
    """Run a Python program that writes without end, and kill it within 0.15 s after its line ``ready``."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "."},
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0.0, 0.15))  # the random moment itself, no condition is waited for
        writer.send_signal(signal.SIGKILL)
