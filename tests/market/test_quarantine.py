"""Rejected rows are counted once, and kept where a person can look at them."""

import json
from dataclasses import replace
from pathlib import Path

from core.clock import MINUTE_MS
from klines.checks import RejectedRow
from market.quarantine import FILE, Quarantine
from tests.fakes.clock import START_MS

CELLS = (1.0, float("inf"), *[float("nan")] * 7)
BAD = RejectedRow(open_time_ms=START_MS, reason="low is above open or close", row=CELLS)


def test_rejected_rows_are_kept_once_and_counted(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "klines")
    for venue, now_ms in (("binance", START_MS), ("binance", START_MS + MINUTE_MS), ("kraken", START_MS)):
        quarantine.put(venue, "ETHUSDT", MINUTE_MS, [BAD], now_ms)
    assert quarantine.counts == {(venue, "ETHUSDT", BAD.reason): 1 for venue in ("binance", "kraken")}
    assert quarantine.rejected("ETHUSDT", MINUTE_MS) == {START_MS: BAD.reason}
    lines = [json.loads(line) for line in (tmp_path / "klines" / FILE).read_text().splitlines()]
    assert [line["venue"] for line in lines] == ["binance", "kraken"]
    assert (lines[0]["open_time_ms"], lines[0]["high"], lines[0]["low"]) == (START_MS, "inf", None)


def test_a_time_that_could_not_be_read_is_kept_as_null(tmp_path: Path) -> None:
    Quarantine(tmp_path).put("binance", "ETHUSDT", MINUTE_MS, [replace(BAD, open_time_ms=-1)], START_MS)
    assert json.loads((tmp_path / FILE).read_text())["open_time_ms"] is None


def test_marked_rows_are_counted_once_and_not_kept(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    for _ in range(2):
        quarantine.mark("binance", "ETHUSDT", MINUTE_MS, [BAD])
    assert quarantine.marks == {("binance", "ETHUSDT", BAD.reason): 1}
    assert not quarantine.counts
    assert not quarantine.rejected("ETHUSDT", MINUTE_MS)
    assert not (tmp_path / FILE).exists()


def test_a_disk_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "klines").write_text("no folder")
    quarantine = Quarantine(tmp_path / "klines")
    quarantine.put("binance", "ETHUSDT", MINUTE_MS, [BAD], START_MS)
    assert sum(quarantine.counts.values()) == 1
