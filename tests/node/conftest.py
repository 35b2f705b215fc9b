"""A config.json of a test, read."""

import json
from pathlib import Path

import pytest

from core.topic import Topic
from node.config_file import topics_from_config
from tests.node.config_files import Read


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a value as JSON, or bytes as they are, to config.json and read that."""

    def read(content: object) -> tuple[Topic, ...]:
        path = tmp_path / "config.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return topics_from_config(path)

    return read
