"""A network's ingredients for its manifest: candles, code, libraries, machine."""

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from klines.klines import COLUMNS, Klines
from model.registry.artefact import CandlesRead

PACKAGES = ("core/**/*.py", "klines/**/*.py", "model/**/*.py")  # the code that makes a network of klines
LIBRARIES = ("birnn-worker", "torch", "onnx", "onnxruntime", "safetensors", "numpy")


def candles_read(klines: Klines) -> CandlesRead:
    """Range, number and sha256 of some candles.

    The digest is of the bytes of ``interval_ms``, ``open_time_ms`` (int64) and each of ``COLUMNS`` (float64), in this
    order, little-endian.
    """
    digest = hashlib.sha256(np.array(klines.interval_ms, "<i8").tobytes())
    digest.update(klines.open_time_ms.astype("<i8").tobytes())
    for name in COLUMNS:
        digest.update(getattr(klines, name).astype("<f8").tobytes())
    return CandlesRead(
        first_open_ms=int(klines.open_time_ms[0]) if len(klines) else 0,
        last_open_ms=int(klines.open_time_ms[-1]) if len(klines) else 0,
        rows=len(klines),
        sha256=digest.hexdigest(),
    )


@cache  # a process runs the code that it loaded, however the files change afterwards
def source_sha256(*patterns: str) -> str:
    """sha256 of names and content of source files as they are installed: equal in a checkout and an image.

    Args:
        patterns: globs below the folder of the packages, such as ``model/**/*.py``; those of PACKAGES if left out.
    Raises:
        FileNotFoundError: a pattern matches no file: without it the digest would miss a part of the code.
    """
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for pattern in patterns or PACKAGES:
        files = sorted(root.glob(pattern))
        if not files:
            raise FileNotFoundError(f"no file in {root} matches {pattern!r}, which a digest of the source names")
        for file in files:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def libraries() -> dict[str, str]:
    """Versions by name, Python's among them."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def machine() -> str:
    """The properties of the machine that decide the last bits of a sum: ``Linux x86_64, AVX512``."""
    return f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
