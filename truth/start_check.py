"""The check of a start: whether the topics on chain are still those that we train for, asked within seconds."""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from chain.addresses import ChainFault
from chain.emissions import Emissions
from chain.lcd import Lcd
from chain.shapes import TopicSeen
from core.clock import Clock
from core.errors import ConfigError
from core.settings import Market, Settings
from core.topic import Topic
from node.addresses import is_public
from truth.contract import contract_faults, no_such_topic

LIMIT_S = 5.0  # for everything: whatever was not told by then is not checked
THREADS = 4  # of which each asks for some of the topics
NAMED = 5  # topics of a list


class Found(NamedTuple):
    """What a check of a start found, in lines."""

    stops: Sequence[str] = ()  # why nothing may start
    warnings: Sequence[str] = ()
    agreed: Sequence[str] = ()  # ``Topic.key`` of the topics that are the same on chain

    def heed(self) -> None:
        """Stop the start if something says so.

        Raises:
            ConfigError: a line for each topic that is another one on chain.
        """
        if self.stops:
            raise ConfigError("\n".join([*self.stops, "ALARM_CONTRACT=off starts without asking the chain"]))


class StartCheck:
    """Asks the chain in threads of its own, from the moment that it is made. Nothing here waits but ``wait``.

    Without LCD_URLS, and with ALARM_CONTRACT=off, nothing is asked.

    Args:
        limit_s: from now on; what is not told by then is not checked.
    """

    def __init__(self, settings: Settings, topics: Sequence[Topic], clock: Clock, limit_s: float = LIMIT_S) -> None:
        self.market = settings.market  # with simulated prices nothing stops a start
        self._urls, self._clock = settings.lcds, clock
        self._most_off = settings.alarms.get("contract")
        self._until_s = time.monotonic() + limit_s
        is_asked = bool(self._urls) and self._most_off is not None
        self._topics = tuple(topics) if is_asked else ()
        self._told: dict[str, tuple[TopicSeen | None, float | None]] = {}  # by Topic.key, with the time of a block
        self._faults: dict[str, str] = {}  # by Topic.key
        parts = [self._topics[first::THREADS] for first in range(min(THREADS, len(self._topics)))]
        self._threads = [
            threading.Thread(target=self._ask, args=(part,), daemon=True, name="contract") for part in parts
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_over(self) -> bool:
        """True once everything was told, or the time is up."""
        return time.monotonic() >= self._until_s or not any(thread.is_alive() for thread in self._threads)

    def wait(self) -> Found:
        """Return what was found, at the latest when the time is up."""
        for thread in self._threads:
            thread.join(max(0.0, self._until_s - time.monotonic()))
        return self.found()

    def found(self) -> Found:
        """Return what was found so far."""
        stops: list[str] = []
        warnings: list[str] = []
        agreed: list[str] = []
        told, faults = dict(self._told), dict(self._faults)
        for topic in self._topics:
            if topic.key not in told:
                continue
            seen, block_ms = told[topic.key]
            if seen is None:
                fault = no_such_topic(topic)
                warnings.append(f"{fault.what}; {fault.remedy}")
                continue
            found = contract_faults(topic, seen, block_ms, self._most_off or 0.0)
            binding = self.market is not Market.SIMULATED and is_public(topic.network)
            for fault in found:
                (stops if binding and fault.is_sure else warnings).append(f"{fault.what}; {fault.remedy}")
            if block_ms is None and not seen.in_seconds:
                warnings.append(f"topic {topic.key}: the time of a block is not known, so its horizon was not compared")
            elif not found:
                agreed.append(topic.key)
        return Found(tuple(stops), (*warnings, *self._unreached(faults, told)), tuple(agreed))

    def _unreached(self, faults: Mapping[str, str], told: Collection[str]) -> list[str]:
        left = [topic.key for topic in self._topics if topic.key not in told]
        if not left:
            return []
        named = ", ".join(left[:NAMED]) + (f" and {len(left) - NAMED} more" if len(left) > NAMED else "")
        why = next((faults[key] for key in left if key in faults), "no answer in time")
        return [f"not compared with the chain: {named}: {why}; correct LCD_URLS if it stays so"]

    def _ask(self, topics: Sequence[Topic]) -> None:
        chains: dict[str, tuple[Emissions, float | None]] = {}
        for topic in topics:
            if time.monotonic() >= self._until_s:
                return
            if not topic.network:
                self._faults[topic.key] = 'the config names no chain: add "chainId" to its wallet'
                continue
            try:
                if topic.network not in chains:
                    emissions = Emissions(topic.network, Lcd(self._urls, self._clock))
                    chains[topic.network] = emissions, emissions.block_ms(emissions.host())
                emissions, block_ms = chains[topic.network]
                self._told[topic.key] = emissions.topic(topic.topic_id), block_ms
            except ChainFault as fault:
                self._faults[topic.key] = str(fault)
