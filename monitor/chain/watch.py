"""The chain in the monitor: a follower for each network, and what they have seen."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from chain.emissions import Emissions, networks
from core.clock import Clock
from core.settings import Settings
from core.topic import Topic
from ledger.epochs import EpochBook
from ledger.places import by_network
from monitor.chain.epoch_follower import EpochFollower
from monitor.chain.heights import POLL_S, Heights
from monitor.chain.looker import Looker
from monitor.loops import Step
from monitor.watched import ChainRead

STEP_S = 0.5  # at most between two steps; a step without a new block asks nothing
FIND_S = 60.0  # between two looks for hosts of a network that none serves yet


class ChainWatch:
    """Follows the networks of a config's topics, each in a thread of its own.

    Args:
        rpc_urls: of CometBFT's RPC by network; a network without any is followed over LCD alone, without rewards.
        poll_s: the shortest and the longest pause between two looks at the newest block.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Collection[Topic],
        rpc_urls: Mapping[str | None, Sequence[str]],
        book: EpochBook,
        clock: Clock,
        *,
        poll_s: tuple[float, float] = POLL_S,
    ) -> None:
        self._lcds, self._clock = settings.lcds, clock
        self._found: dict[str, tuple[float, dict[str, Emissions]]] = {}
        self._followers: list[EpochFollower] = []
        self._heights: list[Heights] = []
        self.steps: list[Step] = []
        networks_of = by_network(topics)
        self._wanted = () if "" in networks_of else tuple(networks_of)
        for network, of_network in networks_of.items():
            heights = Heights(rpc_urls.get(network or None, ()), network or None, clock, poll_s=poll_s)
            follower = EpochFollower(
                network, of_network, book, clock, emissions=partial(self._find, network), heights=heights
            )
            self._heights.append(heights)
            self._followers.append(follower)
            run = _step(follower, Looker(follower, book, clock), heights)
            self.steps.append(Step(name="chain", run=run, every_s=STEP_S / 2))

    @property
    def seen(self) -> dict[str, ChainRead]:
        """How well each chain is read, by network."""
        return {
            one.network: ChainRead(one.seen_ms, one.fault, one.requests, one.newest.height if one.newest else None)
            for one in self._followers
        }

    def close(self) -> None:
        """End the threads that follow blocks."""
        for heights in self._heights:
            heights.close()

    def _find(self, network: str) -> Emissions | None:
        """Return a reader of the network; None while no host serves it. Each network asks the hosts for itself."""
        asked_s, found = self._found.get(network, (float("-inf"), {}))
        if self._clock.elapsed_s() - asked_s >= FIND_S:
            found = networks(self._lcds, self._clock, wanted=self._wanted)
            self._found[network] = self._clock.elapsed_s(), found
        if not network and len(found) == 1:  # the config does not say which
            return next(iter(found.values()))
        return found.get(network)


def _step(follower: EpochFollower, looker: Looker, heights: Heights) -> Callable[[], object]:
    def step() -> bool:
        follower.step()
        looker.step()
        return heights.wait(STEP_S / 2)

    return step
