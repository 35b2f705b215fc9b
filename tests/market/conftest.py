"""What the tests of venues begin with."""

from collections.abc import Iterator

import pytest

from market.failover import Failover
from market.quality import Aside
from tests.fakes import FakeClock
from tests.market.pair import APART, WALK, at_level, two
from tests.market.venue import Venue


@pytest.fixture
def venue() -> Iterator[Venue]:
    """A running venue that has nothing yet."""
    with Venue().running() as running:
        yield running


@pytest.fixture
def aside() -> Aside:
    return Aside()


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
def market(first: Venue, second: Venue, clock: FakeClock) -> Failover:
    """Both as one, by the clock of the module."""
    return two(first, second, clock)
