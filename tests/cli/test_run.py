"""Where ``birnn run`` listens for the status page."""

import socket

import pytest

from cli.run import _listen_for_pages
from core.errors import ConfigError
from core.settings import load_settings


def test_a_taken_default_port_is_replaced_and_a_taken_port_that_was_set_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = load_settings(monitor_port=port)
        with pytest.raises(ConfigError, match=f"MONITOR_HOST=127.0.0.1 MONITOR_PORT={port}: .* another MONITOR_PORT"):
            _listen_for_pages(taken)
        by_default = taken.model_construct(**taken.model_dump(), _fields_set=set())
        with _listen_for_pages(by_default) as listener:
            assert listener.getsockname()[1] not in {0, port}
