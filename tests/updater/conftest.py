"""A data folder with a published version, made once for all of the updater's tests."""

import shutil
from pathlib import Path

import pytest

from tests.updater.folder import publish_in


@pytest.fixture(scope="session")
def published_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("published")
    publish_in(data_dir)
    return data_dir


@pytest.fixture
def published(published_once: Path, tmp_path: Path) -> Path:
    """A data folder of the test's own, with one version and its champions."""
    return Path(shutil.copytree(published_once, tmp_path / "data"))
