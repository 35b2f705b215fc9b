"""A node as an operator runs one: a copy of the tree, its .env and config.json, and docker compose."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from tests.fakes.clock import eventually
from tests.fakes.net import free_port

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
COMPOSE = [str(Path(sys.executable).parent / "docker-compose")]


class Deployment:
    """One compose project in a folder of its own.

    Args:
        folder: empty; becomes what an operator's checkout is.
        project: the project's name, which its images, containers, volumes and networks begin with.
        files: compose files, in the order in which they are merged.
        dotenv: what .env says beside what every test needs.
    """

    def __init__(self, folder: Path, project: str, files: list[str], dotenv: Mapping[str, str]) -> None:
        self.folder, self.project = folder, project
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        tracked = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 -- whichever there is
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip
        for name in filter(None, tracked.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        shutil.copy(folder / "config.example.json", folder / "config.json")
        keys = folder / "worker-data"
        keys.mkdir()
        os.chown(keys, 1000, 1000)
        settings = {
            "COMPOSE_FILE": ":".join(files),
            "COMPOSE_PROJECT_NAME": project,
            "PORT": str(port),
            "NODE_METRICS_PORT": str(free_port()),
            "MONITOR_PORT": str(free_port()),
            "SECOND_NODE_METRICS_PORT": str(free_port()),
            "NODE_IMAGE": f"{project}-stand-in-node",
            "TRAINING_DAYS": "12",
            "LOG_FORMAT": "json",
            **{name: os.environ[name] for name in ("PYTHON_IMAGE", "PYTHON_IMAGE_TAG", "TORCH_INDEX_URL")
               if name in os.environ},
            **dotenv,
        }  # fmt: skip
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def compose(self, *arguments: str, stdin: str = "", timeout_s: float = 600.0) -> str:
        """Run ``docker compose`` in the folder; its output."""
        return _run([*COMPOSE, *arguments], self.folder, stdin, timeout_s)

    def build(self) -> None:
        """Build every image, the stand-in for the node last, since it stands on the image of inference."""
        self.compose("build")
        docker(
            "build", "--quiet", "--tag", f"{self.project}-stand-in-node:v0.12.0",
            "--build-arg", f"INFERENCE_IMAGE={self.project}-inference", str(HERE / "node"),
        )  # fmt: skip

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine says of a service's container, running or not."""
        found = self.compose("ps", "--all", "--quiet", service).split()
        assert len(found) == 1, f"{service} has {len(found)} containers"
        return json.loads(docker("inspect", found[0]))[0]  # type: ignore[no-any-return]

    def inside(self, service: str, *command: str) -> str:
        """Run a command in a service's container; its output."""
        return self.compose("exec", "-T", service, *command)

    def events(self, service: str, event: str) -> list[dict[str, Any]]:
        """The lines of a service's log with this event."""
        lines = self.compose("logs", "--no-color", "--no-log-prefix", service).splitlines()
        return [line for text in lines if text.startswith("{") and (line := json.loads(text))["event"] == event]

    def get(self, url: str) -> requests.Response:
        """Ask at the port that is published on this machine."""
        return requests.get(self.url + url, timeout=30)

    def answer(self, url: str) -> bytes:
        """The body of an answer."""
        response = self.get(url)
        assert response.status_code == 200, f"{url}: {response.status_code} {response.text[:300]}"
        return response.content

    def ready(self) -> bool:
        """True if every topic can be answered."""
        try:
            return requests.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def healthy(self, *services: str, timeout_s: float = 120.0) -> None:
        """Wait until services are well by the checks of the compose file."""
        for service in services:
            eventually(
                lambda service=service: self.inspect(service)["State"]["Health"]["Status"] == "healthy",  # type: ignore[misc]
                timeout_s,
                f"the health of {service}",
            )


def docker(*arguments: str, timeout_s: float = 600.0) -> str:
    """Run ``docker``; its output."""
    return _run(["docker", *arguments], ROOT, "", timeout_s)


def _run(command: list[str], folder: Path, stdin: str, timeout_s: float) -> str:
    clean = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        command, cwd=folder, env=clean, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, (
        f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout
