"""Reads of one network: topics, workers, epochs, as chain.shapes has them. One method for each question."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import structlog

from chain.addresses import TIMEOUT_S, Address, ChainFault, Unspoken, Untold, http_url
from chain.lcd import SETTING, Lcd
from chain.shapes import (
    Access,
    HostSeen,
    Inference,
    Losses,
    NetworkInference,
    Reputers,
    ScoreSeen,
    TopicSeen,
    Upgrade,
)
from chain.texts import address as address_of
from chain.texts import decimal, flag, items, line, time_ms, whole
from chain.versions import (
    forecasters_of,
    inferences_of,
    last_commit_of,
    last_nonce_of,
    latest_inference_of,
    losses_of,
    network_inference_of,
    nonces_of,
    reputer_losses_of,
    score_of,
    scores_of,
    topic_of,
)
from core.clock import Clock

T = TypeVar("T")

_log = structlog.get_logger()


class Emissions:
    """What one network's chain tells. Not thread-safe.

    All methods raise ``chain.addresses.ChainFault`` if no host can be asked or believed. What the chain says is not
    there, and what no host's version can tell, is None or empty.

    Args:
        chain_id: of the network.
        lcd: its hosts.
    """

    def __init__(self, chain_id: str, lcd: Lcd) -> None:
        self.chain_id = lcd.network = chain_id
        self._lcd = lcd
        self._lacking: set[tuple[str, str]] = set()  # versions of the API, and reads that they have not

    @property
    def requests(self) -> int:
        """How many were sent."""
        return self._lcd.requests

    def host(self) -> HostSeen:
        """Return what the host in use says of itself, with its newest block."""
        return self._lcd.host()

    def block_ms(self, host: HostSeen) -> float | None:
        """Return the mean time between the newest blocks, of up to 1,000; None if the host has pruned even 10."""
        for back in (blocks for blocks in (1_000, 100, 10) if blocks < host.height):
            then_ms = self.time_of(host.height - back)
            if then_ms is not None and then_ms < host.time_ms:
                return (host.time_ms - then_ms) / back
        return None

    def time_of(self, height: int) -> int | None:
        """Return the time of a block in milliseconds; None if the host has pruned it."""
        try:
            return self._lcd.ask("block", lambda body: time_ms(body["block"]["header"]["time"]), height=height)
        except Untold:
            return None

    def topic(self, topic_id: int) -> TopicSeen | None:
        """Return a topic; None if there is no such topic."""
        return self._lcd.ask("topic", _only(topic_of, lambda seen: seen.topic_id == topic_id), topic=topic_id)

    def is_active(self, topic_id: int) -> bool | None:
        """Return True if the network asks the topic now; None if the chain does not tell."""
        return self._optional("is_active", lambda body: flag(body["is_active"]), topic=topic_id)

    def next_topic_id(self) -> int:
        """Return the id that the next new topic will have: all topics have lower ids."""
        told = self._lcd.ask("next_topic_id", lambda body: whole(body["next_topic_id"]))
        if told is None:
            raise ChainFault("the chain has no next topic id")
        return told

    def access(self, topic_id: int, address: str) -> Access:
        """Return what a worker may do in a topic, as far as the host's version tells."""
        of = {"topic": topic_id, "address": address}
        both = self._optional("window", lambda body: (flag(body["is_registered"]), flag(body["is_whitelisted"])), **of)
        registered, whitelisted = both or (
            self._optional("registered", lambda body: flag(body["is_registered"]), **of),
            self._optional("whitelisted", lambda body: flag(body["is_whitelisted_topic_worker"]), **of),
        )
        can_submit = self._optional("can_submit", lambda body: flag(body["can_submit_worker_payload"]), **of)
        return Access(registered=registered, whitelisted=whitelisted, can_submit=can_submit)

    def balance(self, address: str) -> str | None:
        """Return a wallet's balance in uallo; "0" for a wallet that the chain never saw."""
        return self._lcd.ask("balance", lambda body: decimal(body["balance"]["amount"]), address=address)

    def open_nonces(self, topic_id: int) -> tuple[int, ...]:
        """Return the nonces that workers may still submit for, oldest first."""
        try:
            return self._lcd.ask("open_nonces", nonces_of, topic=topic_id) or ()
        except Unspoken:  # the list of unfulfilled nonces is to go
            return self._lcd.ask("open_windows", nonces_of, topic=topic_id) or ()

    def latest_inference(self, topic_id: int, address: str) -> Inference | None:
        """Return a worker's own newest value. The chain drops it when the submission window closes."""
        own = _only(latest_inference_of, lambda seen: seen is None or seen.inferer == address)
        return self._lcd.ask("latest_inference", own, topic=topic_id, address=address)

    def inferences(self, topic_id: int, nonce: int) -> tuple[Inference, ...]:
        """Return the values of an epoch's active set; empty before the window has closed and after the pruning."""
        of_nonce = _only(inferences_of, lambda seen: all(one.nonce == nonce for one in seen))
        return self._lcd.ask("inferences", of_nonce, topic=topic_id, nonce=nonce) or ()

    def forecasters(self, topic_id: int, nonce: int) -> tuple[str, ...] | None:
        """Return the addresses of an epoch's forecasters; None if no host's version tells."""
        return self._optional("forecasts", forecasters_of, topic=topic_id, nonce=nonce)

    def losses(self, topic_id: int, nonce: int) -> Losses | None:
        """Return an epoch's losses; None before reputers have settled the epoch and after the pruning."""
        of_nonce = _only(losses_of, lambda seen: seen is None or seen.nonce == nonce)
        return self._lcd.ask("losses", of_nonce, topic=topic_id, nonce=nonce)

    def scores(self, topic_id: int, nonce: int) -> Mapping[str, str]:
        """Return the inferers' scores of an epoch by address."""
        return self._lcd.ask("scores", scores_of, topic=topic_id, nonce=nonce) or {}

    def reputers(self, topic_id: int, nonce: int) -> Reputers:
        """Return each reputer's losses of an epoch, with the reputers' stakes of now: a request for each reputer."""
        seen = self._optional("reputers", reputer_losses_of, topic=topic_id, nonce=nonce)
        if seen is None:
            return Reputers()
        stakes = {
            who: self._optional("stake", lambda body: decimal(body["authority"]), topic=topic_id, address=who)
            for who in seen.losses
        }
        told = {who: stake for who, stake in stakes.items() if stake is not None}
        return Reputers(losses=seen.losses, stakes=told)

    def network_inference(self, topic_id: int) -> NetworkInference | None:
        """Return the network's inference of now; None if there is none."""
        return self._lcd.ask("network_inference", network_inference_of, topic=topic_id)

    def score_ema(self, topic_id: int, address: str) -> ScoreSeen | None:
        """Return a worker's smoothed score; of nonce 0 for a worker that was never scored."""
        return self._optional("score_ema", score_of, topic=topic_id, address=address)

    def lowest_score(self, topic_id: int) -> ScoreSeen | None:
        """Return the lowest score of the active set; None if there is none, as between two windows."""
        return self._optional("lowest_score", score_of, topic=topic_id)

    def active_inferers(self, topic_id: int) -> tuple[str, ...]:
        """Return the addresses of the active set; empty between two windows."""
        return self._optional("active_inferers", lambda body: _addresses(body["inferers"]), topic=topic_id) or ()

    def active_forecasters(self, topic_id: int) -> tuple[str, ...]:
        """Return the addresses of the active forecasters; empty between two windows."""
        return self._optional("active_forecasters", lambda body: _addresses(body["forecasters"]), topic=topic_id) or ()

    def reward_fraction(self, topic_id: int, address: str) -> str | None:
        """Return a worker's smoothed share of the topic's reward to inferers; None if there was none yet."""
        return self._optional("reward_fraction", _fraction_of, topic=topic_id, address=address)

    def last_worker_nonce(self, topic_id: int) -> int | None:
        """Return the nonce of the newest epoch whose submission window has closed."""
        return self._lcd.ask("last_worker_commit", last_nonce_of, topic=topic_id)

    def last_reputer_nonce(self, topic_id: int) -> int | None:
        """Return the nonce of the newest epoch that reputers have settled."""
        return self._lcd.ask("last_reputer_commit", last_nonce_of, topic=topic_id)

    def last_settled(self, topic_id: int) -> tuple[int, int] | None:
        """Return nonce and settling height of the newest epoch that reputers have settled."""
        return self._lcd.ask("last_reputer_commit", last_commit_of, topic=topic_id)

    def params(self) -> Mapping[str, str]:
        """Return the parameters of the emissions module as texts by name."""
        return self._lcd.ask("params", _params_of) or {}

    def upgrade(self) -> Upgrade | None:
        """Return the upgrade of the chain's program that is scheduled; None if none is."""
        return self._optional("upgrade", _upgrade_of)

    def gas_price(self) -> str | None:
        """Return the price of a unit of gas in uallo; None on a chain without a fee market."""
        return self._optional("gas_price", lambda body: decimal(body["price"]["amount"]))

    def _optional(self, name: str, parse: Callable[[Any], T], **arguments: object) -> T | None:
        """Ask what not every version has; None for those, which are asked once."""
        if (self._lcd.api, name) in self._lacking:
            return None
        try:
            return self._lcd.ask(name, parse, **arguments)
        except Unspoken:
            self._lacking.add((self._lcd.api, name))
            return None


