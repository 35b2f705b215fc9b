"""Whatever is asked of inference's routes, no answer is a 500, and a 200 of a question is a bare decimal."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error

from exchange.server import SimulatedExchange
from tests.fakes.clock import RunningClock
from tests.inference.stand import Node, node

DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
TEXT = {"200": {"description": "text", "content": {"text/plain": {"schema": {"type": "string"}}}}}
TOKEN = {"name": "token", "in": "path", "required": True, "schema": {"type": "string", "examples": ["ETH", "SOL"]}}
QUERY = [
    {"name": name, "in": "query", "schema": schema}
    for name, schema in {
        "topic": {"type": "integer", "examples": [1, 82]},
        "height": {"type": "integer"},
        "network": {"type": "string", "examples": ["allora-testnet-1"]},
        "wait": {"type": "integer"},
    }.items()
]
# Inference makes no document of its own: it would cost its start and its memory.
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "inference", "version": "1"},
    "paths": {
        "/inference/{token}": {"get": {"parameters": [TOKEN, *QUERY], "responses": TEXT}},
        **{path: {"get": {"responses": TEXT}} for path in ("/topics", "/readyz", "/healthz", "/metrics")},
    },
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    clock = RunningClock()
    with SimulatedExchange(clock=clock) as exchange, node(tmp_path_factory.mktemp("node"), exchange, clock) as running:
        yield running


@schemathesis.openapi.from_dict(DOCUMENT).parametrize()
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_inference(case: schemathesis.Case[Any], served: Node) -> None:
    answer = case.call(base_url=served.url)
    if answer.status_code == 503:  # not ready, or a height that is older than the newest; never an error of our own
        assert "internal error" not in answer.text
    else:
        case.validate_response(answer, checks=[not_a_server_error])
    if case.path.startswith("/inference/") and answer.status_code == 200:
        assert DECIMAL.fullmatch(answer.text)
