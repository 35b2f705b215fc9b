"""What a network was made of, for its manifest: candles, code, libraries, machine."""

import hashlib
import platform
from importlib.metadata import version
from importlib.resources import files

import numpy as np
import torch

from market.klines import COLUMNS, Klines
from model.artefact import CandlesRead

PACKAGES = ("core", "market", "model")  # what makes a network of klines; the others only call it
LIBRARIES = ("birnn-worker", "torch", "onnx", "onnxruntime", "safetensors", "numpy")


def candles_read(klines: Klines) -> CandlesRead:
    """Range, number and sha256 of some candles.

    The digest is of the bytes of ``interval_ms``, ``open_time_ms`` (int64) and each of ``COLUMNS`` (float64), one
    after the other, little-endian.
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


def source_sha256() -> str:
    """sha256 of names and content of the code in PACKAGES as it is installed: equal in a checkout and an image."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for file in sorted(files(package).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                digest.update(f"{package}/{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def libraries() -> dict[str, str]:
    """Versions by name, Python's among them."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def machine() -> str:
    """What decides the last bits of a sum: ``Linux x86_64, AVX512``."""
    return f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
