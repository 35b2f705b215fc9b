"""``birnn profit`` as people and programs read it."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from cli.profit.account import Account, Line, total_of
from cli.screen import Column, table_of
from core.clock import DAY_MS, iso
from core.files import replace_file
from core.show.words import counted
from monitor.chain.words import allo

NOT_KNOWN = "not known"
COLUMNS = (
    *("network", "wallet", "topic_id", "day", "epochs", "won", "submitted", "not_seen", "not_settled"),
    *("rewards_not_seen", "rewards", "fees", "net"),
)


def day_text(day: int) -> str:
    """
    >>> day_text(20_787)
    '2026-11-30'
    """
    return iso(day * DAY_MS)[:10]


def line_json(line: Line) -> dict[str, Any]:
    """Return a line by COLUMNS; amounts are texts in uallo, null is not known."""
    cells = (
        line.network,
        line.wallet,
        line.topic_id or None,
        day_text(line.day),
        line.epochs,
        line.won,
        line.submitted,
        line.unseen,
        line.unsettled,
        line.unpaid,
        _whole(line.known_rewards),
        _whole(line.fees),
        _whole(line.net),
    )
    return dict(zip(COLUMNS, cells, strict=True))


def account_json(account: Account) -> dict[str, Any]:
    """Return a span as ``--json`` has it."""
    return {
        "lines": [line_json(line) for line in account.lines],
        "transfers": [
            {
                "network": network,
                "wallet": wallet,
                "from": iso(step.from_ms),
                "until": iso(step.to_ms),
                "amount": _whole(step.came - step.sent),
            }
            for (network, wallet), steps in account.steps.items()
            for step in steps
            if step.came or step.sent
        ],
        "missing": list(missing(account)),
    }


def write_csv(path: Path, lines: Iterable[Line]) -> None:
    """Write lines to a CSV file; what is not known is empty. OSError: it cannot be written."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(map(line_json, lines))
    replace_file(path, text.getvalue().encode())


def account_parts(account: Account, width: int) -> Iterator[RenderableType]:
    """Return a table by topic and one by day for each wallet, and what is missing."""
    for network, wallet in account.steps:
        lines = [line for line in account.lines if (line.network, line.wallet) == (network, wallet)]
        yield f"{network or 'no network'}, wallet {wallet}"
        yield _table("topic", lines, width)
        yield _table("day", lines, width)
    yield from missing(account)


def _table(by: str, lines: Sequence[Line], width: int) -> RenderableType:
    columns = (
        Column(heading=by),
        Column(heading="epochs won", wraps=True, right=True),
        Column(heading="not seen", wraps=True, right=True),
        Column(heading="rewards", wraps=True, right=True),
        Column(heading="fees, about" if by == "topic" else "fees", wraps=True, right=True),
        Column(heading="rewards less fees", wraps=True, right=True),
    )
    groups: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda line: line.topic_id if by == "topic" else line.day):
        name = day_text(line.day) if by == "day" else str(line.topic_id) if line.topic_id else "no topic"
        groups.setdefault(name, []).append(line)
    named = [(name, total_of(group)) for name, group in groups.items()]
    named += [("all", total_of(lines))] if len(groups) > 1 else []
    return table_of(columns, [_cells(name, total) for name, total in named], width)


def _cells(name: str, line: Line) -> tuple[str, ...]:
    unseen = line.unseen + line.unpaid
    rewards = _amount(line.known_rewards)
    net = _amount(line.net)
    more = " or more" if unseen and line.paid else ""
    return (
        name,
        f"{line.won:,} of {line.epochs:,}",
        f"{unseen:,}" if unseen else "",
        rewards + more,
        _amount(line.fees),
        net + (more if line.net is not None else ""),
    )


def missing(account: Account) -> Iterator[str]:
    """Yield a line for each thing that is not known or may be taken for another."""
    lines = account.lines
    if unseen := sum(line.unseen for line in lines):
        yield f"{counted(unseen, 'epoch')} not seen on the chain: what they paid is not known, and not in the rewards"
    if unpaid := sum(line.unpaid for line in lines):
        yield (
            f"of {counted(unpaid, 'won epoch')} the reward was not seen, and is not in the rewards: rewards are read "
            "from the blocks' events, so RPC_URLS must name an address that answers /block_results"
        )
    if unsettled := sum(line.unsettled for line in lines):
        yield f"{counted(unsettled, 'epoch')} not settled yet"
    for (network, wallet), from_ms in account.balances_from_ms.items():
        if from_ms is None:
            yield f"wallet {wallet} of {network}: its balance was never read, so fees are not known"
        elif any(line.fees is None for line in lines if (line.network, line.wallet) == (network, wallet)):
            yield (
                f"wallet {wallet} of {network}: its balance was first read at {_minute(from_ms)}; fees before that are "
                "not known"
            )
    for (network, wallet), steps in account.steps.items():
        for step in steps:
            between = f"wallet {wallet} of {network}, {_minute(step.from_ms)} to {_minute(step.to_ms)}"
            if step.sent:
                yield (
                    f"{between}: {_amount(step.sent)} left, by its size a transfer or a registration; it is not in the "
                    "fees"
                )
            if step.came:
                yield (
                    f"{between}: {_amount(step.came)} came in, a transfer or rewards that were not seen; it is not in "
                    "the rewards"
                )
    if any(line.fees is not None for line in lines):
        yield (
            "fees are what left the wallet beside the rewards that came in: a small transfer looks like a fee; a topic "
            "has its part of them by its submissions"
        )


def _minute(ms: int) -> str:
    return f"{iso(ms)[:16].replace('T', ' ')}Z"


def _amount(uallo: Decimal | None) -> str:
    return NOT_KNOWN if uallo is None else allo(str(uallo))


def _whole(uallo: Decimal | None) -> str | None:
    return None if uallo is None else f"{uallo:.0f}"
