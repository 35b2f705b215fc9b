"""Questions to venues about stored klines, or klines about to be stored, within a bounded time."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.place import place_of
from cli.session import market_of
from cli.verbs import settings_from, topics_as_far_as_known
from core.clock import SystemClock
from core.errors import WorkerError
from core.settings import Market

if TYPE_CHECKING:  # polars and the rest load only where a verb needs them
    from market.store.comparison import Heard
    from market.venue import Venue

VENUE_TIMEOUT_S = 3.0  # of one answer
VENUE_WAIT_S = 8.0  # for all questions of one command


def answers_in_time(
    data_dir: Path | None, symbol: str, ask: "Callable[[Sequence[Venue], str], Iterator[Heard]]"
) -> "list[Heard]":
    """The answers of the folder's market, real or simulated, that come within ``VENUE_WAIT_S``."""
    from market.build import market_from  # noqa: PLC0415
    from market.store.comparison import Heard  # noqa: PLC0415

    heard: list[Heard] = []
    with ExitStack() as stack:
        try:
            settings = stack.enter_context(market_of(place_of(settings_from(data_dir=data_dir))))
            topics = topics_as_far_as_known(settings)
            market = market_from(settings, SystemClock(), topics=topics, timeout_s=VENUE_TIMEOUT_S, patience_s=0)
        except WorkerError as error:
            return [Heard(said=f"not compared with a venue: {error}")]  # one answer stands for all
        own = market.level(symbol) or market.venues[0].offer.name
        simulated = settings.market is Market.SIMULATED  # the exchange plays the first venue
        venues = sorted(market.venues, key=lambda venue: venue.offer.name != own)

        def listen() -> None:
            for one in ask(venues, own):
                heard.append(one)  # noqa: PERF402  (each as it comes: what has come in time counts)

        # A daemon: neither this function nor the end of the process waits for a late answer.
        asking = threading.Thread(target=listen, daemon=True, name="venues")
        asking.start()
        asking.join(VENUE_WAIT_S)
    if simulated:
        played, name = rf"\b{re.escape(own)}\b", "the simulated exchange"
        return [
            replace(one, fault=re.sub(played, name, one.fault), said=re.sub(played, name, one.said)) for one in heard
        ]
    return list(heard)
