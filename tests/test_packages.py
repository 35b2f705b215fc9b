"""Packages: what is installed, checked and kept apart is all that the tree has."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from model.registry.provenance import source_sha256

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PYPROJECT["tool"]["importlinter"]["root_packages"]
PLANTED = {  # a forbidden import for each contract, in a module that has none like it
    "imports point down": ("core/clock.py", "import klines.klines"),
    "imports point down inside market": ("market/http/client.py", "import market.build"),
    "klines imports numpy and core alone": ("klines/activity.py", "import structlog"),
    "imports point down inside model": ("model/known.py", "import model.windows"),
    "imports point down inside inference": ("inference/base.py", "import inference.http.app"),
    "serving loads neither torch nor the kline store's polars": (
        "inference/question.py",
        "import market.store.kline_store",
    ),
    "torch is imported in model and research alone": ("updater/state.py", "import torch"),
    "fastapi is imported in inference and monitor alone": ("worker/dry_run.py", "import fastapi"),
    "onnxruntime is imported in model alone": ("inference/question.py", "import onnxruntime"),
    "matplotlib is imported in research alone": ("cli/status/report.py", "import matplotlib"),
    "alembic is imported in the ledger's migrations alone": ("ledger/answers.py", "import alembic"),
    "siblings do not import in a circle": ("node/spelling.py", "import node.config_file"),
}


def sources(folder: Path) -> set[str]:
    files = (file for package in PACKAGES for file in (folder / package).rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix() for file in files if "__pycache__" not in file.parts}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_tool_is_given_the_same_packages() -> None:
    tool = PYPROJECT["tool"]
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"} == set(PACKAGES)
    assert tool["mypy"]["files"] == [*PACKAGES, "tests", "benchmarks"]
    assert tool["pytest"]["ini_options"]["testpaths"] == [*PACKAGES, "tests"]
    assert tool["setuptools"]["packages"]["find"]["include"] == [f"{name}*" for name in PACKAGES]
    layers = (name for layer in tool["importlinter"]["contracts"][0]["layers"] for name in layer.split(" | "))
    assert sorted(layers) == sorted(PACKAGES)


def test_every_folder_of_a_package_says_what_it_is_for() -> None:
    folders = {(ROOT / file).parent for file in sources(ROOT) if file.endswith(".py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_wheel_has_every_file_of_the_tree(copied: Path) -> None:
    build = "from setuptools.build_meta import build_wheel; build_wheel('out')"
    subprocess.run([sys.executable, "-c", build], cwd=copied, check=True, capture_output=True, timeout=120)
    (wheel,) = (copied / "out").iterdir()
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == sources(ROOT)


def test_each_import_contract_fails_on_an_import_that_it_forbids(copied: Path) -> None:
    assert {contract["name"] for contract in PYPROJECT["tool"]["importlinter"]["contracts"]} == set(PLANTED)
    for path, line in PLANTED.values():
        with (copied / path).open("a") as file:
            file.write(f"\n{line}\n")
    lint = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    told = subprocess.run(lint, cwd=copied, check=False, capture_output=True, text=True, timeout=120).stdout
    assert set(re.findall(r"^(.+) BROKEN", told, re.MULTILINE)) == set(PLANTED)
    assert "No cycles are allowed in node." in told, "other planted imports are circles too, in other packages"


def test_a_digest_of_the_source_sees_every_folder_and_refuses_a_pattern_without_a_file() -> None:
    assert source_sha256("model/**/*.py") != source_sha256("model/*.py")
    with pytest.raises(FileNotFoundError, match=r"matches 'model/\*\.txt'"):
        source_sha256("model/*.txt")
