"""A file or page in another unit, sound in itself and with a checksum that fits, is not stored; REST fills the time."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from core.clock import DAY_MS, MINUTE_MS
from core.errors import MalformedKlines
from klines.klines import PRICE_COLUMNS, Klines
from klines.plausible import LEAPT
from klines.spans import Span
from market.quarantine import Quarantine
from market.store.kline_store import KlineStore
from market.store.scale_break import BREAK, SPIKE, ScaleBreak, checked
from market.store.sync import SyncReport, sync_all
from market.venues.binance.rest import Binance
from tests.fakes.clock import FakeClock
from tests.fakes.klines import assert_same, random_walk_klines
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import with_row

FIRST_MS = 1_696_118_400_000  # 2023-10-01
NOW_MS = FIRST_MS + 33 * DAY_MS + 617 * MINUTE_MS + 30_000  # the third of November
END_MS = NOW_MS // MINUTE_MS * MINUTE_MS
WALK = random_walk_klines((NOW_MS - FIRST_MS) // MINUTE_MS + 60, start_ms=FIRST_MS)


def day(number: int) -> Span:
    """A day since the first of October."""
    return FIRST_MS + (number - 1) * DAY_MS, FIRST_MS + number * DAY_MS


OCTOBER = (FIRST_MS, day(31)[1])


@lru_cache  # a venue makes its files of a series once
def times(factor: float, *spans: Span) -> Klines:
    """The walk with the prices of some spans in another unit."""
    inside = np.zeros(len(WALK), np.bool_)
    for start, end in spans:
        inside |= (WALK.open_time_ms >= start) & (WALK.open_time_ms < end)
    priced = (*PRICE_COLUMNS, "quote_volume", "taker_buy_quote")
    columns = {name: np.where(inside, getattr(WALK, name) * factor, getattr(WALK, name)) for name in priced}
    return replace(WALK, **columns)


class Synced:
    """A venue whose archives have other klines than REST, and its folder."""

    def __init__(self, venue: Venue, folder: Path) -> None:
        self.venue, self.quarantine, self.store = venue, Quarantine(), KlineStore(folder)
        venue.add("ETHUSDT", WALK)
        clock = FakeClock(NOW_MS)
        self.binance = Binance([venue.url], venue.url, clock, patience_s=0, quarantine=self.quarantine)

    def serve(self, files: Klines, rest: Klines | None = WALK) -> None:
        def handle(path: str, query: dict[str, str]) -> Answer | None:
            self.venue.series["ETHUSDT", "1m"] = files if path.startswith("/data/") or rest is None else rest
            return Answer("barred", 451) if path.startswith("/api/") and rest is None else None

        self.venue.handler = handle

    def sync(self, start_ms: int = FIRST_MS) -> SyncReport:
        return sync_all(
            self.store, self.binance, [("ETHUSDT", MINUTE_MS, start_ms)], NOW_MS, quarantine=self.quarantine
        )[0]

    def assert_holds(self, missing: Sequence[Span] = (), start_ms: int = FIRST_MS, whole: Klines = WALK) -> None:
        """The series but for some spans."""
        found, inside = self.store.read("ETHUSDT", MINUTE_MS, 0, 2**62), whole.open_time_ms >= start_ms
        for start, end in [*missing, (END_MS, 2**62)]:
            inside &= ~((whole.open_time_ms >= start) & (whole.open_time_ms < end))
        assert_same(found, whole.where(inside))


@pytest.fixture
def synced(venue: Venue, tmp_path: Path) -> Synced:
    return Synced(venue, tmp_path / "klines")


@pytest.mark.parametrize("factor", [100.0, 0.01])
@pytest.mark.parametrize(
    ("start_ms", "spans"),
    [
        pytest.param(FIRST_MS, [OCTOBER], id="a month"),
        pytest.param(FIRST_MS, [(FIRST_MS, 2**62)], id="all files"),
        pytest.param(day(23)[0], [day(24), day(26), day(27)], id="a day and two"),
        pytest.param(day(23)[0], [day(23)], id="the oldest day"),
        pytest.param(day(23)[0], [day(33)], id="the newest day"),
        pytest.param(day(23)[0], [(day(26)[0] + DAY_MS // 2, day(28)[1])], id="from the middle of a day"),
    ],
)
def test_files_in_another_unit_come_by_rest(synced: Synced, start_ms: int, spans: list[Span], factor: float) -> None:
    synced.serve(times(factor, *spans))
    with capture_logs() as lines:
        report = synced.sync(start_ms)
    assert (report.failure, report.gaps, report.rejected) == (None, (), "")
    synced.assert_holds(start_ms=start_ms)
    said = [line for line in lines if line["event"] == "scale_break"]
    assert {round(abs(np.log10(line["factor"]))) for line in said} == {2}
    assert all(line["file"][:4] in {"mont", "day "} for line in said)
    assert {reason for _, _, reason in synced.quarantine.counts} == {BREAK}


def test_while_rest_is_away_the_hole_stays(synced: Synced) -> None:
    """Nothing is known of which file is right, but that they are not of one unit: what came first is kept."""
    synced.serve(WALK)
    synced.sync(day(29)[0])
    synced.serve(times(100.0, day(26)), rest=None)
    assert synced.sync(day(23)[0]).gaps == (day(26),)
    synced.assert_holds([day(26)], day(23)[0])
    synced.serve(times(100.0, day(26)))
    assert synced.sync(day(23)[0]).gaps == ()
    synced.assert_holds(start_ms=day(23)[0])


def test_a_page_in_another_unit_is_refused_and_says_so(synced: Synced) -> None:
    synced.serve(WALK)
    synced.sync(day(29)[0])
    synced.venue.has_archives = False
    synced.serve(WALK, rest=times(0.01, (FIRST_MS, day(28)[1])))
    report = synced.sync(day(27)[0])
    assert isinstance(report.failure, MalformedKlines)
    assert "times the one before: another unit or asset?" in str(report.failure)
    synced.assert_holds(start_ms=day(29)[0])
    synced.serve(WALK)
    assert synced.sync(day(27)[0]).failure is None
    synced.assert_holds(start_ms=day(27)[0])


def test_a_break_below_twentyfold_is_stored_and_marked(synced: Synced) -> None:
    three = times(3.0, (FIRST_MS, day(25)[1]))
    synced.serve(three, rest=three)
    assert synced.sync(day(23)[0]).failure is None
    synced.assert_holds(start_ms=day(23)[0], whole=three)
    assert synced.quarantine.marks == {("binance", "ETHUSDT", LEAPT): 1}


BEFORE, AFTER = WALK.rows(0, 300), WALK.rows(400, 700)
BETWEEN = WALK.rows(300, 400)


def test_a_spike_costs_itself_and_a_leap_waits_for_candles_that_follow() -> None:
    at_ms = int(BETWEEN.open_time_ms[50])
    found = checked(with_row(BETWEEN, at_ms, close=9e5, high=9e5), BEFORE.merge(AFTER))
    assert ([row.reason for row in found.rejected], len(found.klines)) == ([SPIKE], 99)
    last_ms = int(BETWEEN.open_time_ms[-1])
    risen = with_row(BETWEEN, last_ms, close=BETWEEN.close[-1] * 1.5, high=BETWEEN.close[-1] * 2)
    assert checked(risen, BEFORE).klines.end_ms == last_ms
    assert checked(BETWEEN, BEFORE).klines is not None


@pytest.mark.parametrize("beside", [BEFORE, AFTER, BEFORE.merge(AFTER)], ids=["before", "after", "both"])
def test_either_neighbour_tells_a_break(beside: Klines) -> None:
    spoilt = times(21.0, (int(BETWEEN.open_time_ms[0]), BETWEEN.end_ms)).rows(300, 400)
    with pytest.raises(ScaleBreak, match="another unit or asset"):
        checked(spoilt, beside)
    assert not checked(spoilt, Klines.empty(MINUTE_MS)).rejected
    doubled = times(2.5, (int(BETWEEN.open_time_ms[0]), BETWEEN.end_ms)).rows(300, 400)
    assert {row.reason for row in checked(doubled, BEFORE).marked} == {LEAPT}
