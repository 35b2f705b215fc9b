"""Archive files of Binance: their forms, checksums, and what is no archive."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import MalformedKlines, MarketUnavailable
from klines.klines import Klines
from market.quarantine import Quarantine
from market.venues.binance.archive import CSV_LIMIT_BYTES, csv_in_zip, read_archive
from market.venues.binance.rest import Binance
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import assert_same, random_walk_klines
from tests.fakes.venue_server import NOT_FOUND, Answer, Venue, csv_of, zip_of

WALK = random_walk_klines(3 * 1440)  # three whole days


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START_MS + 40 * DAY_MS)


@pytest.fixture
def venue(venue: Venue) -> Venue:
    venue.add("ETHUSDT", WALK)
    return venue


@pytest.fixture
def binance(venue: Venue, clock: FakeClock, quarantine: Quarantine) -> Binance:
    return Binance([venue.url], venue.url, clock, quarantine=quarantine)


def day_of(venue: Venue, binance: Binance, body: bytes) -> Klines:
    """What is read from a file with the right checksum."""
    venue.scripted = [Answer(body), Answer(f"{hashlib.sha256(body).hexdigest()}  ETHUSDT-1m-2023-11-15.zip")]
    day = binance.archive("ETHUSDT", MINUTE_MS, START_MS)
    assert day is not None
    return day


def test_a_day_and_a_month_come_from_their_files(venue: Venue, binance: Binance) -> None:
    day = binance.archive("ETHUSDT", MINUTE_MS, START_MS + DAY_MS + 5)
    assert day is not None
    assert_same(day, WALK.between(START_MS + DAY_MS, START_MS + 2 * DAY_MS))
    month = binance.archive("ETHUSDT", MINUTE_MS, START_MS, month=True)
    assert month is not None
    assert_same(month, WALK)
    assert [path for path, _ in venue.requests] == [
        "/data/spot/daily/klines/ETHUSDT/1m/ETHUSDT-1m-2023-11-16.zip",
        "/data/spot/daily/klines/ETHUSDT/1m/ETHUSDT-1m-2023-11-16.zip.CHECKSUM",
        "/data/spot/monthly/klines/ETHUSDT/1m/ETHUSDT-1m-2023-11.zip",
        "/data/spot/monthly/klines/ETHUSDT/1m/ETHUSDT-1m-2023-11.zip.CHECKSUM",
    ]
    assert binance.archive("ETHUSDT", MINUTE_MS, START_MS - DAY_MS) is None


ONE_DAY = WALK.between(START_MS, START_MS + DAY_MS)


def quoted(text: str) -> str:
    """The same with every cell in quotes."""
    return "".join(",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in text.splitlines())


FORMS: dict[str, str] = {
    "milliseconds": csv_of(ONE_DAY),
    "microseconds with header": csv_of(ONE_DAY, factor=1000, header=True),
    "a byte order mark and a header": "\ufeff" + csv_of(ONE_DAY, header=True),
    "a byte order mark": "\ufeff" + csv_of(ONE_DAY),
    "quotes around every cell": quoted(csv_of(ONE_DAY, header=True)),
    "rows twice": csv_of(ONE_DAY) * 2,
    "newest first": "".join(csv_of(ONE_DAY).splitlines(keepends=True)[::-1]),
    "lines end as on Windows": csv_of(ONE_DAY).replace("\n", "\r\n"),
    "empty lines at the end": csv_of(ONE_DAY) + "\n\n",
    "both units in one file": csv_of(ONE_DAY.rows(0, 700)) + csv_of(ONE_DAY.tail(740), factor=1000),
    "a row of the day before": csv_of(random_walk_klines(1, start_ms=START_MS - MINUTE_MS)) + csv_of(ONE_DAY),
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_archive_rows_are_read_in_every_form(venue: Venue, binance: Binance, text: str) -> None:
    assert_same(day_of(venue, binance, zip_of(("ETHUSDT-1m-2023-11-15.csv", text))), ONE_DAY)


GOOD = csv_of(ONE_DAY)
TORN = zip_of(("a.csv", GOOD))
TORN = TORN[:5000] + bytes(100) + TORN[5100:]


def lzma_torn() -> bytes:
    """A zip of another kind of compression, torn."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.csv", GOOD)
    content = buffer.getvalue()
    return content[:200] + bytes(100) + content[300:]


NO_ROWS: list[tuple[str, str | bytes, str]] = [
    ("an empty CSV", "", "no rows"),
    ("only a header", "open_time,open\n", "no rows"),
    ("three columns", "1,2,3\n", "12 columns"),
    ("no text", b"\xff\xfe\x00\x01", "no rows"),
    ("no text in lines", b"1,\xff\xfe\n\x00,2\n", "12 columns"),
    ("no cell a number", GOOD.replace(".", ";"), "price is not finite"),
    ("other separators", GOOD.replace(",", ";"), "12 columns"),
    ("half times", GOOD.replace("\n", ".5\n").replace("000,", "000.5,"), "grid"),
    ("many lines of nothing", "".join(f"{row}\nx\nx\n" for row in GOOD.splitlines()), "grid"),
]
NO_ARCHIVES: dict[str, tuple[bytes, str]] = {
    "a page": (b"<html>", "not a zip"),
    "cut off": (zip_of(("a.csv", GOOD))[:-30], "not a zip"),
    "torn": (TORN, "not a zip"),
    "torn within": (lzma_torn(), "not a zip"),
    "nothing inside": (zip_of(), "one CSV, holds 0"),
    "two inside": (zip_of(("a.csv", GOOD), ("b.csv", GOOD)), "one CSV, holds 2"),
    "another day": (zip_of(("a.csv", csv_of(WALK.tail(1440)))), "file's name"),
    "a zip bomb": (zip_of(("a.csv", bytes(65 << 20))), "larger than 64 MB"),
} | {name: (zip_of(("a.csv", text)), says) for name, text, says in NO_ROWS}


