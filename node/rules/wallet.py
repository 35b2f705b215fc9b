"""Rules over the wallet: its version, what the node needs of it, and whether the node can submit."""

import re
from collections.abc import Iterator

from node.addresses import DOMAIN, PUBLIC_NETWORKS, host_of, is_request_uri, misnamed
from node.json_text import JsonNode, is_mnemonic
from node.rules.base import ConfigFile, Finding, error, struct_findings, warning
from node.schema import STRINGS, WALLET
from node.spelling import nearest
from node.versions import V0_6, V0_7, V0_9, V0_10, is_number

KEYRINGS = ("test", "file", "os", "pass", "kwallet", "keychain", "memory")  # of the Cosmos SDK


def wallet_findings(file: ConfigFile) -> Iterator[Finding]:
    """All findings about the wallet."""
    yield from _schema(file)
    yield from struct_findings(file, file.wallet, WALLET)
    if file.is_for_a_node:
        yield from _needed(file)
        yield from _submission(file)
    else:
        yield warning(
            file.wallet,
            "it names no key, so no official node can submit with this file; write the wallet as in "
            "config.example.json",
            kind=True,
        )
    yield from _urls(file)


def _schema(file: ConfigFile) -> Iterator[Finding]:
    """Find a file that as a whole is written for other versions."""
    if not file.node.is_named or file.node.overlap(
        file.by_keys.first, (*file.by_keys.last[:2], file.by_keys.last[2] + 1)
    ):
        return
    if file.node.within(V0_9) and file.by_keys.last < V0_9:
        yield error(
            file.wallet.field("nodeRpc"),
            f"this file is written for {file.by_keys.said} and {file.node.said} cannot run with it: write it anew as "
            "config.example.json is, with chainId, nodeRpcs and nodegRpcs, or set NODE_IMAGE_TAG (NODE_VERSION) "
            "to the version that you run",
        )
    elif file.node.last < V0_9 <= file.by_keys.first and not file.wallet.field("nodeRpc").value:
        yield error(
            file.wallet.field("nodeRpcs"),
            f"this file is written for {file.by_keys.said} and {file.node.said} reads nodeRpc; run a newer node "
            "(NODE_IMAGE_TAG, NODE_VERSION), or write the wallet as that version reads it",
            kind=True,
        )


def _needed(file: ConfigFile) -> Iterator[Finding]:
    for name, spans in WALLET.items():
        field = file.wallet.field(name)
        for span in spans:
            if not span.needed or not file.node.within(span.since, span.until):
                continue
            zero = span.least is not None and field.value == 0
            blank = isinstance(field.value, str) and not field.value.strip()
            empty = blank or field.value == [] or (STRINGS.fits(field.value) and not any(field.value))
            if field.value is None or empty or zero:
                yield error(field, f'{file.node.said} needs it; write "{name}": {span.needed}')


def _submission(file: ConfigFile) -> Iterator[Finding]:
    wallet = file.wallet
    submit = wallet.field("submitTx")
    if submit.value in (None, False):
        yield warning(submit, 'the node submits nothing and earns nothing; write "submitTx": true')
    for field in wallet.fields():
        secret = field.name.casefold() == "addressrestoremnemonic"
        if (secret and field.value) or is_mnemonic(field.value):
            yield warning(
                field,
                "anybody who can read this file can take the wallet; make the key with scripts/init --restore and "
                "leave addressRestoreMnemonic empty",
                kind=True,
            )
    fees = wallet.field("maxFees")
    if fees.value is None and file.node.within(V0_9):
        yield warning(fees, 'the node ends at the first fee that is too low; write "maxFees": 50000000')
    elif fees.value is None and file.node.within(V0_6):
        yield warning(fees, 'the node has no default for it; write "maxFees": 25000000')
    elif fees.value in (0, "0"):
        yield error(fees, "no transaction can be paid with it; write 50000000")
    if wallet.field("maxRetries").value in (None, 0):
        yield warning(wallet.field("maxRetries"), 'a transaction is tried once; write "maxRetries": 5')
    adjustment = wallet.field("gasAdjustment")
    if is_number(adjustment.value) and adjustment.value <= 0 and file.node.last < V0_9:
        remedy = f'{file.node.said} has no default for it and needs a number above 0; write "gasAdjustment": 1.2'
        yield warning(adjustment, remedy)
    price = wallet.field("gasPrices")
    if price.value in (None, "") and file.node.within(V0_6):
        right = '"auto"' if file.node.first >= V0_7 else "10"
        yield warning(price, f'the node has no default for it; write "gasPrices": {right}')
    yield from _gas_prices(file, price)
    yield from _key(file)


