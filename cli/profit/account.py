"""Rewards less fees by wallet, topic and day, from the epochs and balances of the ledger. Amounts are in uallo."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from statistics import median_low

from cli.profit.wallet import Step, steps_of
from core.clock import DAY_MS
from ledger.answers import Answer
from ledger.epochs import Arrival, Epoch, EpochBook, Stage
from monitor.chain.outcome import outcome

MOST_EPOCHS = 1_000_000  # of a topic
NO_TOPIC = 0  # of a day on which fees left the wallet and no epoch was seen

Wallet = tuple[str, str]  # network and address
Rows = Sequence[tuple[Epoch, Answer | None]]


@dataclass(slots=True, kw_only=True)
class Line:
    """A day of a topic for one wallet. An epoch is of the day on which it was paid."""

    network: str
    wallet: str
    topic_id: int
    day: int  # UTC, since 1970
    epochs: int = 0
    won: int = 0
    submitted: int = 0  # values of ours that were seen on chain
    unseen: int = 0  # epochs whose end was not seen, those that nobody saw at all included
    unsettled: int = 0  # won, and not settled yet
    unpaid: int = 0  # settled and won, and their rewards were not seen
    paid: int = 0  # lost, or won and their rewards were seen: their rewards are known
    rewards: Decimal = Decimal(0)  # of the epochs in ``paid``
    fees: Decimal | None = None  # the topic's part of the wallet's, by the submissions; None: not known

    @property
    def known_rewards(self) -> Decimal | None:
        """The rewards that were seen; None if none is known."""
        return self.rewards if self.paid else None

    @property
    def net(self) -> Decimal | None:
        """Rewards less fees; None if one of them is not known."""
        rewards = self.known_rewards
        return None if rewards is None or self.fees is None else rewards - self.fees


@dataclass(slots=True, kw_only=True)
class Account:
    """A span of days of all wallets."""

    lines: list[Line] = field(default_factory=list)  # by wallet, topic, day
    steps: dict[Wallet, list[Step]] = field(default_factory=dict)  # those that ended in the span
    balances_from_ms: dict[Wallet, int | None] = field(default_factory=dict)  # of the first reading; None: none

    def only(self, topic_ids: Sequence[int] | None, network: str | None) -> "Account":
        """Return the account of some topics and one network; None is all. A wallet's transfers stay."""
        lines = [
            line
            for line in self.lines
            if (not topic_ids or line.topic_id in topic_ids) and network in {None, line.network}
        ]
        wallets = {(line.network, line.wallet) for line in lines}
        return Account(
            lines=lines,
            steps={wallet: steps for wallet, steps in self.steps.items() if wallet in wallets},
            balances_from_ms={wallet: ms for wallet, ms in self.balances_from_ms.items() if wallet in wallets},
        )


def account_of(book: EpochBook, since_ms: int, until_ms: int) -> Account:
    """Read the span ``[since_ms, until_ms)``. Database faults pass through."""
    lines: dict[tuple[str, str, int, int], Line] = {}
    rewards: dict[Wallet, list[tuple[int, str]]] = defaultdict(list)
    for key in book.keys(since_ms):
        rows = book.epochs_of(key, MOST_EPOCHS, since_ms=since_ms, inside=False)
        rows = [row for row in rows if row[0].worker]
        ended = _ended_ms([epoch for epoch, _ in rows])
        rows = [row for row in rows if since_ms <= ended[row[0].nonce] < until_ms]
        _add(lines, rows, ended)
        for epoch, _ in rows:
            if epoch.reward is not None:
                rewards[epoch.network, epoch.worker].append((ended[epoch.nonce], epoch.reward))
    account = Account()
    for wallet in sorted({(network, address) for network, address, _, _ in lines}):
        balances = book.balances(*wallet)
        account.balances_from_ms[wallet] = balances[0][0] if balances else None
        before = max((read_ms for read_ms, _ in balances if read_ms < since_ms), default=0)
        within = [one for one in balances if before <= one[0] < until_ms]
        account.steps[wallet] = steps_of(within, rewards[wallet])
        _add_fees(lines, wallet, account.steps[wallet], account.balances_from_ms[wallet])
    account.lines = sorted(lines.values(), key=lambda line: (line.network, line.wallet, line.topic_id, line.day))
    return account


