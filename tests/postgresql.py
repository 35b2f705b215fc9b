"""A PostgreSQL server of Debian's package, for one test file at a time: started, killed and started again."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from tests.fakes.clock import eventually
from tests.fakes.net import free_port

SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "max_connections": "50"}


def programs() -> Path:
    """The folder of the server's programs; in CI they must be there, elsewhere the test is skipped without them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        assert os.environ.get("CI") != "true", "PostgreSQL is not here; apt-get install postgresql"
        pytest.skip("needs PostgreSQL, which is not here: apt-get install postgresql")
    return found[-1].parent


class Server:
    """A server on a port of its own. It refuses to run as root, who starts it as the user ``postgres``."""

    def __init__(self, folder: Path) -> None:
        self._programs, self._folder = programs(), folder
        self._port = free_port()
        self._user = None if os.geteuid() else "postgres"  # of the server; None: this process's own
        self._groups: list[str] | None = None if os.geteuid() else []
        if self._user:
            shutil.chown(folder, self._user)
        self._run("initdb", "--username=ledger", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")
        self.start()

    def start(self) -> None:
        settings = (part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}"))
        self.popen = subprocess.Popen(
            [self._programs / "postgres", "-D", self._data, "-p", str(self._port), *settings],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=self._user,
            group=self._user,
            extra_groups=self._groups,
        )
        eventually(self._answers, 30, "a server that answers")

    def end(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """End the server, by default as a crash does: without a farewell to its clients and without a checkpoint."""
        self.popen.send_signal(number)
        self.popen.wait(30)

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://ledger@127.0.0.1:{self._port}/{name}"

    def new(self, template: str = "template1") -> str:
        """Make a database and return its URL."""
        name = f"ledger_{uuid4().hex}"
        engine = sa.create_engine(self.url(), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments, "-D", str(self._data)]
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            cwd="/",
            user=self._user,
            group=self._user,
            extra_groups=self._groups,
        )

    def _answers(self) -> bool:
        command = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self._port), "-q"]
        return subprocess.run(command, check=False).returncode == 0


@contextmanager
def serving() -> Iterator[Server]:
    """A server while the block runs, in a folder that its user may enter."""
    programs()
    with tempfile.TemporaryDirectory(prefix="ledger-postgresql-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        try:
            yield server
        finally:
            server.end()
