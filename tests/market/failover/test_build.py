"""The venues of the settings as one market, and the file that says at whose level each stored series is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import WorkerError
from core.settings import Settings, load_settings
from market.build import STANDING, market_from, write_standing
from market.failover.failover import Failover
from market.store.kline_store import KlineStore
from market.store.sync import SyncReport, failed_in, sync_series
from tests.fakes.clock import FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import APART, NOW_MS, at_level, broken, newest, works

DAYS = 40
WHOLE = random_walk_klines(DAYS * 24 * 60 + 60, start_ms=NOW_MS - DAYS * DAY_MS)


@pytest.fixture
def settings(first: Venue, second: Venue, tmp_path: Path) -> Settings:
    """Both venues with forty days of one market, the second a little dearer; archives at the first alone."""
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = WHOLE, at_level(WHOLE, APART)
    return load_settings(
        market="binance",
        market_venues="binance,binanceus",
        binance_rest_urls=first.url,
        binance_archive_url=first.url,
        binance_us_rest_urls=second.url,
        data_dir=str(tmp_path),
    )


def updater(settings: Settings, clock: FakeClock) -> Failover:
    return market_from(settings, clock, topics=(), patience_s=0, writes=True)


def said_in(settings: Settings) -> dict[str, dict[str, object]]:
    said: dict[str, dict[str, object]] = json.loads((settings.klines_dir / STANDING).read_bytes())
    return said


def test_a_sync_that_is_broken_off_leaves_no_candles_of_a_level_that_nobody_knows(
    first: Venue, settings: Settings, clock: FakeClock
) -> None:
    """The first one ever, with the first venue down; whatever ends it, the next one finds at whose level they are."""
    first.handler = broken(Answer("sorry", 500))
    store = KlineStore(settings.klines_dir)

    def end(done: int, rows: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync_series(store, updater(settings, clock), "ETHUSDT", MINUTE_MS, NOW_MS - 30 * DAY_MS, NOW_MS, progress=end)
    stored = store.read("ETHUSDT", MINUTE_MS, 0, NOW_MS)
    assert len(stored)
    first.handler = works
    clock.time_ms += 30 * MINUTE_MS
    sync_series(store, updater(settings, clock), "ETHUSDT", MINUTE_MS, NOW_MS - 30 * DAY_MS, clock.time_ms)
    whole = store.read("ETHUSDT", MINUTE_MS, 0, clock.time_ms)
    true = WHOLE.between(NOW_MS - 30 * DAY_MS, clock.time_ms)
    np.testing.assert_array_equal(whole.open_time_ms, true.open_time_ms)
    np.testing.assert_allclose(whole.close, true.close * APART, rtol=1e-6)


def test_what_was_borrowed_stays_on_the_list_until_its_own_candles_are_stored(
    first: Venue, settings: Settings, clock: FakeClock
) -> None:
    market = updater(settings, clock)
    newest(market, rows=120)
    first.handler = broken(Answer("sorry", 500))
    clock.time_ms += 10 * MINUTE_MS
    newest(market, end_ms=clock.time_ms)
    lent = {"level": "binance", "borrowed": [[NOW_MS, clock.time_ms]]}
    assert said_in(settings) == {"ETHUSDT-1m": lent}
    first.handler = works
    clock.time_ms += MINUTE_MS
    newest(market, end_ms=clock.time_ms)
    assert not market.borrowed("ETHUSDT", MINUTE_MS)
    assert said_in(settings) == {"ETHUSDT-1m": lent}  # a kill now would lose them
    assert updater(settings, clock).borrowed("ETHUSDT", MINUTE_MS) == ((NOW_MS, NOW_MS + 10 * MINUTE_MS),)
    failed = SyncReport(symbol="ETHUSDT", interval_ms=MINUTE_MS, failure=WorkerError("the disk is full"))
    write_standing(settings.klines_dir, market, failed_in([failed]))
    assert said_in(settings) == {"ETHUSDT-1m": lent}
    assert market.borrowed("ETHUSDT", MINUTE_MS)  # they are asked for once more
    newest(market, end_ms=clock.time_ms)
    write_standing(settings.klines_dir, market, failed_in([replace(failed, failure=None)]))  # they are stored
    assert said_in(settings) == {"ETHUSDT-1m": {"level": "binance", "borrowed": []}}


def test_archive_files_begin_a_series_as_answers_do(settings: Settings, clock: FakeClock) -> None:
    clock.time_ms += DAY_MS
    assert updater(settings, clock).archive("ETHUSDT", MINUTE_MS, NOW_MS // DAY_MS * DAY_MS - DAY_MS)
    assert said_in(settings) == {"ETHUSDT-1m": {"level": "binance", "borrowed": []}}


@pytest.mark.parametrize(
    "text", ["", "[]", '{"ETHUSDT-1m": 5}', '{"ETHUSDT-9w": {"level": "x", "borrowed": []}}', "\0"]
)
def test_a_damaged_file_is_said_and_written_anew(settings: Settings, clock: FakeClock, text: str) -> None:
    settings.klines_dir.mkdir()
    (settings.klines_dir / STANDING).write_text(text)
    with capture_logs() as lines:
        market = updater(settings, clock)
    assert [line["event"] for line in lines] == ["venues_file_skipped"]
    newest(market)
    assert said_in(settings) == {"ETHUSDT-1m": {"level": "binance", "borrowed": []}}


def test_no_candle_is_handed_on_whose_level_cannot_be_kept(settings: Settings, clock: FakeClock) -> None:
    settings.klines_dir.write_text("not a folder")
    with pytest.raises(WorkerError, match="check the space, owner and mode of DATA_DIR"):
        newest(updater(settings, clock))


def test_inference_writes_nothing(settings: Settings, clock: FakeClock) -> None:
    market = market_from(settings, clock, topics=(), patience_s=0)
    newest(market)
    market.klines("ETHUSDT", MINUTE_MS, NOW_MS - HOUR_MS, NOW_MS)
    assert not (settings.klines_dir / STANDING).exists()