def _key(file: ConfigFile) -> Iterator[Finding]:
    """Check where the node finds its key, and TLS to the chain."""
    wallet = file.wallet
    backend = wallet.field("keyringBackend")
    if isinstance(backend.value, str) and backend.value and backend.value not in KEYRINGS:
        yield error(backend, f"it must be one of {', '.join(KEYRINGS)}; scripts/init makes a key for test")
    elif backend.value == "file" and not wallet.field("keyringPassphrase").value:
        yield error(backend, 'the node cannot unlock that keyring without keyringPassphrase; give it, or write "test"')
    elif backend.value == "memory" and not wallet.field("addressRestoreMnemonic").value:
        yield error(backend, 'that keyring is empty at each start; write "test", for which scripts/init makes a key')
    elif backend.value in ("os", "pass", "kwallet", "keychain"):
        yield warning(backend, 'the node\'s image has no such keyring; write "test" unless you run the node without it')
    insecure = wallet.field("grpcInsecure")
    if insecure.value is True and file.node.last < V0_10:
        yield warning(insecure, f"{file.node.said} does not read it and always speaks TLS; run a newer node")
    elif insecure.value is True and any(
        host_of(item.value).endswith(f".{DOMAIN}")
        for item in wallet.field("nodegRpcs").items()
        if isinstance(item.value, str)
    ):
        yield error(insecure, "the public networks' gRPC hosts speak TLS alone; write false")
    home = wallet.field("alloraHomeDir")
    if isinstance(home.value, str) and home.value.startswith("~"):
        yield warning(home, 'the node takes ~ for the name of a folder; write "/data/.allorad", or the whole path')
    name = wallet.field("addressKeyName")
    if isinstance(name.value, str) and re.fullmatch(r"allo1[0-9a-z]{38}", name.value):
        yield warning(name, "that is an address and not the name of a key; scripts/init names the key worker1")


def _gas_prices(file: ConfigFile, price: JsonNode) -> Iterator[Finding]:
    value, gas = price.value, file.wallet.field("gas")
    if file.node.last < V0_9 and isinstance(gas.value, str) and not re.fullmatch(r"auto|[1-9][0-9]*|", gas.value):
        yield error(gas, 'it must be "auto" or a whole number in quotes, such as "200000"')
    if isinstance(value, str) and file.node.within(V0_7) and value not in ("", "auto"):
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
            yield error(price, 'it must be "auto" or a number in quotes, such as "10"')
        elif float(value) == 0:
            yield error(price, 'every transaction fails at that price; write "auto"')
    elif is_number(value) and value <= 0:
        yield error(price, "every transaction fails at that price; write 10")


def _urls(file: ConfigFile) -> Iterator[Finding]:
    """Find addresses of the chain that Go cannot parse or that belong to another network."""
    chain = file.wallet.field("chainId").value
    single = file.wallet.field("nodeRpc")
    lists = [file.wallet.field(name) for name in ("nodeRpcs", "nodegRpcs")]
    entries = [item for several in lists for item in several.items() if isinstance(item.value, str)]
    entries += [single] if isinstance(single.value, str) and single.value else []
    near = nearest(chain, tuple(PUBLIC_NETWORKS.values())) if isinstance(chain, str) else ""
    if near not in ("", chain):
        remedy = f"the public network is called {near}; write that, if it is meant"
        yield warning(file.wallet.field("chainId"), remedy)
    for item in entries:
        if not is_request_uri(item.value) and not (item.name == "nodeRpc" and is_request_uri(f"//{item.value}")):
            example = "host:443" if "gRpcs" in item.key else "https://host"
            yield error(item, f"the node does not parse it as a URL and does not start; write it like {example}")
        elif "gRpcs" in item.key and "//" in item.value:
            yield warning(item, "gRPC hosts are written host:port without https://; the node may not reach it")
        elif "gRpcs" not in item.key and not re.match(r"(https?|tcp)://", item.value):
            yield warning(item, "without https:// the node speaks plain HTTP to it; write https://host")
        if "," in item.value:
            yield error(item, "it is one URL, and a comma is part of it; put each URL in quotes of its own")
        if fault := misnamed(host_of(item.value), "grpc" if "gRpcs" in item.key else "rpc"):
            yield error(item, fault)
    for item in entries:
        for word, network in PUBLIC_NETWORKS.items():
            if isinstance(chain, str) and chain not in ("", network) and f".{word}.{DOMAIN}" in item.value:
                yield error(item, f"that is a host of {network} and chainId is another; correct one of them")
