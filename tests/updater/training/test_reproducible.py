"""Equal candles, seed and settings give equal bytes; the manifest says what went in, so that one can tell."""

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.clock import HOUR_MS
from klines.klines import COLUMNS, Klines
from model.panels import LEADER, MINUTE
from model.registry.artefact import Artefact
from model.registry.provenance import candles_read, source_sha256
from model.registry.versions import Registry
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines
from tests.updater.training.one_round import CONFIG, KLINES, PLAN

END_MS = KLINES[LEADER].end_ms
ROOT = Path(__file__).parents[3]


def made_by_a_process(folder: Path, created_ms: int, **environment: str) -> Artefact:
    command = [sys.executable, "-m", "tests.updater.training.one_round", str(folder), str(created_ms)]
    path = os.environ.get("PATH", "")
    subprocess.run(command, check=True, cwd=ROOT, env={"PATH": path, "PYTHONPATH": str(ROOT), **environment})
    (version,) = Registry(folder).versions()
    return Registry(folder).open(version)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artefact, Artefact]:
    """The same round twice, by processes that differ in whatever should not matter."""
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    first = made_by_a_process(one, END_MS, PYTHONHASHSEED="0", OMP_NUM_THREADS="1", TZ="UTC")
    busy = {"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    return first, made_by_a_process(other, END_MS + HOUR_MS, **busy)


def test_two_processes_make_the_same_bytes(made: tuple[Artefact, Artefact]) -> None:
    """Weights, network, calibration, scores and all else that the manifest says, but for the time and what names it."""
    first, second = made
    assert first.weights == second.weights
    assert first.onnx == second.onnx
    assert first.manifest == second.manifest.model_copy(update={"created_ms": first.manifest.created_ms})
    assert second.manifest.created_ms == END_MS + HOUR_MS


def test_the_manifest_says_what_went_in(made: tuple[Artefact, Artefact]) -> None:
    manifest, _ = (artefact.manifest for artefact in made)
    assert manifest.origin.klines == {symbol: candles_read(run) for symbol, run in KLINES.items()}
    read = manifest.origin.klines[LEADER]
    assert (read.first_open_ms, read.last_open_ms, read.rows) == (START_MS, END_MS - MINUTE.interval_ms, 3200)
    topics = manifest.origin.topics
    assert topics.keys() == {topic.key for topic in PLAN.topics}
    assert (
        topics["2"].items()
        >= {"symbol": "SOLUSDT", "horizon": "10m", "loss": "czar", "head": "return-10m-czar"}.items()
    )
    assert manifest.origin.source_sha256 == source_sha256()
    assert manifest.libraries["python"] == platform.python_version()
    assert manifest.libraries.keys() >= {"birnn-worker", "torch", "onnx", "numpy"}
    assert platform.machine() in manifest.origin.machine
    assert (manifest.seed, manifest.training["threads"]) == (3, CONFIG.threads)


def other_candles() -> dict[str, Klines]:
    """One run, changed in one thing."""
    run = random_walk_klines(50)
    changed: dict[str, Klines] = {}
    for name in COLUMNS:
        column: dict[str, Any] = {name: getattr(run, name).copy()}
        column[name][17] = np.nextafter(column[name][17], np.inf if name not in {"low"} else 0)
        changed[name] = replace(run, **column)
    changed["time"] = replace(run, open_time_ms=run.open_time_ms + run.interval_ms)
    changed["a row less"] = run.tail(49)
    changed["none"] = Klines.empty(run.interval_ms)
    changed["none of hours"] = Klines.empty(HOUR_MS)
    return changed


def test_a_digest_of_candles_tells_any_two_apart() -> None:
    run, others = random_walk_klines(50), other_candles()
    digests = [candles_read(one).sha256 for one in (run, *others.values())]
    assert len(set(digests)) == len(digests)
    assert candles_read(random_walk_klines(50)) == candles_read(run)
    none = candles_read(others["none"])
    assert (none.first_open_ms, none.last_open_ms, none.rows) == (0, 0, 0)
