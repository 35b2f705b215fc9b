"""``birnn topics --live`` as people and programs read it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from cli.live.chains import LiveNetwork
from cli.live.compare import Row, State
from cli.screen import Column, plain, table_of
from core.show.words import counted
from monitor.chain.words import allo, decimal_words

NOT_KNOWN = "not known"


def row_json(row: Row) -> dict[str, Any]:
    """Return a topic as ``--json`` has it; amounts are texts in uallo, null is not known."""
    return {
        "network": row.network,
        "topic_id": row.topic_id,
        "state": row.state.value,
        "name": row.name,
        **row.asked._asdict(),
        "loss": row.loss,
        "configured": row.configured,
        "changes": list(row.changes),
        "twin": row.twins[0] if row.twins else None,
        "other_twins": list(row.twins[1:]),
        "weight": row.weight,
        "free_inferers": row.free_inferers,
        "free_forecasters": row.free_forecasters,
        "paid_a_day": None if row.paid_a_day is None else f"{row.paid_a_day:.0f}",
        "place_a_day": None if row.place_a_day is None else f"{row.place_a_day:.0f}",
        "paid_by": row.paid_by or None,
        "entry": row.entry,
        "refused": row.refused or None,
    }


def network_json(network: LiveNetwork, notices: Sequence[str]) -> dict[str, Any]:
    """Return a network as ``--json`` has it."""
    return {
        "network": network.chain_id,
        "hosts": list(network.hosts),
        "api": network.host.api,
        "release": network.host.release,
        "height": network.host.height,
        "block_s": None if network.block_ms is None else round(network.block_ms / 1000, 3),
        "upgrade": network.upgrade and {"name": network.upgrade.name, "height": network.upgrade.height},
        "notices": list(notices),
        "read": len(network.topics),
        "not_read": list(network.unread),
        "fault": network.fault or None,
        "requests": network.requests,
    }


def network_parts(
    network: LiveNetwork, rows: Sequence[Row], notices: Sequence[str], width: int
) -> Iterator[RenderableType]:
    """Return a network with its topics as people read them."""
    block = NOT_KNOWN if network.block_ms is None else f"{network.block_ms / 1000:.2f} s"
    states = [row.state for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in State if state in states)
    yield (
        f"{network.chain_id}: emissions API {network.host.api}, height {network.host.height}, a block takes {block}; "
        f"{counted(len(network.topics), 'topic')} read with {counted(network.requests, 'request')}"
        f"{': ' if counts else ''}{counts}"
    )
    if network.fault:
        yield f"reading ended early by {network.fault}; not read: {_ids(network.unread)}"
    yield from notices
    columns = (
        Column(heading="topic"),
        Column(heading="state", wraps=True),
        Column(heading="question", wraps=True),
        Column(heading="loss", least_width=100),
        Column(heading="testnet twin", least_width=100, wraps=True),
        Column(heading="weight", right=True, least_width=100),
        Column(heading="free places", wraps=True),
        Column(heading="paid a day", wraps=True, right=True),
        Column(heading="a place", wraps=True, right=True),
        Column(heading="paid by", wraps=True, least_width=120),
    )
    yield table_of(columns, map(_cells, rows), width)
    if rows:
        yield (
            "* in the config; free places: of inferers, of forecasters in the newest active set; paid a day: to all "
            "inferers; a place: to the median inferer"
        )
    for row in rows:
        yield from (plain(f"topic {row.network}/{row.topic_id} {row.state}: {change}") for change in row.changes)
    for row in rows:
        if row.state not in {State.NEW, State.CHANGED}:
            continue
        named = f"topic {row.network}/{row.topic_id}, on chain {row.name[:80]!a}"
        if row.entry is None:
            yield f"{named}: its name does not tell the question; read it on the network's page before answering"
        elif row.refused:
            yield plain(f"{named}: this release does not answer it: {row.refused}")
        else:
            yield f"{named}, for config.json:\n{json.dumps(row.entry, indent=2)}"


def _cells(row: Row) -> tuple[str, ...]:
    asked = " ".join(part for part in row.asked if part)
    free = [NOT_KNOWN if one is None else str(one) for one in (row.free_inferers, row.free_forecasters)]
    return (
        f"{row.topic_id}{'*' if row.configured else ''}",
        row.state.value,
        plain(asked or row.name[:60]),
        plain(row.loss),
        ", ".join(map(str, row.twins)),
        decimal_words(row.weight),
        NOT_KNOWN if free == [NOT_KNOWN] * 2 else ", ".join(free),
        _amount(row.paid_a_day),
        _amount(row.place_a_day),
        row.paid_by,
    )


def _amount(uallo: object) -> str:
    return NOT_KNOWN if uallo is None else allo(str(uallo))


def _ids(ids: Sequence[int]) -> str:
    """
    >>> _ids([3, 4, 5, 9, 11, 12])
    '3 to 5, 9, 11 to 12'
    """
    spans: list[list[int]] = []
    for one in ids:
        if spans and one == spans[-1][-1] + 1:
            spans[-1][1:] = [one]
        else:
            spans.append([one])
    return ", ".join(" to ".join(map(str, span)) for span in spans)


def host_lines(faults: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each host that cannot be used."""
    yield from (plain(f"{host} cannot be used: {fault}") for host, fault in faults.items())
