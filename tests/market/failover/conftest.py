"""Two venues of one market, and both as one."""

from collections.abc import Iterator

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.venue_server import Venue
from tests.market.failover.pair import APART, NOW_MS, WALK, Stand, at_level


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def first() -> Iterator[Venue]:
    """The better of two venues of one market."""
    with Venue().running() as running:
        running.add("ETHUSDT", WALK)
        running.prices = {"ETHUSDT": "2000", "BTCUSDT": "40000"}
        yield running


@pytest.fixture
def second() -> Iterator[Venue]:
    """The other one, where all is a little dearer."""
    with Venue().running() as running:
        running.add("ETHUSDT", at_level(WALK, APART))
        running.prices = {"ETHUSDT": str(2000 * APART), "SOLUSDT": "50"}
        yield running


@pytest.fixture
def stand(first: Venue, second: Venue, clock: FakeClock) -> Stand:
    """Both as one."""
    return Stand(first, second, clock)


@pytest.fixture
def lone(first: Venue, second: Venue, clock: FakeClock) -> Stand:
    """The first one alone: there is nobody to ask."""
    return Stand(first, second, clock, alone=True)
