"""Look at a network and its topics every few minutes, and note what was seen."""

import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, DecimalException

from chain.addresses import ChainFault
from chain.emissions import Emissions
from core.clock import Clock
from ledger.epochs import NETWORK_ITSELF, EpochBook
from monitor.chain.epoch_follower import EpochFollower
from monitor.chain.looks import NO_TOPIC, NetworkLook, TopicLook, Wallet
from monitor.chain.schedule import Track

NETWORK_EVERY_S = 240.0
NOTE_EVERY_S = 60.0  # how well the chain is read is written, without a request
TOPIC_EVERY_S = 1_800.0  # some six requests each: of 55 topics 660 an hour
RETRY_S = 60.0
TREND_EPOCHS = 12
GAS_A_SUBMISSION = 300_000  # of the official node: 250,000 by default, and a fifth more
PLACES = "max_top_inferers_to_reward"  # parameter of the chain


class Looker:
    """Notes looks at one network and its topics. For the thread of its follower.

    Args:
        follower: of the network.
        seconds: a clock that nobody sets.
    """

    def __init__(
        self, follower: EpochFollower, book: EpochBook, clock: Clock, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._follower, self._book, self._clock, self._seconds = follower, book, clock, seconds
        self._due_s: dict[int, float] = {}  # by topic id; the network's own is at NETWORK_ITSELF
        self._look = NetworkLook()
        self._noted_s = float("-inf")
        self._most_inferers: int | None = None
        self._amounts: dict[str, str] = {}  # last kept, by address

    def step(self) -> None:
        """Look at the network if that is due, and else at the topic that is due for the longest time.

        Raises:
            ledger.database.FAULTS: the ledger cannot be used now.
        """
        if not self._book.is_begun:
            return
        now_s, emissions = self._seconds(), self._follower.emissions
        waiting = [NETWORK_ITSELF, *self._follower.tracks]
        due = min(waiting, key=lambda topic_id: self._due_s.get(topic_id, float("-inf")))
        if self._due_s.get(due, float("-inf")) <= now_s and emissions is not None:
            self._due_s[due] = now_s + RETRY_S
            try:
                if due == NETWORK_ITSELF:
                    self._look, every_s = self._network(emissions), NETWORK_EVERY_S
                    self._noted_s = float("-inf")
                else:
                    self._look_at(emissions, self._follower.tracks[due])
                    every_s = TOPIC_EVERY_S
            except ChainFault:
                return
            self._due_s[due] = now_s + every_s
        self._note_network(now_s)

    def _note_network(self, now_s: float) -> None:
        """Note how well the chain is read; the sighting has the time at which it was last read."""
        seen_ms = self._follower.seen_ms
        if seen_ms is not None and now_s - self._noted_s >= NOTE_EVERY_S:
            look = replace(self._look, seen_ms=seen_ms, fault=self._follower.fault, block_ms=self._follower.block_ms)
            self._book.note(self._follower.network, NETWORK_ITSELF, seen_ms, look.body)
            self._noted_s = now_s

    def _look_at(self, emissions: Emissions, track: Track) -> None:
        if self._follower.newest is not None:
            body = look.body if (look := self._topic(emissions, track)) else NO_TOPIC
            self._book.note(self._follower.network, track.topic.topic_id, self._clock.now_ms(), body)

    def _network(self, emissions: Emissions) -> NetworkLook:
        follower, host = self._follower, emissions.host()
        if (text := emissions.params().get(PLACES, "")).isdecimal():
            self._most_inferers = int(text)
        gas_price = emissions.gas_price()
        workers = dict.fromkeys(t.topic.worker for t in follower.tracks.values() if t.topic.worker)
        wallets = {address: self._wallet(emissions, address, gas_price) for address in workers}
        look = NetworkLook(
            host=host,
            upgrade=emissions.upgrade(),
            most_inferers=self._most_inferers,
            wallets={address: wallet for address, wallet in wallets.items() if wallet is not None},
        )
        follower.saw()
        return look

    def _wallet(self, emissions: Emissions, address: str, gas_price: str | None) -> Wallet | None:
        amount = emissions.balance(address)
        if amount is None:
            return None
        if self._amounts.get(address) != amount:
            self._book.note_balance(self._follower.network, address, self._clock.now_ms(), amount)
            self._amounts[address] = amount
        return Wallet(amount=amount, submissions=_submissions(amount, gas_price))

    def _topic(self, emissions: Emissions, track: Track) -> TopicLook | None:
        topic_id, worker = track.topic.topic_id, track.topic.worker
        newest = self._follower.newest
        seen = self._follower.look(emissions, track, newest.height) if newest else None
        if seen is None:
            return None
        seen = track.seen = replace(seen, is_active=emissions.is_active(topic_id))
        look = TopicLook(seen=seen)
        epochs = [epoch for epoch, _ in self._book.epochs_of(track.topic, TREND_EPOCHS)]
        sets = (len(epoch.inside.inferers) for epoch in epochs if epoch.active is not None and epoch.detail)
        if (inferers := next(sets, None)) is not None:
            free = max(0, self._most_inferers - inferers) if self._most_inferers is not None else None
            look = replace(look, inferers=inferers, free_places=free)
        if worker:
            smoothed = [epoch.score_ema for epoch in epochs if epoch.score_ema is not None]
            told = None if smoothed else emissions.score_ema(topic_id, worker)
            look = replace(
                look,
                access=emissions.access(topic_id, worker),
                score_ema=smoothed[0] if smoothed else (told and told.nonce and told.score) or None,
                trend=_trend(smoothed),
            )
        lowest = emissions.lowest_score(topic_id)
        return replace(look, lowest_score=lowest.score if lowest else None)


def _trend(newest_first: list[str]) -> str | None:
    """
    >>> _trend(["1.5", "1.2", "1"]), _trend(["1.5"])
    ('0.25', None)
    """
    try:
        change = Decimal(newest_first[0]) - Decimal(newest_first[-1])
    except (DecimalException, LookupError):
        return None
    return str(change / (len(newest_first) - 1)) if len(newest_first) > 1 else None


def _submissions(amount: str, gas_price: str | None) -> int | None:
    """
    >>> _submissions("3000000", "10"), _submissions("5", None), _submissions("5", "0")
    (1, None, None)
    """
    try:
        return int(Decimal(amount) / (Decimal(gas_price or 0) * GAS_A_SUBMISSION))
    except DecimalException:
        return None