@pytest.mark.parametrize(("body", "says"), NO_ARCHIVES.values(), ids=NO_ARCHIVES)
def test_a_file_that_is_no_kline_archive_is_refused(venue: Venue, binance: Binance, body: bytes, says: str) -> None:
    with pytest.raises(MalformedKlines, match=says) as caught:
        day_of(venue, binance, body)
    assert "ETHUSDT-1m-2023-11-15.zip" in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda row: ",".join([row.split(",")[0], "", *row.split(",")[2:]]), "a price", id="an empty cell"),
        pytest.param(lambda row: row.replace(".", ";", 1), "a price", id="a cell that is no number"),
        pytest.param(lambda row: row.rsplit(",", 2)[0], "grid", id="cut off"),
        pytest.param(lambda row: f"{row},7", "grid", id="a column more"),
        pytest.param(lambda row: row.replace(".", "_", 1), "a price", id="a number as programs write it"),
        pytest.param(lambda row: row.replace(",", ',"', 1), "a price", id="a quote that does not end"),
        pytest.param(lambda row: "nan" + row[13:], "grid", id="no time"),
        pytest.param(lambda row: "1e300" + row[13:], "grid", id="a huge time"),
        pytest.param(lambda row: row[:13] + ".5" + row[13:], "grid", id="half a time"),
        pytest.param(lambda row: row[:13] + "500" + row[13:], "grid", id="a time in microseconds between two of ms"),
    ],
)
def test_one_bad_row_of_a_file_costs_no_other_its_place(
    venue: Venue, binance: Binance, quarantine: Quarantine, spoil: Callable[[str], str], says: str
) -> None:
    lines = csv_of(ONE_DAY).splitlines()
    lines[700] = spoil(lines[700])
    day = day_of(venue, binance, zip_of(("a.csv", "\n".join(lines))))
    at_ms = START_MS + 700 * MINUTE_MS
    assert_same(day, ONE_DAY.between(0, at_ms).merge(ONE_DAY.between(at_ms + MINUTE_MS, START_MS + DAY_MS)))
    ((_, _, reason),) = quarantine.counts
    assert says in reason


@pytest.mark.parametrize(
    ("checksum", "says"),
    [
        pytest.param("0" * 64 + "  ETHUSDT-1m-2023-11-15.zip", "its checksum file says 0000", id="of another file"),
        pytest.param("<html>", "holds no SHA-256", id="a page"),
    ],
)
def test_a_wrong_checksum_is_refused(venue: Venue, binance: Binance, checksum: str, says: str) -> None:
    venue.scripted = [Answer(zip_of(("a.csv", GOOD))), Answer(checksum)]
    with pytest.raises(MalformedKlines, match=says):
        binance.archive("ETHUSDT", MINUTE_MS, START_MS)


def test_without_a_checksum_file_the_archive_is_taken(venue: Venue, binance: Binance) -> None:
    venue.scripted = [Answer(zip_of(("a.csv", GOOD))), NOT_FOUND]
    day = binance.archive("ETHUSDT", MINUTE_MS, START_MS)
    assert day is not None
    assert len(day) == 1440


def test_a_broken_archive_host_is_not_waited_for_long(venue: Venue, binance: Binance, clock: FakeClock) -> None:
    venue.handler = lambda path, query: Answer("down", 500)
    with pytest.raises(MarketUnavailable, match="BINANCE_ARCHIVE_URL"):
        binance.archive("ETHUSDT", MINUTE_MS, START_MS)
    assert sum(clock.slept_s) <= 5
    venue.handler = lambda path, query: None
    assert len(binance.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 5 * MINUTE_MS)) == 5


@pytest.mark.parametrize(
    ("name", "interval_ms", "rows"),
    [
        pytest.param("BTCUSDT-15m-2024-03-14.zip", 15 * MINUTE_MS, 96, id="15m"),
        pytest.param("BTCUSDT-1h-2024-03-14.zip", HOUR_MS, 24, id="1h"),
        pytest.param("ETHUSDT-1d-2024-03-14.zip", DAY_MS, 1, id="1d"),
        pytest.param("BTCUSDT-1m-2022-11-09.part.csv", MINUTE_MS, 30, id="a wild hour"),
        pytest.param("BTCUSDT-1m-2023-03-24.part.csv", MINUTE_MS, 30, id="a halt, with an irregular close time"),
        pytest.param("BTCUSDT-1h-2024-12.head.csv", HOUR_MS, 24, id="milliseconds"),
        pytest.param("BTCUSDT-1h-2025-01.head.csv", HOUR_MS, 24, id="microseconds"),
        pytest.param("BTCUSDT-5m-2025-01.futures.head.csv", 5 * MINUTE_MS, 23, id="header"),
    ],
)
def test_genuine_files_are_read(payloads: Path, name: str, interval_ms: int, rows: int) -> None:
    body = (payloads / "binance" / name).read_bytes()
    body = body if name.endswith(".zip") else zip_of(("a.csv", body))
    found = read_archive(body, interval_ms, 0, 2**62)
    assert (len(found.klines), found.rejected) == (rows, ())
    last = csv_in_zip(body, CSV_LIMIT_BYTES)[1].splitlines()[-1].split(b",")
    assert found.klines.close[-1] == float(last[4])
    assert found.klines.open_time_ms[-1] == int(last[0][:13])
