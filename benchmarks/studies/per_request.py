"""The way of the official example worker, written anew: ``python -m benchmarks.studies.per_request PORT EXCHANGE_URL``.

Each question downloads the symbol's klines, parses them, resamples them to ten minutes, fits a line on lagged bars and
answers its forecast. It stands for every worker that begins to work when it is asked.
"""

import socket
import sys

import numpy as np
import requests
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from core.process.listener import BACKLOG
from inference.http.app import create_server

PAGES, PAGE_ROWS, BAR_ROWS, LAGS = 3, 1000, 10, 8


def per_request_app(exchange_url: str) -> FastAPI:
    """An application with one route, which does all the work at the request."""
    app = FastAPI()

    @app.get("/inference/{token}")
    def answer(token: str) -> PlainTextResponse:
        rows: list[list[str]] = []
        end_ms: int | None = None
        for _ in range(PAGES):
            params: dict[str, str | int] = {"symbol": f"{token}USDT", "interval": "1m", "limit": PAGE_ROWS}
            if end_ms is not None:
                params["endTime"] = end_ms
            page = requests.get(f"{exchange_url}/api/v3/klines", params=params, timeout=5).json()
            rows = page + rows
            end_ms = int(page[0][0]) - 1
        close = np.array([float(row[4]) for row in rows])
        bars = close[len(close) % BAR_ROWS :].reshape(-1, BAR_ROWS)[:, -1]
        lagged = np.lib.stride_tricks.sliding_window_view(bars, LAGS)
        design = np.column_stack([lagged, np.ones(len(lagged))])
        weights, *_ = np.linalg.lstsq(design[:-1], bars[LAGS:], rcond=None)
        return PlainTextResponse(f"{design[-1] @ weights:.6f}")

    return app


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=BACKLOG) as listener:
        create_server(per_request_app(sys.argv[2]), "NONE").run(sockets=[listener])
