"""The Docker files, the scripts and .env.example: linted, and held against the code that they start."""

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from core.env_file import DOCKER_NAMES
from core.settings import Settings
from tests.fakes.net import free_port

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
TWO_NETWORKS = ROOT / "docker-compose.two-networks.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = YAML(typ="safe").load(COMPOSE)["services"]
SECOND: dict[str, dict[str, Any]] = YAML(typ="safe").load(TWO_NETWORKS)["services"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

SETTINGS = {name.upper() for name in Settings.model_fields}
FIXED = {
    "MARKET": "binance",
    "CONFIG_FILE": "/config/config.json",
    "DATA_DIR": "/data",
    "HOST": "0.0.0.0",  # noqa: S104 -- inside the container; published on 127.0.0.1 alone
    "PORT": "8000",
    "MONITOR_HOST": "0.0.0.0",  # noqa: S104 -- likewise
    "MONITOR_PORT": "8080",
    "INFERENCE_URL": "http://inference:8000",
    "NODE_METRICS_URLS": "http://node:2112/metrics",
}
MONITORING = {"prometheus", "grafana"}  # the services of the profile
OURS = ("inference", "updater", "monitor")
HANDED = {"NODE_VERSION": "${NODE_IMAGE_TAG:-v0.12.0}"}  # under another name, with the default of the node's image


def env_example() -> dict[str, str]:
    """Names and values of .env.example, where ``#NAME=value`` is a default and ``# text`` a remark."""
    lines = re.findall(r"^#?([A-Z][A-Z_]*)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert len(lines) == len(dict(lines)), "a variable has two lines"
    return dict(lines)


def compose_variables() -> dict[str, str]:
    """Name and default of each ``${NAME:-default}`` in the compose files."""
    found = re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", COMPOSE.read_text() + TWO_NETWORKS.read_text())
    assert len({name for name, _ in found}) == len(set(found)), "a variable has two defaults"
    return dict(found)


def init_variables() -> dict[str, str]:
    """Name and default of each ``$(setting NAME default)`` in scripts/init."""
    found = re.findall(r"\$\(setting ([A-Z_]+) (\S+?)\)", (ROOT / "scripts" / "init").read_text())
    return {name: default.strip("'") for name, default in found}


def stage(name: str) -> str:
    """The lines of one stage of the Dockerfile."""
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found, f"the Dockerfile has no stage {name}"
    return found[1]


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in env_example()}
    return subprocess.run(
        command, cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=60, check=False
    )


# --- linters, from the folder of this interpreter -----------------------------------------------------------------


def lint(name: str, *arguments: str | Path) -> None:
    tool = Path(sys.executable).parent / name
    if not tool.exists() and platform.machine() != "x86_64":
        pytest.skip(f"{name} has no wheel for {platform.machine()}")
    assert tool.exists(), f"{name} is not beside {sys.executable}; scripts/setup dev installs it"
    done = run(tool, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_scripts_are_clean() -> None:
    lint("shellcheck", ROOT / ".ci" / "run", *sorted(path for path in (ROOT / "scripts").iterdir() if not path.suffix))


def test_the_dockerfile_is_clean() -> None:
    lint("hadolint", "--failure-threshold", "style", "Dockerfile")


def test_the_compose_files_fit_the_compose_specification() -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE, TWO_NETWORKS)


@pytest.fixture(scope="session")
def docker_compose() -> list[str]:
    """A compose client; it needs no engine to resolve a file."""
    for candidate in (str(Path(sys.executable).parent / "docker-compose"), shutil.which("docker-compose")):
        if candidate and Path(candidate).exists():
            return [candidate]
    docker = shutil.which("docker")
    if docker and run(docker, "compose", "version").returncode == 0:
        return [docker, "compose"]
    pytest.skip("needs a docker compose client, which is not here")


def resolve(client: list[str], folder: Path, dotenv: str = "", **environment: str) -> dict[str, Any]:
    """The compose files as docker compose understands them, in a folder of their own."""
    shutil.copy(COMPOSE, folder)
    shutil.copy(TWO_NETWORKS, folder)
    (folder / ".env").write_text(dotenv)
    done = run(*client, "config", "--format", "json", cwd=folder, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("dotenv", "environment"),
    [
        pytest.param("", {}, id="nothing set"),
        pytest.param("MARKET=simulated\n", {}, id="in .env"),
        pytest.param("", {"MARKET": "simulated"}, id="in the environment"),
    ],
)
def test_docker_compose_cannot_be_made_to_use_invented_prices(
    docker_compose: list[str], tmp_path: Path, dotenv: str, environment: dict[str, str]
) -> None:
    services = resolve(docker_compose, tmp_path, dotenv, **environment)
    for name in OURS:
        assert services[name]["environment"]["MARKET"] == "binance"
    assert "simulated" not in json.dumps(services).lower()


def test_docker_compose_hands_every_setting_over_as_written(docker_compose: list[str], tmp_path: Path) -> None:
    example = {name: value for name, value in env_example().items() if name in SETTINGS - FIXED.keys() - HANDED.keys()}
    dotenv = "".join(f"{name}={value}\n" for name, value in example.items())
    for name in (*OURS, "ready"):
        assert resolve(docker_compose, tmp_path, dotenv)[name]["environment"] == example | FIXED | {
            "NODE_VERSION": "v0.12.0"
        }


@pytest.mark.parametrize(
    ("dotenv", "image"),
    [
        pytest.param("", "alloranetwork/allora-offchain-node:v0.12.0", id="default"),
        pytest.param("NODE_IMAGE_TAG=v9", "alloranetwork/allora-offchain-node:v9", id="tag"),
        pytest.param(
            f"NODE_IMAGE_DIGEST=sha256:{'0' * 64}",
            f"alloranetwork/allora-offchain-node:v0.12.0@sha256:{'0' * 64}",
            id="digest",
        ),
        pytest.param("NODE_IMAGE=localhost:5000/node\nNODE_IMAGE_TAG=x", "localhost:5000/node:x", id="mirror"),
    ],
)
def test_the_nodes_image_is_configurable(docker_compose: list[str], tmp_path: Path, dotenv: str, image: str) -> None:
    assert resolve(docker_compose, tmp_path, dotenv)["node"]["image"] == image


def test_the_files_are_checked_for_the_version_of_the_image(docker_compose: list[str], tmp_path: Path) -> None:
    services = resolve(docker_compose, tmp_path, "NODE_IMAGE_TAG=v0.9.1\n")
    assert {services[name]["environment"]["NODE_VERSION"] for name in OURS} == {"v0.9.1"}


def test_a_second_network_gets_a_node_and_the_same_inference(docker_compose: list[str], tmp_path: Path) -> None:
    both = f"COMPOSE_FILE={COMPOSE.name}:{TWO_NETWORKS.name}\n"
    services = resolve(docker_compose, tmp_path, both + "SECOND_CONFIG_FILE=mainnet.json\n")
    for name in (*OURS, "ready"):
        files = services[name]["environment"]["CONFIG_FILE"].split(",")
        mounted = {mount["target"]: Path(mount["source"]).name for mount in services[name]["volumes"]}
        assert [mounted[file] for file in files] == ["config.json", "mainnet.json"]
        assert services[name]["environment"]["MARKET"] == "binance"
    first, second = services["node"], services["node-second"]
    sources = {mount["target"]: Path(mount["source"]).name for mount in second["volumes"]}
    assert sources == {"/config/config.json": "mainnet.json", "/data": "worker-data"}
    ports = [service["ports"][0].pop("published") for service in (first, second)]
    assert ports == ["2112", "2113"]
    del first["volumes"], second["volumes"]
    assert first == second


# --- the profile `monitoring` ----------------------------------------------------------------------------------------

BOTH = f"COMPOSE_FILE={COMPOSE.name}:{TWO_NETWORKS.name}\n"


@pytest.mark.parametrize("dotenv", ["", BOTH])
def test_without_the_profile_nothing_of_it_starts(docker_compose: list[str], tmp_path: Path, dotenv: str) -> None:
    without = resolve(docker_compose, tmp_path, dotenv)
    services = resolve(docker_compose, tmp_path, dotenv + "COMPOSE_PROFILES=monitoring\n")
    assert services.keys() - without.keys() == MONITORING
    assert {name: services[name] for name in without} == without


def test_the_services_of_the_profile_are_pinned_and_listen_here_alone(
    docker_compose: list[str], tmp_path: Path
) -> None:
    services = resolve(docker_compose, tmp_path, "COMPOSE_PROFILES=monitoring\n")
    for name, port in (("prometheus", 9090), ("grafana", 3000)):
        ports = services[name]["ports"]
        assert [(at["host_ip"], at["target"], at["published"]) for at in ports] == [("127.0.0.1", port, str(port))]
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", services[name]["image"])
    digests = "".join(f"{name.upper()}_IMAGE_DIGEST=sha256:{'0' * 64}\n" for name in MONITORING)
    services = resolve(docker_compose, tmp_path, digests + "COMPOSE_PROFILES=monitoring\n")
    assert all(services[name]["image"].endswith(f"@sha256:{'0' * 64}") for name in MONITORING)


def test_prometheus_sees_the_node_of_a_second_network(docker_compose: list[str], tmp_path: Path) -> None:
    services = resolve(docker_compose, tmp_path, BOTH + "COMPOSE_PROFILES=monitoring\n")
    mounted = {mount["target"]: Path(mount["source"]).name for mount in services["prometheus"]["volumes"]}
    assert mounted == {
        "/etc/prometheus": "prometheus",
        "/prometheus": "prometheus",
        "/etc/prometheus/nodes/second.yml": "second-node.yml",
    }


def test_grafana_lets_nobody_in_without_a_password_and_tells_nobody_of_itself(
    docker_compose: list[str], tmp_path: Path
) -> None:
    dotenv = "COMPOSE_PROFILES=monitoring\nGRAFANA_PASSWORD=correct horse\n"
    environment = resolve(docker_compose, tmp_path, dotenv)["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD"] == "correct horse"
    on = {name for name, value in environment.items() if value == "true"}
    assert on == {
        "GF_PLUGINS_PREINSTALL_DISABLED",
        "GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED",
        "GF_SECURITY_DISABLE_GRAVATAR",
    }
    off = {name for name, value in environment.items() if value == "false"}
    assert off >= {
        "GF_AUTH_ANONYMOUS_ENABLED",
        "GF_USERS_ALLOW_SIGN_UP",
        "GF_ANALYTICS_REPORTING_ENABLED",
        "GF_ANALYTICS_CHECK_FOR_UPDATES",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
        "GF_PLUGINS_PLUGIN_ADMIN_ENABLED",
    }


@pytest.mark.parametrize(("password", "status"), [("", 2), ("admin", 2), ("correct horse", 0)])
def test_grafana_starts_with_a_password_alone(password: str, status: int) -> None:
    shell, option, script = SERVICES["grafana"]["entrypoint"]
    script = script.replace("$$", "$").replace("exec /run.sh", "exec echo started")
    done = run(shell, option, script, GF_SECURITY_ADMIN_PASSWORD=password)
    assert (done.returncode, done.stdout) == (status, "" if status else "started\n")
    assert done.stderr.count("\n") == (1 if status else 0)
    assert not password or password not in done.stderr


# --- the compose file against the code -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OURS, "migrate", "ready"])
def test_our_services_get_every_setting_and_a_market_that_is_real(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert environment.keys() == SETTINGS
    assert {key: value for key, value in environment.items() if key in FIXED} == FIXED
    assert {key: value for key, value in environment.items() if key not in FIXED} == {
        key: f"${{{key}:-}}" for key in SETTINGS - FIXED.keys()
    } | HANDED
    assert "env_file" not in SERVICES[name]


def test_the_settings_of_the_compose_file_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no .env is
    for key in SETTINGS:  # what is handed through is empty unless .env says something
        monkeypatch.setenv(key, FIXED.get(key, ""))
    settings = Settings()
    assert (settings.market, settings.port, str(settings.data_dir)) == ("binance", 8000, "/data")
    assert settings.retrain_cron == Settings.model_fields["retrain_cron"].default


@pytest.mark.parametrize("name", [*SERVICES, "node-second"])
def test_every_service_is_confined(name: str) -> None:
    service = {**SECOND, **SERVICES}[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith(("0", "root"))
    assert service["logging"]["driver"] == "json-file"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["mem_limit"]
    assert "cpus" in service
    assert service["restart"] == ("no" if name in {"ready", "migrate"} else "unless-stopped")
    assert all(port.startswith("127.0.0.1:${") for port in service.get("ports", []))
    assert not service.keys() & {"container_name", "privileged", "cap_add", "network_mode", "env_file"}


def test_only_the_data_and_the_keys_can_be_written() -> None:
    writable = {
        (name, mount if isinstance(mount, str) else f"{mount['source']}:{mount['target']}")
        for name, service in SERVICES.items()
        for mount in service.get("volumes", [])
        if isinstance(mount, str) or not mount.get("read_only")
    }
    assert writable == {
        *((name, "data:/data") for name in (*OURS, "migrate")),
        ("node", "./worker-data:/data"),
        ("prometheus", "prometheus:/prometheus"),
        ("grafana", "grafana:/var/lib/grafana"),
    }
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            if not isinstance(mount, str):
                assert mount["bind"] == {"create_host_path": False}


def test_the_node_starts_when_every_topic_can_be_answered() -> None:
    assert SERVICES.keys() - MONITORING == {"inference", "ready", "migrate", "monitor", "updater", "node"}
    assert SERVICES["ready"]["depends_on"] == {"inference": {"condition": "service_healthy"}}
    assert SERVICES["ready"]["build"] == SERVICES["inference"]["build"]
    assert SERVICES["node"]["depends_on"] == {
        "inference": {"condition": "service_healthy"},
        "ready": {"condition": "service_completed_successfully"},
    }


@pytest.mark.parametrize("name", ["inference", "updater"])
def test_nothing_opens_the_ledger_before_its_schema_is_that_of_the_release(name: str) -> None:
    """Under systemd a ledger that cannot be upgraded keeps nothing from starting: inference says what is wrong."""
    assert SERVICES[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert SERVICES["migrate"]["build"] == SERVICES["updater"]["build"]
    unit = (ROOT / "deploy" / "systemd" / f"birnn-{name}.service").read_text()
    for key in ("Wants", "After"):
        assert re.search(rf"^{key}=.*\bbirnn-ledger\.service$", unit, re.MULTILINE)


def test_the_example_config_fits_the_containers() -> None:
    config = json.loads((ROOT / "config.example.json").read_text())
    node = SERVICES["node"]
    assert node["environment"]["ALLORA_OFFCHAIN_NODE_CONFIG_FILE_PATH"] == FIXED["CONFIG_FILE"]
    assert config["wallet"]["alloraHomeDir"] in {"", f"{node['environment']['HOME']}/.allorad"}
    assert config["wallet"]["addressRestoreMnemonic"] == ""
    for entry in config["worker"]:
        assert entry["parameters"]["InferenceEndpoint"].startswith(f"http://inference:{FIXED['PORT']}/inference/")


def commands() -> list[Any]:
    found = []
    for name, service in SERVICES.items():
        if name in MONITORING:
            continue
        for kind, command in (
            ("command", service.get("command")),
            ("healthcheck", service.get("healthcheck", {}).get("test", [])[1:]),
        ):
            if command:
                found.append(pytest.param(command, id=f"{name}-{kind}"))
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_a_module_of_ours(command: list[str]) -> None:
    assert command[:2] == ["python", "-m"]
    found = importlib.util.find_spec(command[2])
    assert found, f"there is no module {command[2]}"
    if found.submodule_search_locations:
        assert importlib.util.find_spec(f"{command[2]}.__main__"), f"{command[2]} cannot be run with -m"


@pytest.fixture
def well_server() -> Iterator[str]:
    """A server that answers 200 to everything, as inference does when it is well."""

    class Well(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class names it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Well) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_checks_of_inference_run_as_the_compose_file_writes_them(well_server: str) -> None:
    health = SERVICES["inference"]["healthcheck"]["test"][2:]
    ready = [well_server if part == "http://inference:8000" else part for part in SERVICES["ready"]["command"][1:]]
    assert well_server in ready
    port = well_server.rpartition(":")[2]
    # -S leaves out installed packages: a check that runs every few seconds costs no more than the standard library.
    done = run(sys.executable, "-S", *health, PORT=port)
    assert done.returncode == 0, done.stderr
    done = run(sys.executable, *ready)
    assert done.returncode == 0, done.stderr
    assert run(sys.executable, "-S", *health, PORT=str(free_port())).returncode == 1


def test_the_check_of_the_monitor_runs_as_the_compose_file_writes_it(well_server: str) -> None:
    check = SERVICES["monitor"]["healthcheck"]["test"][2:]
    here = [well_server if part == f"http://127.0.0.1:{FIXED['MONITOR_PORT']}" else part for part in check]
    assert well_server in here
    done = run(sys.executable, "-S", *here)
    assert done.returncode == 0, done.stderr


def test_the_monitor_runs_in_the_image_of_the_updater_and_asks_the_containers() -> None:
    assert SERVICES["monitor"]["build"] == SERVICES["updater"]["build"]
    assert FIXED["INFERENCE_URL"] == f"http://inference:{FIXED['PORT']}"
    both = SECOND["monitor"]["environment"]["NODE_METRICS_URLS"].split(",")
    assert both == [FIXED["NODE_METRICS_URLS"], "http://node-second:2112/metrics"]


def test_a_container_without_a_folder_for_temporary_files_can_run_our_modules() -> None:
    """As `ready`, whose file system is read-only. A program that fails there keeps the node from ever starting."""
    modules = "inference.probe, core, node.config_file, truth.start_check"
    done = run(sys.executable, "-c", f"import tempfile; del tempfile.gettempdir; import {modules}")
    assert done.returncode == 0, done.stderr


def test_the_check_of_the_updater_runs_as_the_compose_file_writes_it(tmp_path: Path) -> None:
    check = [sys.executable, "-S", *SERVICES["updater"]["healthcheck"]["test"][2:]]
    assert run(*check, DATA_DIR=str(tmp_path)).returncode == 1
    heartbeat = tmp_path / "updater.json"
    heartbeat.write_text(json.dumps({"heartbeat_ms": time.time_ns() // 1_000_000}))
    done = run(*check, DATA_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    heartbeat.write_text(json.dumps({"heartbeat_ms": 0}))
    assert run(*check, DATA_DIR=str(tmp_path)).returncode == 1


# --- .env.example ----------------------------------------------------------------------------------------------------


def test_env_example_has_every_setting_with_its_default() -> None:
    defaults = {
        name.upper(): str(getattr(field.default, "value", field.default))
        for name, field in Settings.model_fields.items()
    }
    example = env_example()
    assert {name: value for name, value in example.items() if name in defaults} == defaults


def test_env_example_is_read_back_as_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    without = Settings()
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in env_example().items()))
    assert Settings() == without


def test_env_example_has_every_variable_of_compose_and_init_with_its_default() -> None:
    used = {name: default for name, default in compose_variables().items() if name not in SETTINGS}
    used |= {name: default for name, default in init_variables().items() if name not in {*SETTINGS, *used}}
    example = env_example()
    digests = dict.fromkeys(("NODE_IMAGE_DIGEST", "PROMETHEUS_IMAGE_DIGEST", "GRAFANA_IMAGE_DIGEST"), "")
    assert {name: value for name, value in example.items() if name not in SETTINGS} == used | digests


def test_the_names_that_docker_alone_reads_pass_in_dotenv() -> None:
    read = {*re.findall(r"\$\{([A-Z_]+)[:}]", COMPOSE.read_text() + TWO_NETWORKS.read_text()), *init_variables()}
    assert read - SETTINGS == DOCKER_NAMES


# --- the Dockerfile --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["inference", "updater"])
def test_an_image_runs_what_its_service_runs_and_not_as_root(target: str) -> None:
    final = re.findall(r"^CMD (\[.*\])$", stage(target), re.MULTILINE)
    assert [json.loads(command) for command in final] == [SERVICES[target]["command"]]
    user = re.findall(r"^USER (\S+)$", stage("runtime"), re.MULTILINE)
    assert user == [SERVICES[target]["user"]]
    assert re.findall(r"^(?:COPY|ADD) .*$", stage(target), re.MULTILINE) == [
        f"COPY --from=build-{target} /venv /venv",
        "COPY --from=packages /opt/birnn /opt/birnn",
    ]


def test_no_program_in_an_image_reports_to_the_maker_of_onnxruntime() -> None:
    assert re.search(r"^ +ORT_DISABLE_TELEMETRY=1\b", stage("base"), re.MULTILINE)


def test_the_inference_image_gets_no_torch() -> None:
    assert not re.search(r"torch|\btrain\b", stage("build-inference"))
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    # A builder without BuildKit builds all that stands above the target.
    assert "torch" not in "".join(map(stage, stages[: stages.index("inference") + 1]))


@pytest.mark.parametrize("variable", ["PYTHON_IMAGE", "PYTHON_IMAGE_TAG", "PYTHON_IMAGE_DIGEST", "TORCH_INDEX_URL"])
def test_the_dockerfile_and_compose_agree_on_build_arguments(variable: str) -> None:
    assert re.findall(rf"^ARG {variable}=(.*)$", DOCKERFILE, re.MULTILINE) == [compose_variables()[variable]]


def test_the_builder_is_sent_what_is_installed_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sent = {rule.removeprefix("!").removesuffix("/**") for rule in rules if rule.startswith("!")}
    packages = {name.rstrip("*") for name in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert sent == {"pyproject.toml", "requirements.lock", "README.md", "LICENSE", "scripts/locked.py", *packages}
    assert all((ROOT / name).exists() for name in sent)


# --- requirements.lock -----------------------------------------------------------------------------------------------

EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def locked(*extras: str) -> dict[str, str]:
    """What scripts/locked.py prints, by name."""
    done = run(sys.executable, "scripts/locked.py", *extras)
    assert done.returncode == 0, done.stderr
    entries = re.split(r"^(?=\S)", done.stdout, flags=re.MULTILINE)[1:]
    return {entry.partition("==")[0]: entry for entry in entries}


def needed(names: Iterable[str]) -> set[str]:
    """Distributions and all that they need on this machine, by what is installed."""
    found: set[str] = set()
    left = [Requirement(name) for name in names]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        left += map(Requirement, requires(name) or [])
    return found


@pytest.mark.parametrize("extras", [(), ("train",), ("train", "monitor"), ("train", "monitor", "research", "dev")])
def test_the_lock_file_has_all_that_a_profile_installs(extras: tuple[str, ...]) -> None:
    entries = locked(*extras)
    wanted = needed([*PYPROJECT["project"]["dependencies"], *(name for extra in extras for name in EXTRAS[extra])])
    assert wanted - {"torch"} <= entries.keys()  # torch has an index of its own
    assert all(" --hash=sha256:" in entry for entry in entries.values())


def test_the_image_of_inference_carries_nothing_of_what_trains() -> None:
    assert locked().keys().isdisjoint({"apscheduler", "onnx", "polars", "safetensors", "sympy", "torch"})
    assert len(locked("train", "monitor", "research", "dev")) == len(
        set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    )


def test_an_extra_that_is_not_there_is_named() -> None:
    done = run(sys.executable, "scripts/locked.py", "trian")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "'trian' is no extra" in done.stderr


# --- systemd ---------------------------------------------------------------------------------------------------------


def test_the_units_are_valid(tmp_path: Path) -> None:
    if not (tool := shutil.which("systemd-analyze")):
        pytest.skip("needs systemd-analyze, which is not here")
    units = []
    for unit in (ROOT / "deploy" / "systemd").glob("birnn-*.s[eo]*"):
        if unit.suffix in {".service", ".socket"}:
            units.append(tmp_path / unit.name)
            units[-1].write_text(unit.read_text().replace("/opt/birnn-worker/.venv/bin/python", sys.executable))
    assert len(units) == 5
    done = run(tool, "verify", *units)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("service", OURS)
def test_a_unit_runs_what_the_compose_file_runs(service: str) -> None:
    unit = (ROOT / "deploy" / "systemd" / f"birnn-{service}.service").read_text()
    assert re.findall(r"^ExecStart=.*/python (.*)$", unit, re.MULTILINE) == [f"-m {service}"]
    stop = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop == [SERVICES[service]["stop_grace_period"].removesuffix("s")]
