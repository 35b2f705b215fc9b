"""Rules over an inference endpoint: its placeholders, host, port, path and query."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, parse_qsl, unquote, urlsplit

from core.topic import fill_placeholders
from node.addresses import COMPOSE_HOST, COMPOSE_PORT, answers_at, host_of, is_loopback
from node.json_text import JsonNode
from node.rules.base import ConfigFile, Finding, error, warning
from node.spelling import nearest

ASKED = re.compile(r".*/inference/([^/]*)")  # the path of our endpoint; the group is the token
TOKEN = re.compile(r"[A-Za-z0-9._-]{1,32}")
_HEIGHT = 918_273_645  # stands for any block height


def endpoint_findings(
    file: ConfigFile, node: JsonNode, topic_id: int | None, table: Mapping[str, str]
) -> Iterator[Finding]:
    """Check placeholders, address, path and query of an inference endpoint."""
    if not TOKEN.fullmatch(token := table.get("Token", "")):  # another rule reports the token
        token, table = "", {**table, "Token": "TOKEN"}
    fault = _placeholder_fault(node.value, table)
    if fault:
        yield error(node, fault)
    url = fill_placeholders(node.value, topic_id=topic_id or 1, height=_HEIGHT, parameters=table)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        fit = parts.scheme in ("http", "https") and bool(host) and port != 0
    except ValueError:
        fit = False
    if not fit or re.search(r"[\s\x00-\x1f\x7f]", url):
        yield error(node, "it must be a URL that begins with http:// or https:// and a host, without blanks")
        return
    is_elsewhere = is_foreign(file, url)
    if is_elsewhere:
        port = port or (443 if parts.scheme == "https" else 80)
        if nearest(host, (COMPOSE_HOST,)):
            yield error(node, f"no service is called {host}; write http://{COMPOSE_HOST}:{COMPOSE_PORT}")
        yield warning(
            node,
            f"{host}:{port} is no address of this worker; right only where a proxy of yours hands the question on, "
            f"else write http://{COMPOSE_HOST}:{COMPOSE_PORT} (Docker) or http://127.0.0.1:PORT",
        )
        if str(_HEIGHT) not in url:
            yield _no_height(node)
    elif parts.scheme == "https":
        yield error(node, "inference speaks http without TLS; write http://")
    if not is_elsewhere and (parts.scheme == "http" or port):
        yield from _address(file, node, host, port or 80)
    if not fault:
        yield from _names(file, node, parts, topic_id, token, is_elsewhere)
    if not is_elsewhere:
        yield from _query(node, parts.query)


def _names(
    file: ConfigFile, node: JsonNode, parts: SplitResult, topic_id: int | None, token: str, is_elsewhere: bool
) -> Iterator[Finding]:
    """Check token and topic that are written out: another topic's value would be submitted for this one."""
    asked = ASKED.fullmatch(parts.path)
    if token and not is_elsewhere and unquote(parts.path) != f"/inference/{token}":
        yield error(node, f"inference answers /inference/{{Token}} and not {parts.path or '/'}; write that path")
    elif token and asked and unquote(asked[1]) != token:
        yield error(node, f'it asks for "{unquote(asked[1])}" but Token is "{token}"; write {{Token}}')
    for given in parse_qs(parts.query, keep_blank_values=True).get("topic", []):
        if topic_id and given != str(topic_id):
            yield error(node, f'it asks for topic "{given}" but topicId is {topic_id}; write ?topic={{TopicId}}')


def _address(file: ConfigFile, node: JsonNode, host: str, port: int) -> Iterator[Finding]:
    if host == COMPOSE_HOST:
        if port != COMPOSE_PORT:
            yield error(node, f"inference's container listens on {COMPOSE_PORT}; write http://inference:8000")
        return
    if file.own is None:
        return
    own_host, own_port = file.own
    if port != own_port:
        why = f"nothing of this worker listens at {host}:{port}: PORT is {own_port}"
        remedy = f"{why}; write http://{host}:{own_port}, with Docker http://inference:8000, or set PORT={port}"
        yield error(node, remedy) if file.node.is_named else warning(node, remedy)
    elif not answers_at(own_host, host):
        why = f"nothing of this worker listens at {host}: HOST is {own_host}"
        remedy = f"{why}; write http://{own_host if ':' not in own_host else f'[{own_host}]'}:{own_port}"
        yield error(node, remedy) if file.node.is_named else warning(node, remedy)
    elif own_host in ("0.0.0.0", "::") and file.node.is_named:  # noqa: S104 -- compared, not listened on
        yield warning(node, "from a container of its own the node reaches itself there; write http://inference:8000")


def _query(node: JsonNode, query: str) -> Iterator[Finding]:
    asked: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        asked.setdefault(name, []).append(value)
    known = ("topic", "height", "network")
    for name, values in asked.items():
        if name in known:
            if len(values) > 1:
                yield error(node, f"{name}= is given {len(values)} times, which inference refuses; give it once")
        elif right := nearest(name, known):
            yield error(node, f"inference does not read {name}=; write {right}=")
        else:
            yield warning(node, f"inference does not read {name}=; remove it from the URL")
    heights = asked.get("height", [])
    if not heights:
        yield _no_height(node)
    elif heights[0] != str(_HEIGHT):
        yield error(node, "the height is written out, so all epochs get one answer; write height={BlockHeight}")


def _placeholder_fault(template: str, parameters: Mapping[str, str]) -> str:
    """Why the node could not fill in an endpoint, or an empty string."""
    known = ["TopicId", "BlockHeight", *(key for key in parameters if key != "InferenceEndpoint")]
    rest = template
    for key in known:
        placeholder = f"{{{key}}}"
        if placeholder in rest and re.search("[{}]", parameters.get(key, "")):
            return f"{placeholder} stands for a value with braces, which the node may or may not replace"
        rest = rest.replace(placeholder, "")
    if not re.search("[{}]", rest):
        return ""
    unknown = re.search(r"\{[^{}]*\}", rest)
    what = f"{unknown[0]} is no placeholder" if unknown else "a brace is left over"
    return f"{what}; the node knows {', '.join(f'{{{key}}}' for key in known)}"


def _no_height(node: JsonNode) -> Finding:
    remedy = "without the height a repeated question may get another answer; add height={BlockHeight} to the query"
    return warning(node, remedy)


def is_foreign(file: ConfigFile, url: Any) -> bool:
    """True if a URL's host certainly is not this worker."""
    host = host_of(url) if isinstance(url, str) else ""
    return bool(host) and host != COMPOSE_HOST and not is_loopback(host) and (not file.own or host != file.own[0])
