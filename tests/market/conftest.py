"""What the tests of venues begin with."""

from collections.abc import Iterator

import pytest

from market.quarantine import Quarantine
from tests.fakes.venue_server import Venue


@pytest.fixture
def venue() -> Iterator[Venue]:
    """A running venue that has nothing yet."""
    with Venue().running() as running:
        yield running


@pytest.fixture
def quarantine() -> Quarantine:
    return Quarantine()
