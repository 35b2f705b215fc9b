"""Ports of tests."""

import socket


def free_port() -> int:
    """Return a port on which nobody listens at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def nobody() -> str:
    """Return a URL at which nobody listens at the moment."""
    return f"http://127.0.0.1:{free_port()}"
