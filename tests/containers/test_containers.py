"""docker-compose.yml under a real engine: what an operator has after `docker compose up`, in the order of a life."""

import copy
import itertools
import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.containers.deployment import Deployment, docker
from tests.fakes.clock import eventually

pytestmark = pytest.mark.timeout(600)

OURS = ("inference", "updater", "monitor")
ONCE = ("ready", "migrate")  # they end
SERVICES = (*OURS, *ONCE, "node")
TWO_NETWORKS = "docker-compose.two-networks.yml"
MAINNET = {
    "chainId": "allora-mainnet-1",
    "nodeRpcs": ["https://allora-rpc.mainnet.allora.network"],
    "nodegRpcs": ["allora-grpc.mainnet.allora.network:443"],
}
ASKERS, KILLS = 4, 3
DOWN_S = 15.0  # wanted of `docker compose down`
USERS = {"inference": 10001, "updater": 10001, "monitor": 10001, "node": 1000}
BROKEN_OFF = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)  # before the head, or after the head
QUESTION = "/inference/ETH?topic=1&height={height}"


def submitted(node: Deployment, service: str = "node") -> list[dict[str, Any]]:
    """What the stand-in for the official node would have submitted."""
    return node.events(service, "would_submit")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00")


def test_the_services_start_in_order_and_are_well(node: Deployment) -> None:
    node.healthy("inference", "updater", "monitor")
    states = {service: node.inspect(service)["State"] for service in SERVICES}
    for service in ONCE:
        assert (states[service]["Status"], states[service]["ExitCode"]) == ("exited", 0)
    for service in ("inference", "updater"):
        assert moment(states["migrate"]["FinishedAt"]) <= moment(states[service]["StartedAt"])
    healthy = min(moment(entry["End"]) for entry in states["inference"]["Health"]["Log"] if entry["ExitCode"] == 0)
    assert healthy <= moment(states["ready"]["StartedAt"])
    assert moment(states["ready"]["FinishedAt"]) <= moment(states["node"]["StartedAt"])
    assert states["node"]["Status"] == "running"


def test_every_topic_is_answered_over_the_network_to_the_byte(node: Deployment) -> None:
    topics = {entry["topicId"] for entry in json.loads((node.folder / "config.json").read_text())["worker"]}
    eventually(lambda: {line["topic_id"] for line in submitted(node)} == topics, 60, "an answer to every topic")
    for line in submitted(node):
        path = line["url"].removeprefix("http://inference:8000")
        body = node.answer(path)
        assert body.decode() == line["body"] == line["value"]
        assert re.fullmatch(rb"-?[0-9]+(\.[0-9]+)?", body)


@pytest.mark.parametrize("service", USERS)
def test_a_container_is_confined(node: Deployment, service: str) -> None:
    status = dict(
        line.split(":\t", 1) for line in node.inside(service, "cat", "/proc/1/status").splitlines() if ":\t" in line
    )
    assert {*status["Uid"].split(), *status["Gid"].split()} == {str(USERS[service])}
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    for folder in ("/", "/app", "/venv", "/opt/birnn", "/etc", "/config"):
        with pytest.raises(AssertionError, match=r"Read-only file system|Permission denied|nonexistent"):
            node.inside(service, "touch", f"{folder}/written")
    container = node.inspect(service)
    assert {mount["Destination"] for mount in container["Mounts"] if mount["RW"]} == {"/data"}
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] == 512
    ports = [bound["HostIp"] for bindings in (host["PortBindings"] or {}).values() for bound in bindings]
    assert set(ports) <= {"127.0.0.1"}


def test_a_network_is_trained_and_used_within_the_limits_of_memory(node: Deployment) -> None:
    heights = itertools.count(70_000_000)

    def served() -> bool:
        return node.get(QUESTION.format(height=next(heights))).headers["X-Model-Version"].startswith("minute-")

    eventually(served, 300, "an answer of a trained network")
    for service in OURS:
        container = node.inspect(service)
        assert not container["State"]["OOMKilled"]
        assert container["RestartCount"] == 0
        assert highest_memory(node, service) < container["HostConfig"]["Memory"]


def highest_memory(node: Deployment, service: str) -> int:
    """The most memory that a container has used, in bytes, the system's cache of files included."""
    v2, v1 = "/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory/memory.max_usage_in_bytes"
    return int(node.inside(service, "sh", "-c", f"cat {v2} 2>/dev/null || cat {v1}"))


def test_a_killed_inference_loses_no_question(node: Deployment) -> None:
    """Killed from the host, as the kernel does when memory is short; the door holds what comes meanwhile.

    Only a question that the killed process had already begun to answer is broken off, and gets an answer when repeated.
    """
    known = {height: node.answer(QUESTION.format(height=height)) for height in range(71_000_000, 71_000_010)}
    stopped, broken = threading.Event(), []

    def ask(first: int) -> set[int]:
        statuses = set()
        height = first
        while not stopped.is_set():
            try:
                statuses.add(node.get(QUESTION.format(height=height)).status_code)
            except BROKEN_OFF:
                broken.append(height)
                continue
            height += 1
        return statuses

    with ThreadPoolExecutor(ASKERS) as pool:
        askers = [pool.submit(ask, 72_000_000 + 100_000 * number) for number in range(ASKERS)]
        try:
            for _ in range(KILLS):
                killed = answering(node)
                assert killed
                os.kill(killed, signal.SIGKILL)
                eventually(lambda killed=killed: answering(node) not in {killed, None}, 30, "another process")  # type: ignore[misc]
                eventually(node.ready, 30, "an answer to every topic")
        finally:
            stopped.set()
        assert set().union(*(asker.result(timeout=60) for asker in askers)) == {200}
    assert len(broken) <= KILLS * ASKERS
    assert len(broken) == len(set(broken)), "a repeated question was broken off too"
    assert {height: node.answer(QUESTION.format(height=height)) for height in known} == known
    assert node.inspect("inference")["RestartCount"] == 0