def networks(
    urls: Sequence[str], clock: Clock, *, wanted: Collection[str] = (), timeout_s: float = TIMEOUT_S
) -> dict[str, Emissions]:
    """Return the networks that hosts of the REST interface serve, by chain id.

    Each network has all hosts: a host that is down now is asked again later which network it serves. Hosts that cannot
    be asked now, and hosts of networks that are not wanted, are named in one log line. A network of which no host
    answers is not in the result: call again.

    Args:
        urls: of LCD_URLS.
        wanted: chain ids; without any, all networks are wanted.
        timeout_s: of the requests.
    """
    found: dict[str, Emissions] = {}
    faults = []
    for url in urls:
        lcd = Lcd([url], clock, timeout_s=timeout_s)
        try:
            lcd.host()
        except ChainFault as fault:
            faults.append(str(fault))
        if lcd.network is None:
            continue
        if wanted and lcd.network not in wanted:
            host = Address(http_url(url)).host
            faults.append(
                f"{host}: serves {lcd.network}, wanted {'is' if len(wanted) == 1 else 'are'} {', '.join(wanted)}"
            )
            continue
        found.setdefault(lcd.network, Emissions(lcd.network, Lcd(urls, clock, timeout_s=timeout_s)))
    if faults:
        _log.warning(
            "chain_hosts_failed",
            reasons=faults,
            remedy=f"nothing if they come back, as they are asked again; else correct or take them out of {SETTING}",
        )
    return found


def _only(parse: Callable[[Any], T], fits: Callable[[T], bool]) -> Callable[[Any], T]:
    """Return ``parse``, but with a fault of the host for an answer of another topic, nonce or worker than was asked."""

    def read(body: Any) -> T:
        seen = parse(body)
        if not fits(seen):
            raise ValueError("it is of another topic, nonce or worker")
        return seen

    return read


def _addresses(listed: Any) -> tuple[str, ...]:
    return tuple(address_of(one) for one in items(listed))


def _fraction_of(body: Any) -> str | None:
    return None if flag(body["not_found"]) else decimal(body["reward_fraction"])


def _params_of(body: Any) -> dict[str, str]:
    told = {line(name): value for name, value in body["params"].items()}
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in told.items()}
    return {name: line(value) for name, value in texts.items() if isinstance(value, str)}


def _upgrade_of(body: Any) -> Upgrade | None:
    plan = body["plan"]
    return None if plan is None else Upgrade(name=line(plan["name"]), height=whole(plan["height"]))
