"""Rules over the entries of ``worker`` and ``reputer``."""

import re
from collections.abc import Iterator
from dataclasses import replace

from node.addresses import COMPOSE_HOST, host_of
from node.json_text import JsonNode, JsonObject
from node.rules.base import ConfigFile, Finding, error, struct_findings, warning
from node.rules.endpoint import endpoint_findings, is_foreign
from node.schema import ANSWERED, ENDPOINTS, HOMES, INT, LOSS, OUR_KEYS, REPUTER, WORKER
from node.spelling import nearest, same_but_for_case
from node.versions import ENTRYPOINT, OLD_ENTRYPOINT, V0_6, V0_7


def worker_findings(file: ConfigFile, entry: JsonNode) -> Iterator[Finding]:
    if not isinstance(entry.value, JsonObject):
        return
    yield from struct_findings(file, entry, WORKER)
    topic_id = entry.field("topicId")
    is_number = type(topic_id.value) is int and 0 < topic_id.value < 2**63  # a bool is an int too
    if not is_number:
        yield error(topic_id, "it must be a whole number above 0, without quotes")
    yield from _entrypoint(file, entry.field("inferenceEntrypointName"))
    parameters = entry.field("parameters")
    if not isinstance(parameters.value, JsonObject):
        return
    yield from _parameters(parameters)
    loop = entry.field("loopSeconds")
    if file.node.last < V0_6 and INT.fits(loop.value or 0) and (loop.value or 0) < 1 and file.node.is_named:
        yield warning(loop, 'the node asks without a pause; write "loopSeconds": 5')
    table = {field.name: field.value for field in parameters.fields() if isinstance(field.value, str)}
    yield from _unanswered(file, entry, parameters)
    if "InferenceEndpoint" in table:
        number = topic_id.value if is_number else None
        yield from endpoint_findings(file, parameters.at("InferenceEndpoint"), number, table)


def _entrypoint(file: ConfigFile, name: JsonNode) -> Iterator[Finding]:
    old = file.node.last < V0_7
    right = OLD_ENTRYPOINT if old else ENTRYPOINT
    if name.value not in (ENTRYPOINT, OLD_ENTRYPOINT):
        yield error(name, f'it must be "{right}" for {file.node.said}')
    elif name.value != right:
        keys = "; wallet.nodeRpcs is of v0.9 and later" if file.wallet.field("nodeRpcs").value else ""
        yield error(name, f'{file.node.said} does not know it{keys}; write "{right}"')


def _parameters(node: JsonNode) -> Iterator[Finding]:
    """Check a map: string values, no key twice, known keys spelt right, other keys used as placeholders."""
    fields = [*node.fields()]
    names = [field.name for field in fields]
    placeholders = {
        name for field in fields if isinstance(field.value, str) for name in re.findall(r"\{([^{}]+)\}", field.value)
    }
    known = dict.fromkeys((*OUR_KEYS, *ENDPOINTS))
    for field in fields:
        if not isinstance(field.value, str):
            yield error(field, "every value in parameters must be a string in quotes, or the node does not start")
        if field.name in known or field.name in placeholders:
            continue
        right = nearest(field.name, known)
        if right and right.casefold() == field.name.casefold():
            yield error(field, f"keys in parameters are case-sensitive; write {right}")
        elif right:
            misspelt = error(field, f"it is misspelt and nobody reads it; write {right}")
            yield replace(misspelt, meant=node.at(right).key)
        elif home := next((home for home, keys in HOMES.items() if same_but_for_case(field.name, keys)), ""):
            yield error(field, f"nobody reads it here; it belongs into {home}", kind=True)
        else:
            yield warning(field, f"nobody reads it: no endpoint has {{{field.name}}} in it; remove it", kind=True)
    for name in dict.fromkeys(names):
        if (times := names.count(name)) > 1:
            why = f"it is given {times} times and the node takes the last; keep one"
            yield error(node.at(name), why, kind=True)


def _unanswered(file: ConfigFile, entry: JsonNode, parameters: JsonNode) -> Iterator[Finding]:
    forecasts = entry.field("forecastEntrypointName")
    forecast = parameters.at("ForecastEndpoint")
    if "ForecastEndpoint" not in ANSWERED and forecasts.value and not is_foreign(file, forecast.value):
        yield error(
            forecasts,
            "this worker has no forecast route yet, and the node drops the inference together with the forecast; "
            "remove forecastEntrypointName and ForecastEndpoint",
        )
    for name in ENDPOINTS:
        endpoint = parameters.at(name)
        if name in ANSWERED or not isinstance(endpoint.value, str):
            continue
        if is_foreign(file, endpoint.value):
            yield warning(endpoint, "this worker does not answer it: what listens there is another program's")
        else:
            yield error(endpoint, "this worker has no route for it yet; remove it")


def reputer_findings(file: ConfigFile) -> Iterator[Finding]:
    reputer = file.root.field("reputer")
    if isinstance(reputer.value, list) and reputer.value:
        yield warning(reputer, "this worker answers no reputer; what it names must be answered by another program")
    for entry in reputer.items():
        if not isinstance(entry.value, JsonObject):
            yield error(entry, "it must be an object", kind=True)
            continue
        yield from struct_findings(file, entry, REPUTER)
        losses = entry.field("lossFunctionParameters")
        yield from struct_findings(file, losses, LOSS)
        for table in (entry.field("groundTruthParameters"), losses.field("LossMethodOptions")):
            for field in table.fields():
                if not isinstance(field.value, str):
                    yield error(field, "it must be a string in quotes, or the node does not start")
                elif host_of(field.value) == COMPOSE_HOST:
                    yield error(field, "this worker has no route for reputers; name another program's address")
