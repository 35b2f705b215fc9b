"""An empty FastAPI route under the server that serves the answers: ``python -m benchmarks.tools.empty_route PORT``.

What it costs is what FastAPI and uvicorn cost; the rest of an answer is ours.
"""

import socket
import sys

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from core.process.listener import BACKLOG
from inference.http.app import create_server


def empty_app() -> FastAPI:
    """One route that does nothing."""
    app = FastAPI()

    @app.get("/")
    async def empty() -> PlainTextResponse:
        return PlainTextResponse("0")

    return app


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=BACKLOG) as listener:
        create_server(empty_app(), "NONE").run(sockets=[listener])
