"""Whatever the OpenAPI document allows, and whatever it does not, gets an answer that the document describes."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from monitor.app import create_app
from tests.fakes.clock import FakeClock
from tests.monitor.samples import NET, usual

NOW_MS = 1_796_057_664_000
ONE = usual(NOW_MS)
schema = schemathesis.openapi.from_asgi(
    "/openapi.json", create_app(lambda: ONE.snapshot, ONE.answers, ONE.epochs, FakeClock(NOW_MS))
)
CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance, content_type_conformance]


@schema.parametrize()
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_monitor(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate(checks=CHECKS)


@schema.include(path_regex="topic_id").parametrize()
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_no_request_about_a_known_topic_breaks_the_monitor(case: schemathesis.Case[Any]) -> None:
    case.path_parameters |= {"network": NET, "topic_id": 82}
    case.call_and_validate(checks=CHECKS)
