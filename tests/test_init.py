"""scripts/init with a docker that records what it is told and keeps keys as empty files."""

import json
import os
import pty
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.env_file import read_env_file

SCRIPT = Path(__file__).parents[1] / "scripts" / "init"
PHRASE = "this is not a real phrase and opens nothing"
ADDRESS = "allo1notarealaddress"
TOOLS = ("bash", "chmod", "chown", "dirname", "env", "find", "grep", "id", "mkdir", "sed", "stty", "tail")

# Answers as the chain's image does: allorad's keys in the mounted folder, jq for config.json.
DOCKER = f"""#!/bin/sh
"exec" "{sys.executable}" "$0" "$@"  # a line of both languages: a path in #! may hold no space
import json, os, sys
from pathlib import Path

arguments = sys.argv[1:]
entry = arguments[arguments.index("--entrypoint") + 1] if "--entrypoint" in arguments else arguments[0]
command = next((verb for verb in ("show", "add") if verb in arguments), entry)
stdin = "" if "--tty" in arguments or command not in ("add", "jq") else sys.stdin.read()
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps({{"command": command, "arguments": arguments, "stdin": stdin,
                              "environment": dict(os.environ)}}) + "\\n")
for fault in filter(None, os.environ.get("FAULTS", "").split(",")):
    verb, status, message = fault.split(":", 2)
    if verb == command:
        print(message, file=sys.stderr)
        raise SystemExit(int(status))
if command == "jq":
    try:
        wallet = json.loads(stdin).get("wallet") or {{}}
    except ValueError:
        print("jq: parse error: at line 1", file=sys.stderr)
        raise SystemExit(2)
    names = ("keyringBackend", "alloraHomeDir", "chainId", "addressKeyName")
    print("|".join(["true" if wallet.get("addressRestoreMnemonic") else "false", *(wallet.get(n, "") for n in names)]))
if entry == "allorad":
    mount = next(part for part in arguments if part.startswith("type=bind"))
    folder = Path(mount.split("source=")[1].split(",")[0]) / ".allorad" / "keyring-test"
    key = folder / (arguments[arguments.index(command) + 1] + ".info")
    if command == "add":
        folder.mkdir(parents=True, exist_ok=True)
        key.touch()
        if "--recover" not in arguments:
            print("{PHRASE}")
    elif key.exists():
        print("{ADDRESS}")
    else:
        print("Error: " + key.stem + " is not a valid name or address", file=sys.stderr)
        raise SystemExit(1)
"""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What one run of the script left: its exit status, what it printed, and the docker commands it gave."""

    status: int
    out: str
    error: str
    calls: list[dict[str, object]]

    def commands(self) -> list[object]:
        return [call["command"] for call in self.calls]


class Bench:
    """A folder with the script, a config.json and a PATH that holds the tools the script needs and our docker."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "node"
        self.bin = folder / "bin"
        self.record = folder / "record.jsonl"
        (self.root / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(SCRIPT, self.root / "scripts")
        shutil.copy(SCRIPT.parents[1] / ".env.example", self.root)
        for name in TOOLS:
            found = shutil.which(name)
            assert found, f"{name} is needed by scripts/init"
            (self.bin / name).symlink_to(found)
        self.docker = self.bin / "docker"
        self.docker.write_text(DOCKER)
        self.docker.chmod(0o755)
        self.configure(addressKeyName="worker1", chainId="allora-testnet-1")

    def configure(self, **wallet: object) -> None:
        path = self.root / "config.json"
        path.write_text(json.dumps({"wallet": wallet, "worker": []}))
        path.chmod(0o644)

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {"PATH": str(self.bin), "RECORD": str(self.record), **extra}

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Ran:
        """Run the script with ``stdin`` piped in."""
        self.record.unlink(missing_ok=True)
        done = subprocess.run(
            [self.root / "scripts" / "init", *arguments],
            input=stdin, capture_output=True, text=True, timeout=30, check=False, env=self.environment(environment),
        )  # fmt: skip
        return Ran(status=done.returncode, out=done.stdout, error=done.stderr, calls=self._calls())

    def run_on_terminal(self, *arguments: str, typed: str = "", **environment: str) -> Ran:
        """Run the script with a terminal as its standard input, output and error; ``out`` is what it shows."""
        self.record.unlink(missing_ok=True)
        screen, terminal = pty.openpty()
        shown: list[bytes] = []

        def watch() -> None:
            sent = not typed
            while True:
                try:
                    block = os.read(screen, 4096)
                except OSError:  # Linux's end of file on a terminal that nobody has open any more
                    return
                shown.append(block)
                if not sent and b"Enter: " in b"".join(shown):  # as a person does: type when asked
                    os.write(screen, typed.encode())
                    sent = True

        watcher = threading.Thread(target=watch)
        with subprocess.Popen(
            [self.root / "scripts" / "init", *arguments],
            stdin=terminal, stdout=terminal, stderr=terminal, env=self.environment(environment),
        ) as process:  # fmt: skip
            watcher.start()
            status = process.wait(timeout=30)
        os.close(terminal)
        watcher.join(timeout=10)
        os.close(screen)
        return Ran(status=status, out=b"".join(shown).decode(), error="", calls=self._calls())

    def files(self) -> dict[str, str]:
        return {str(path.relative_to(self.root)): path.read_text() for path in self.root.rglob("*") if path.is_file()}

    def _calls(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def with_key(bench: Bench, name: str = "worker1") -> None:
    keys = bench.root / "worker-data" / ".allorad" / "keyring-test"
    keys.mkdir(parents=True)
    (keys / f"{name}.info").touch()


def assert_secret_is_kept(bench: Bench, ran: Ran) -> None:
    for call in ran.calls:
        assert PHRASE not in json.dumps([call["arguments"], call["environment"]])
    for name, content in bench.files().items():
        assert PHRASE not in content, f"the mnemonic was written to {name}"


def test_a_new_key_is_made_and_its_mnemonic_goes_to_the_terminal_alone(bench: Bench) -> None:
    ran = bench.run_on_terminal()
    assert ran.status == 0
    assert ran.commands() == ["image", "jq", "show", "add", "show"]
    assert ran.out.count(PHRASE) == 1
    assert f"address: {ADDRESS}" in ran.out
    assert "faucet.testnet" in ran.out
    assert_secret_is_kept(bench, ran)
    assert stat.S_IMODE((bench.root / "worker-data").stat().st_mode) == 0o700


def test_a_new_key_is_not_made_where_its_mnemonic_would_land_in_a_log(bench: Bench) -> None:
    ran = bench.run()
    assert (ran.status, ran.commands()) == (2, ["image", "jq", "show"])
    assert "needs a terminal" in ran.error


def test_every_container_is_confined_and_keeps_no_log(bench: Bench) -> None:
    ran = bench.run("--restore", stdin=PHRASE, NODE_UID="1234", NODE_GID="2345")
    containers = [call["arguments"] for call in ran.calls if call["command"] != "image"]
    assert len(containers) == 4
    for arguments in containers:
        assert isinstance(arguments, list)
        for option, value in (("--network", "none"), ("--log-driver", "none"), ("--user", "1234:2345")):
            assert arguments[arguments.index(option) + 1] == value
        assert "--rm" in arguments


@pytest.mark.parametrize("stdin", [f"{PHRASE}\n", PHRASE], ids=["a line", "a line without its end"])
def test_a_key_is_restored_from_standard_input(bench: Bench, stdin: str) -> None:
    ran = bench.run("--restore", stdin=stdin)
    assert ran.status == 0, ran.error
    assert ran.commands() == ["image", "jq", "show", "add", "show"]
    assert ran.calls[3]["stdin"] == f"{PHRASE}\n"
    assert f"address: {ADDRESS}" in ran.out
    assert PHRASE not in ran.out + ran.error
    assert_secret_is_kept(bench, ran)


def test_a_mnemonic_that_is_typed_stays_invisible(bench: Bench) -> None:
    ran = bench.run_on_terminal("--restore", typed=f"{PHRASE}\n")
    assert (ran.status, ran.calls[3]["stdin"]) == (0, f"{PHRASE}\n")
    assert PHRASE not in ran.out
    assert_secret_is_kept(bench, ran)


@pytest.mark.parametrize("arguments", [(), ("--restore",)], ids=["plain", "restore"])
def test_an_existing_key_is_shown_and_left_alone(bench: Bench, arguments: tuple[str, ...]) -> None:
    with_key(bench)
    ran = bench.run(*arguments, stdin=PHRASE)
    assert (ran.status, ran.commands()) == (0, ["image", "jq", "show"])
    assert f"address: {ADDRESS}" in ran.out
    assert ("nothing was restored" in ran.error) == bool(arguments)


def test_a_key_that_cannot_be_read_is_not_made_anew(bench: Bench) -> None:
    with_key(bench)
    ran = bench.run("--restore", stdin=PHRASE, FAULTS="show:1:Error: permission denied")
    assert (ran.status, ran.commands()) == (1, ["image", "jq", "show"])
    assert "cannot be read: Error: permission denied; check who owns the folder" in ran.error


@pytest.mark.parametrize(
    ("faults", "status", "message"),
    [
        pytest.param(
            "image:1:no such image,pull:1:no daemon", 3, "start docker, or set CHAIN_IMAGE_TAG", id="no image"
        ),
        pytest.param(
            "jq:125:docker broke", 3, "could not run alloranetwork/allora-chain:v0.16.0: docker broke", id="jq"
        ),
        pytest.param("show:125:no daemon", 3, "could not run alloranetwork/allora-chain:v0.16.0: no daemon", id="show"),
        pytest.param(
            "add:1:Error: invalid mnemonic", 1, "not be restored: Error: invalid mnemonic", id="refused phrase"
        ),
    ],
)
def test_a_failure_of_docker_is_one_line_with_its_reason(bench: Bench, faults: str, status: int, message: str) -> None:
    ran = bench.run("--restore", stdin=PHRASE, FAULTS=faults)
    assert ran.status == status
    assert message in ran.error.splitlines()[-1]
    assert PHRASE not in ran.error


def test_an_image_that_is_not_here_is_pulled_as_configured(bench: Bench) -> None:
    (bench.root / ".env").write_text('CHAIN_IMAGE_TAG="v9"  # newer\nCHAIN_IMAGE_DIGEST=sha256:00\n')
    with_key(bench)
    ran = bench.run(FAULTS="image:1:no such image")
    assert ran.status == 0, ran.error
    assert ran.calls[1]["arguments"] == ["pull", "alloranetwork/allora-chain:v9@sha256:00"]
    assert bench.run(CHAIN_IMAGE_TAG="v8").calls[0]["arguments"] == [
        "image", "inspect", "alloranetwork/allora-chain:v8@sha256:00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dotenv", "tag"),
    [
        pytest.param(b"CHAIN_IMAGE_TAG=v9\n", "v9", id="plain"),
        pytest.param(b"CHAIN_IMAGE_TAG=v9\r\nNODE_UID=7\r\n", "v9", id="CRLF"),
        pytest.param(b"\xef\xbb\xbfCHAIN_IMAGE_TAG=v9\n", "v9", id="UTF-8 with its mark"),
        pytest.param(b"export CHAIN_IMAGE_TAG=v9\n", "v9", id="export"),
        pytest.param(b"  CHAIN_IMAGE_TAG = v9 # newer\n", "v9", id="blanks and a remark"),
        pytest.param(b"CHAIN_IMAGE_TAG='v9'# newer\r\n", "v9", id="single quotes and a remark"),
        pytest.param(b'CHAIN_IMAGE_TAG="v9" # "newer"\n', "v9", id="double quotes and a remark"),
        pytest.param(b"CHAIN_IMAGE_TAG='v9 # 8'\n", "v9 # 8", id="a # in quotes"),
        pytest.param(b"CHAIN_IMAGE_TAG=v9#8\n", "v9#8", id="a # in the value"),
    ],
)
def test_dotenv_is_read_as_python_reads_it(bench: Bench, dotenv: bytes, tag: str) -> None:
    (bench.root / ".env").write_bytes(dotenv)
    assert read_env_file(bench.root / ".env", ())["CHAIN_IMAGE_TAG"].value == tag
    assert f"docker pull alloranetwork/allora-chain:{tag}\n" in bench.run("--dry-run").out.replace("\\", "").replace(
        " \n", "\n"
    )


@pytest.mark.parametrize(
    ("dotenv", "message"),
    [
        pytest.param("NODE_UID=7\n".encode("utf-16"), "UTF-16", id="UTF-16"),
        pytest.param("NODE_UID=7\n".encode("utf-16-le"), "UTF-16", id="UTF-16 without its mark"),
        pytest.param(b"\n# x\nNODE_UDI=7\n", ".env line 3: 'NODE_UDI' is no setting", id="misspelt"),
        pytest.param(None, ".env is a folder", id="folder"),
    ],
)
def test_a_dotenv_that_would_be_passed_over_is_refused(bench: Bench, dotenv: bytes | None, message: str) -> None:
    path = bench.root / ".env"
    path.mkdir() if dotenv is None else path.write_bytes(dotenv)
    ran = bench.run()
    assert (ran.status, ran.calls) == (2, [])
    (line,) = ran.error.splitlines()
    assert message in line


def test_names_of_compose_and_of_proxies_pass(bench: Bench) -> None:
    (bench.root / ".env").write_text("COMPOSE_FILE=a:b\nDOCKER_HOST=x\nhttp_proxy=y\nTRAINING_DAYS=30\n")
    assert bench.run("--dry-run").status == 0


@pytest.mark.parametrize(
    ("wallet", "message"),
    [
        pytest.param({}, "addressKeyName is missing or empty", id="no name"),
        pytest.param({"addressKeyName": "--home=/"}, "'--home=/'; use letters", id="an option for a name"),
        pytest.param({"addressKeyName": "a b; c|d"}, "'a b; c|d'; use letters", id="a name with blanks"),
        pytest.param({"addressKeyName": "w", "keyringBackend": "file"}, "keyringBackend is 'file'", id="other keyring"),
        pytest.param({"addressKeyName": "w", "alloraHomeDir": "/root"}, "alloraHomeDir is '/root'", id="other home"),
    ],
)
def test_a_config_json_that_does_not_fit_is_refused(bench: Bench, wallet: dict[str, str], message: str) -> None:
    bench.configure(**wallet)
    ran = bench.run()
    assert (ran.status, ran.commands()) == (2, ["image", "jq"])
    assert message in ran.error
    assert len(ran.error.splitlines()) == 1
    assert not (bench.root / "worker-data").exists()


@pytest.mark.parametrize("where", ["host", "image"])
def test_config_json_that_is_no_json_is_refused_by_either_jq(bench: Bench, where: str) -> None:
    if where == "host":
        if not (jq := shutil.which("jq")):
            pytest.skip("needs jq on this machine")
        (bench.bin / "jq").symlink_to(jq)
    (bench.root / "config.json").write_text("{")
    ran = bench.run()
    assert ran.status == 2
    assert "config.json could not be read: " in ran.error
    assert "parse error" in ran.error


def test_this_machines_jq_reads_the_same_as_the_images(bench: Bench) -> None:
    if not (jq := shutil.which("jq")):
        pytest.skip("needs jq on this machine")
    (bench.bin / "jq").symlink_to(jq)
    bench.configure(addressKeyName="worker1", chainId="allora-mainnet-1", addressRestoreMnemonic=PHRASE)
    ran = bench.run("--restore", stdin=PHRASE)
    assert (ran.status, ran.commands()) == (0, ["image", "show", "add", "show"])
    assert "addressRestoreMnemonic is filled in and stands there in plain text" in ran.error
    assert "send ALLO" in ran.out
    assert PHRASE not in ran.out + ran.error


@pytest.mark.parametrize(
    ("break_it", "status", "message"),
    [
        pytest.param("config", 2, "config.json is missing; cp config.example.json", id="no config.json"),
        pytest.param("docker", 3, "docker was not found on PATH", id="no docker"),
    ],
)
def test_what_is_missing_is_named(bench: Bench, break_it: str, status: int, message: str) -> None:
    (bench.root / "config.json" if break_it == "config" else bench.docker).unlink()
    ran = bench.run()
    assert (ran.status, len(ran.error.splitlines())) == (status, 1)
    assert message in ran.error


def test_keys_of_two_config_files_are_made_one_at_a_time(bench: Bench) -> None:
    ran = bench.run(CONFIG_FILE="config.json,second.json")
    assert (ran.status, ran.calls, len(ran.error.splitlines())) == (2, [], 1)
    assert "names several files; make one key at a time: CONFIG_FILE=config.json scripts/init" in ran.error


def test_a_mnemonic_is_no_argument_and_may_not_be_empty(bench: Bench) -> None:
    assert bench.run("--mnemonic=x").status == 2
    ran = bench.run("--restore", stdin=" \n")
    assert (ran.status, ran.commands()) == (2, ["image", "jq", "show"])


@pytest.mark.parametrize("arguments", [(), ("--restore",)], ids=["plain", "restore"])
def test_a_dry_run_prints_the_commands_and_does_nothing(bench: Bench, arguments: tuple[str, ...]) -> None:
    before = bench.files()
    ran = bench.run("--dry-run", *arguments)
    assert (ran.status, ran.calls, bench.files()) == (0, [], before)
    assert [line.split()[:2] for line in ran.out.splitlines()] == [["docker", "pull"], *[["docker", "run"]] * 3]
    assert ("--recover" in ran.out) == bool(arguments)
    assert not (bench.root / "worker-data").exists()


def test_a_config_json_the_containers_cannot_read_is_said(bench: Bench) -> None:
    with_key(bench)
    (bench.root / "config.json").chmod(0o600)
    assert "chmod 644 config.json" in bench.run().error


@pytest.mark.skipif(os.getuid() in {0, 1000}, reason="needs a user whose id is not the default of NODE_UID")
def test_the_nodes_user_is_noted_once_where_it_is_not_the_default(bench: Bench) -> None:
    (bench.root / ".env").write_text("LOG_LEVEL=info")  # no newline at its end
    with_key(bench)
    bench.run()
    bench.run()
    assert (bench.root / ".env").read_text() == (f"LOG_LEVEL=info\nNODE_UID={os.getuid()}\nNODE_GID={os.getgid()}\n")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, who hands the folder to the node's user")
def test_root_makes_the_key_for_the_nodes_user(bench: Bench) -> None:
    ran = bench.run("--restore", stdin=PHRASE)
    assert (ran.status, (bench.root / "worker-data").stat().st_uid) == (0, 1000)
    assert not (bench.root / ".env").exists()