def _ended_ms(epochs: Sequence[Epoch]) -> dict[int, int]:
    """Return by nonce when a topic's epochs were paid, by the settling block; else when their rows were last changed.

    A follower that was down sees a reward later than the wallet gets it.
    """
    timed = [(epoch.nonce, epoch.block_ms) for epoch in epochs if epoch.block_ms is not None]
    (last, last_ms), (first, first_ms) = (timed[0], timed[-1]) if timed else ((0, 0), (0, 0))
    ended = {}
    for epoch in epochs:
        ended[epoch.nonce] = epoch.seen_ms
        if epoch.block_ms is not None and epoch.settled_height is not None and last > first:
            blocks = epoch.settled_height - epoch.nonce
            ended[epoch.nonce] = epoch.block_ms + round(blocks * (last_ms - first_ms) / (last - first))
    return ended


def _add(lines: dict[tuple[str, str, int, int], Line], rows: Rows, ended_ms: Mapping[int, int]) -> None:
    """Add a topic's epochs, newest first."""
    nonces = [epoch.nonce for epoch, _ in rows]
    distances = [later - earlier for later, earlier in pairwise(nonces)]
    length = median_low(distances) if distances else 0
    for (epoch, answer), distance in zip(rows, [*distances, length], strict=True):
        if epoch.stage == Stage.OPEN:
            continue
        line = _line(lines, epoch.network, epoch.worker, epoch.topic_id, ended_ms[epoch.nonce] // DAY_MS)
        gap = max(0, round(distance / length) - 1) if length else 0  # epochs before this one that have no row
        line.epochs += 1 + gap
        line.unseen += gap
        won = outcome(epoch, answer).won
        line.won += bool(won)
        line.submitted += bool(epoch.active) or epoch.arrival in {Arrival.EQUAL, Arrival.OTHER}
        if epoch.reward is not None or won is False:
            line.paid += 1
            line.rewards += Decimal(epoch.reward or 0)
        elif won is None:
            line.unseen += 1
        elif epoch.stage == Stage.CLOSED:
            line.unsettled += 1
        else:
            line.unpaid += 1


def _line(lines: dict[tuple[str, str, int, int], Line], network: str, wallet: str, topic_id: int, day: int) -> Line:
    made = Line(network=network, wallet=wallet, topic_id=topic_id, day=day)
    return lines.setdefault((network, wallet, topic_id, day), made)


def _add_fees(
    lines: dict[tuple[str, str, int, int], Line], wallet: Wallet, steps: Sequence[Step], from_ms: int | None
) -> None:
    """Give each day's fees to the topics by their submissions."""
    if from_ms is None:
        return
    fees: dict[int, Decimal] = defaultdict(Decimal)
    for step in steps:
        fees[step.to_ms // DAY_MS] += step.fees
    days = {line.day for (*of, _, _), line in lines.items() if tuple(of) == wallet}
    for day in sorted(days | {day for day, amount in fees.items() if amount}):
        if day < from_ms // DAY_MS:
            continue
        of_day = [line for (*of, _, at), line in lines.items() if tuple(of) == wallet and at == day]
        submitted = sum(line.submitted for line in of_day)
        if not submitted and fees[day]:
            _line(lines, *wallet, NO_TOPIC, day).fees = fees[day]
        for line in of_day:
            line.fees = fees[day] * line.submitted / submitted if submitted else Decimal(0)


def total_of(lines: Sequence[Line]) -> Line:
    """Return the sum of lines, with the place of the first; its fees are not known if those of a line are not."""
    first, fees = lines[0], [line.fees for line in lines]
    known = [amount for amount in fees if amount is not None]
    return Line(
        network=first.network,
        wallet=first.wallet,
        topic_id=first.topic_id,
        day=first.day,
        epochs=sum(line.epochs for line in lines),
        won=sum(line.won for line in lines),
        submitted=sum(line.submitted for line in lines),
        unseen=sum(line.unseen for line in lines),
        unsettled=sum(line.unsettled for line in lines),
        unpaid=sum(line.unpaid for line in lines),
        paid=sum(line.paid for line in lines),
        rewards=sum((line.rewards for line in lines), Decimal(0)),
        fees=sum(known, Decimal(0)) if len(known) == len(fees) else None,
    )
