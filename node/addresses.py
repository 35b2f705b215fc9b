"""Addresses in config.json: the hosts of the public networks, our own, and URLs as Go parses them."""

import re
from urllib.parse import urlsplit

from node.spelling import nearest

COMPOSE_HOST, COMPOSE_PORT = "inference", 8000
DOMAIN = "allora.network"  # of the public networks' hosts
PUBLIC_NETWORKS = {"testnet": "allora-testnet-1", "mainnet": "allora-mainnet-1"}


def is_public(network: str | None) -> bool:
    """True for the chain id of a network where answers earn; any other is a local or a recorded chain.

    >>> is_public("allora-testnet-1"), is_public("localnet"), is_public(None)
    (True, False, False)
    """
    return bool(network and network.startswith(tuple(one.rpartition("-")[0] for one in PUBLIC_NETWORKS.values())))


def host_of(url: str) -> str:
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def misnamed(host: str, role: str) -> str:
    """Return why a public network's host cannot play ``role`` (rpc or grpc), or an empty string if it can.

    >>> misnamed("allora-rpc.tesnet.allora.network", "rpc"), misnamed("rpc.example.org", "grpc")
    ('there is no such host; write allora-rpc.testnet.allora.network', '')
    >>> misnamed("allora-grpc.testnet.allora.network", "rpc")
    'that host is for nodegRpcs; write allora-rpc.testnet.allora.network'
    """
    first, _, rest = host.partition(".")
    word, _, domain = rest.partition(".")
    network = nearest(word, tuple(PUBLIC_NETWORKS))
    if not network or not nearest(domain, (DOMAIN,)):
        return ""
    roles = {"rpc": "nodeRpcs", "grpc": "nodegRpcs", "api": "neither nodeRpcs nor nodegRpcs"}
    is_of = first.removeprefix("allora-")
    right = f"allora-{role}.{network}.{DOMAIN}"
    if (network, DOMAIN) != (word, domain) or (is_of not in roles and nearest(is_of, roles)):
        return f"there is no such host; write {right}"
    return f"that host is for {roles[is_of]}; write {right}" if is_of in roles and is_of != role else ""


def answers_at(own_host: str, host: str) -> bool:
    """True if a process that listens on ``own_host`` answers at ``host``, an address of the same machine.

    >>> [answers_at(own, "127.0.0.1") for own in ("127.0.0.1", "localhost", "0.0.0.0", "::", "::1", "10.0.0.9")]
    [True, True, True, True, False, False]
    """
    same = {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1"}  # noqa: S104 -- compared, not listened on
    if own_host == "::" or (host, own_host) == ("localhost", "::1"):
        return True
    if own_host == "0.0.0.0":  # noqa: S104 -- compared, not listened on
        return ":" not in host
    return same.get(host, host) == same.get(own_host, own_host)


def is_loopback(host: str) -> bool:
    return host in ("localhost", "0.0.0.0", "::", "::1") or host.startswith("127.")  # noqa: S104 -- compared


def is_request_uri(text: str) -> bool:
    """True if Go's url.ParseRequestURI accepts the text. The node skips an empty text, so it passes.

    >>> [is_request_uri(text) for text in ("localhost:9090", "127.0.0.1:9090", "my_host:9090", "https://h:x", "host")]
    [True, False, False, False, False]
    """
    if not text:
        return True
    if re.search(r"[\x00-\x20\x7f]", text):
        return False
    if text.startswith("/"):
        return True
    scheme, colon, rest = text.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return False
    if not rest.startswith("//"):
        return True
    authority = re.split(r"[/?#]", rest[2:], maxsplit=1)[0].rpartition("@")[2]
    return bool(re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?", authority))
