"""One deployment, which every test of the containers looks at."""

import json
import os
from collections.abc import Iterator

import pytest

from tests.containers.deployment import Deployment
from tests.fakes.clock import eventually
from tests.updater.folder import SMALL

if "CONTAINER_PROJECT" not in os.environ:
    collect_ignore_glob = ["test_*.py"]  # scripts/test-containers runs them, and removes what they made


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The node of docker-compose.yml, with training settings of an operator's, until every topic has an answer."""
    project = os.environ["CONTAINER_PROJECT"]
    node = Deployment(
        tmp_path_factory.mktemp("node"), project, ["docker-compose.yml", "tests/containers/compose.yml"], {}
    )
    try:
        node.build()
        node.compose("run", "--rm", "--no-deps", "-T", "updater", "tee", "/data/training.json", stdin=json.dumps(SMALL))
        node.compose("up", "--detach", "--no-build")
        eventually(node.ready, 120, "an answer to every topic")
        yield node
    except BaseException:
        print(node.compose("ps", "--all"), node.compose("logs", "--tail", "30"))
        raise
