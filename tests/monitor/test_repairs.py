"""A day of candles is the same day as long as it only grows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.repairs import checksum, is_same
from tests.fakes.klines import only, random_walk_klines, times

DAY = random_walk_klines(1440)


@given(then=st.integers(0, 1440), now=st.integers(0, 1440))
def test_a_day_that_grew_is_the_same(then: int, now: int) -> None:
    then, now = sorted((then, now))
    assert is_same(checksum(DAY.rows(0, then), False), DAY.rows(0, now), False)
    assert is_same(checksum(DAY.rows(0, then), False), DAY, True)
    assert is_same(checksum(DAY.rows(0, then), True), DAY.rows(0, now), True) == (then == now)


@given(row=st.integers(0, 1438), rows=st.integers(1, 1440), is_over=st.booleans())
def test_a_hole_a_filled_hole_and_another_price_are_seen(row: int, rows: int, is_over: bool) -> None:
    """Also where nothing follows a hole of the day's end."""
    rows = max(rows, row + 1)
    day = DAY.rows(0, rows)
    holed = only(day, np.arange(rows) != row)
    dearer = times(day, np.where(np.arange(rows) == row, 1.0001, 1.0))
    assert is_same(checksum(day, is_over), day, is_over)
    assert not is_same(checksum(day, is_over), holed, is_over)
    assert not is_same(checksum(day, is_over), dearer, is_over)
    if is_over or row < rows - 1:
        assert not is_same(checksum(holed, is_over), day, is_over)


@pytest.mark.parametrize("is_over", [False, True])
def test_a_checksum_fits_into_the_database(is_over: bool) -> None:
    assert 0 <= checksum(DAY, is_over) < 2**63
