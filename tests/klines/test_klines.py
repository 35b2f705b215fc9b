"""Klines keep their rules, and their operations agree with doing it row by row."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import ConfigError, MalformedKlines
from klines.klines import FLOW_COLUMNS, Klines
from klines.spans import INTERVALS, interval_name, month_span
from tests.fakes.clock import START_MS
from tests.fakes.klines import only, random_walk_klines

Row = tuple[float, ...]


def rows_of(klines: Klines) -> dict[int, Row]:
    return {at: tuple(row) for at, row in zip(klines.open_time_ms.tolist(), klines.table().tolist(), strict=True)}


def picked(rows: list[int], *, seed: int = 0, start_ms: int = START_MS) -> Klines:
    """Those rows of a walk, so that the others are gaps."""
    whole = random_walk_klines(max(rows, default=0) + 1, seed=seed, start_ms=start_ms)
    return only(whole, np.array(sorted(set(rows)), dtype=np.int64))


some_rows = st.lists(st.integers(0, 40), max_size=30)


def test_a_flow_other_than_volume_may_be_below_0() -> None:
    """Months that an earlier release stored may hold one; a check of new rows rejects it."""
    walk = random_walk_klines(5)
    assert len(replace(walk, quote_volume=np.full(5, -1e-9))) == 5
    with pytest.raises(MalformedKlines, match="a flow is below 0"):
        replace(walk, volume=np.full(5, -1.0))


@pytest.mark.parametrize(
    ("row", "at_ms", "says"),
    [
        pytest.param(1, START_MS + 1, "grid", id="time off the grid"),
        pytest.param(1, START_MS, "rise strictly", id="time twice"),
        pytest.param(2, START_MS - MINUTE_MS, "rise strictly", id="time falls"),
    ],
)
def test_a_time_that_breaks_a_rule_is_refused_and_named(row: int, at_ms: int, says: str) -> None:
    """The rules of prices and volumes: test_checks."""
    times = START_MS + MINUTE_MS * np.arange(4)
    times[row] = at_ms
    with pytest.raises(MalformedKlines, match=f"{says}: kline at {iso(at_ms)}"):
        replace(random_walk_klines(4), open_time_ms=times)


def test_columns_have_one_length_and_flows_that_the_venue_does_not_have_are_nan() -> None:
    good = random_walk_klines(4)
    with pytest.raises(MalformedKlines, match="trades has shape"):
        replace(good, trades=np.ones(3))
    assert len(replace(good, trades=np.full(4, np.nan))) == 4


@given(old=some_rows, new=some_rows)
def test_merge_keeps_every_row_and_the_newer_of_two(old: list[int], new: list[int]) -> None:
    a, b = picked(old, seed=1), picked(new, seed=2)
    assert rows_of(a.merge(b)) == dict(sorted((rows_of(a) | rows_of(b)).items()))


@given(rows=some_rows)
def test_gaps_are_the_times_between_first_and_last_that_are_not_there(rows: list[int]) -> None:
    klines = picked(rows)
    times = set(klines.open_time_ms.tolist())
    inside = set(range(min(times), max(times), MINUTE_MS)) if times else set()
    spans = list(klines.gaps())
    assert {at for start, end in spans for at in range(start, end, MINUTE_MS)} == inside - times
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))


@given(rows=some_rows)
def test_run_length_counts_back_to_the_last_hole(rows: list[int]) -> None:
    klines = picked(rows)
    times = set(klines.open_time_ms.tolist())
    expected = []
    for at in klines.open_time_ms.tolist():
        length = 1
        while at - length * MINUTE_MS in times:
            length += 1
        expected.append(length)
    assert klines.run_length().tolist() == expected


@given(rows=some_rows, shift=st.integers(0, 9), factor=st.integers(1, 7))
def test_resample_is_the_candle_of_each_whole_group(rows: list[int], shift: int, factor: int) -> None:
    klines = picked(rows, start_ms=START_MS + shift * MINUTE_MS)
    longer = klines.resample(factor * MINUTE_MS)
    seen = rows_of(klines)
    expected = {}
    for start in sorted({at // (factor * MINUTE_MS) * factor * MINUTE_MS for at in seen}):
        group = [seen.get(start + n * MINUTE_MS) for n in range(factor)]
        whole = [row for row in group if row is not None]
        if len(whole) == factor:
            flows = [sum(row[4 + n] for row in whole) for n in range(len(FLOW_COLUMNS))]
            expected[start] = (
                whole[0][0],
                max(row[1] for row in whole),
                min(row[2] for row in whole),
                whole[-1][3],
                *flows,
            )
    found = rows_of(longer)
    assert list(found) == list(expected)
    for at, row in found.items():
        assert row == pytest.approx(expected[at])


@given(rows=some_rows, start=st.integers(-5, 45), end=st.integers(-5, 45), count=st.integers(0, 50))
def test_between_tail_and_closed_choose_rows(rows: list[int], start: int, end: int, count: int) -> None:
    klines = picked(rows)
    times = klines.open_time_ms.tolist()
    first, last = START_MS + start * MINUTE_MS, START_MS + end * MINUTE_MS
    assert klines.between(first, last).open_time_ms.tolist() == [at for at in times if first <= at < last]
    assert klines.tail(count).open_time_ms.tolist() == times[max(0, len(times) - count) :]
    assert klines.closed(last).open_time_ms.tolist() == [at for at in times if at + MINUTE_MS <= last]
    assert klines.end_ms == (times[-1] + MINUTE_MS if times else 0)


@given(rows=st.lists(st.integers(0, 40), max_size=30, unique=True), cut=st.integers(0, 41))
def test_joined_is_the_inverse_of_cutting(rows: list[int], cut: int) -> None:
    klines, at = picked(rows), START_MS + cut * MINUTE_MS
    halves = [klines.between(0, at), klines.between(at, 2**62)]
    assert rows_of(Klines.joined(MINUTE_MS, halves)) == rows_of(klines)


WALK, HOURS = random_walk_klines(3), random_walk_klines(3, HOUR_MS)


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        (lambda: WALK.merge(HOURS), "intervals differ: 60000 ms and 3600000 ms"),
        (lambda: Klines.joined(HOUR_MS, [WALK]), "intervals differ: 3600000 ms and 60000 ms"),
        (lambda: Klines.joined(MINUTE_MS, [WALK, WALK]), "rise strictly"),
        (lambda: HOURS.resample(90 * MINUTE_MS), "not a multiple"),
    ],
)
def test_klines_that_do_not_fit_are_refused(operation: Callable[[], Klines], says: str) -> None:
    with pytest.raises(MalformedKlines, match=says):
        operation()


Operation = Callable[[Klines, Klines, int, int], Klines]


def ms(row: int) -> int:
    return START_MS + row * MINUTE_MS


OPERATIONS: list[Operation] = [
    lambda one, other, x, y: Klines.joined(MINUTE_MS, []),
    lambda one, other, x, y: one.between(ms(x), ms(y)),
    lambda one, other, x, y: one.rows(x, y),
    lambda one, other, x, y: one.tail(x),
    lambda one, other, x, y: one.closed(ms(x)),
    lambda one, other, x, y: one.merge(other),
    lambda one, other, x, y: Klines.joined(MINUTE_MS, [one.between(0, ms(x)), other.between(ms(x), 2**62)]),
    lambda one, other, x, y: Klines.from_table(MINUTE_MS, one.open_time_ms, one.table()),
]
operations = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 41), st.integers(0, 41))


@given(old=some_rows, new=some_rows, steps=st.lists(operations))
def test_every_operation_keeps_the_rules(
    old: list[int], new: list[int], steps: list[tuple[Operation, int, int]]
) -> None:
    klines, other = picked(old, seed=1), picked(new, seed=2)
    for operation, x, y in steps:
        klines, other = operation(klines, other, x, y), klines
        assert rows_of(replace(klines)) == rows_of(klines)  # replace builds klines anew, which checks every rule


def test_intervals_have_binance_names() -> None:
    assert {INTERVALS[ms] for ms in (MINUTE_MS, 15 * MINUTE_MS, HOUR_MS, DAY_MS)} == {"1m", "15m", "1h", "1d"}
    with pytest.raises(ConfigError, match="no klines of 7 ms"):
        interval_name(7)


@given(day=st.integers(0, 40_000))
def test_months_follow_each_other(day: int) -> None:
    start, end = month_span(day * DAY_MS)
    assert start <= day * DAY_MS < end
    assert month_span(end)[0] == end
    assert month_span(end - 1) == (start, end)