def answering(node: Deployment) -> int | None:
    """The process behind the door, by the number that the host gives it."""
    lines = docker("top", node.inspect("inference")["Id"], "-eo", "pid,args").splitlines()[1:]
    found = [int(line.split()[0]) for line in lines if re.search(r"core.process.child \d+ inference$", line)]
    return found[0] if found else None


@pytest.mark.parametrize("service", OURS)
def test_the_engine_restarts_a_container_whose_first_process_is_killed(node: Deployment, service: str) -> None:
    before = node.answer(QUESTION.format(height=73_000_000))
    restarts = node.inspect(service)["RestartCount"]
    os.kill(node.inspect(service)["State"]["Pid"], signal.SIGKILL)
    eventually(lambda: node.inspect(service)["RestartCount"] == restarts + 1, 30, "a restart")
    node.healthy(service)
    eventually(node.ready, 60, "an answer to every topic")
    assert node.answer(QUESTION.format(height=73_000_000)) == before


@pytest.mark.parametrize("service", [*OURS, "node"])
def test_a_log_is_rotated(node: Deployment, service: str) -> None:
    """Twelve megabytes are written through the first process's output, as a program does that says too much."""
    container = node.inspect(service)
    assert container["HostConfig"]["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-size": "10m", "max-file": "5"},
    }
    log = Path(container["LogPath"])
    if not os.access(log.parent, os.R_OK):
        assert os.environ.get("CI") != "true", f"{log.parent} cannot be read, so that rotation was not seen"
        pytest.skip(f"{log.parent} is the engine's own, and cannot be read from here")
    writing = "import sys\nfor _ in range(12_000): sys.stdout.write('x' * 1000 + '\\n')"
    node.inside(service, "sh", "-c", f'python -c "{writing}" > /proc/1/fd/1')
    eventually(lambda: log.with_name(f"{log.name}.1").exists(), 60, "a second file")
    assert log.stat().st_size <= 10_000_000


def test_an_upgrade_of_the_images_keeps_the_data(node: Deployment) -> None:
    known = {height: node.answer(QUESTION.format(height=height)) for height in range(74_000_000, 74_000_010)}
    images = {service: node.inspect(service)["Image"] for service in OURS}
    with (node.folder / "core" / "__init__.py").open("a") as source:
        source.write("\n# another release\n")
    node.compose("up", "--detach", "--build")
    assert all(node.inspect(service)["Image"] != images[service] for service in OURS)
    node.healthy(*OURS)
    eventually(node.ready, 60, "an answer to every topic")
    assert {height: node.answer(QUESTION.format(height=height)) for height in known} == known
    assert node.get(QUESTION.format(height=74_000_011)).headers["X-Model-Version"].startswith("minute-")


def test_two_networks_have_two_nodes_and_one_inference(node: Deployment) -> None:
    """The second file of an operator's who adds a network to a node that runs."""
    first = json.loads((node.folder / "config.json").read_text())
    endpoint = first["worker"][0]["parameters"]["InferenceEndpoint"]
    second = copy.deepcopy(first)
    second["wallet"] |= MAINNET
    second["worker"] = [{**entry, "topicId": 1} for entry in second["worker"] if entry["topicId"] == 64]
    for config in (first, second):  # both have a topic 1
        config["worker"][0]["parameters"]["InferenceEndpoint"] = f"{endpoint}&network={config['wallet']['chainId']}"
    (node.folder / "config.json").write_text(json.dumps(first))
    (node.folder / "config.second.json").write_text(json.dumps(second))
    dotenv = node.folder / ".env"
    dotenv.write_text(dotenv.read_text().replace("docker-compose.yml", f"docker-compose.yml:{TWO_NETWORKS}"))
    node.compose("up", "--detach", "--no-build")
    node.healthy(*OURS)
    node.compose("restart", "node")
    for service, network in (("node", "allora-testnet-1"), ("node-second", "allora-mainnet-1")):
        eventually(lambda: any("&network=" in line["url"] for line in submitted(node, service)), 90, "topic 1")  # noqa: B023
        line = [line for line in submitted(node, service) if "&network=" in line["url"]][-1]
        assert (line["topic_id"], line["network"]) == (1, network)
        assert node.answer(line["url"].removeprefix("http://inference:8000")).decode() == line["body"]


def test_no_service_is_left_out(node: Deployment) -> None:
    """Those with a profile are of others' images, which no test here starts."""
    assert node.compose("config", "--profiles").split() == ["monitoring"]
    assert {*node.compose("config", "--services").split()} == {*SERVICES, "node-second", "exchange"}


def test_all_ends_within_the_time_that_an_operator_waits(node: Deployment) -> None:
    began = time.monotonic()
    node.compose("down")
    assert time.monotonic() - began < DOWN_S
    assert not docker("ps", "--all", "--quiet", "--filter", f"name={node.project}-").split()
    assert docker("volume", "ls", "--quiet", "--filter", f"name={node.project}_data").split(), "the data is gone"
