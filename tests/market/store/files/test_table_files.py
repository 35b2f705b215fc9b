"""Klines in files: exact round trips in every form, and whatever else programs write."""

import gzip
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import ConfigError, MalformedKlines
from klines.klines import COLUMNS, FLOW_COLUMNS, Klines
from market.store.files.table_files import KlineFile, ending_of, read_klines, write_klines
from market.venues.binance.archive import CSV_LIMIT_BYTES, csv_in_zip, read_archive
from tests.fakes.clock import START_MS
from tests.fakes.klines import assert_exact, random_walk_klines
from tests.fakes.venue_server import csv_of, zip_of

NOW_MS = 1_764_085_587_000
WALK = random_walk_klines(200)
IN_2025_MS = 1_735_689_600_000
ENDINGS = [".csv", ".parquet", ".zip"]


def as_written(klines: Klines) -> Klines:
    """With the eight decimals of the venue's texts."""
    return replace(klines, **{name: np.round(getattr(klines, name), 8) for name in COLUMNS})


def without(klines: Klines, *names: str) -> Klines:
    unknown: Any = np.full(len(klines), np.nan)
    return replace(klines, **dict.fromkeys(names, unknown))


def around_2025() -> Klines:
    return random_walk_klines(100, start_ms=IN_2025_MS - 50 * MINUTE_MS)


def read(
    folder: Path, content: str | bytes | bytearray, name: str = "file.csv", *, interval_ms: int = MINUTE_MS
) -> KlineFile:
    """Klines of a file with some content."""
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_klines(folder / name, interval_ms, NOW_MS)


def read_altered(folder: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> KlineFile:
    """Klines of a Parquet file of the walk that another program has changed."""
    write_klines(folder / "a.parquet", "ETHUSDT", WALK)
    change(pl.read_parquet(folder / "a.parquet")).write_parquet(folder / "a.parquet")
    return read_klines(folder / "a.parquet", MINUTE_MS, NOW_MS)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "klines",
    [
        pytest.param(WALK, id="every digit"),
        pytest.param(without(WALK, *FLOW_COLUMNS[1:]), id="no flows"),
        pytest.param(Klines.joined(MINUTE_MS, [WALK.between(0, START_MS + DAY_MS // 24), WALK.tail(20)]), id="a gap"),
        pytest.param(around_2025(), id="into 2025, when archives began to count in microseconds"),
    ],
)
def test_a_round_trip_is_exact(tmp_path: Path, ending: str, klines: Klines) -> None:
    path = tmp_path / f"file{ending}"
    write_klines(path, "ETHUSDT", klines)
    found = read_klines(path, klines.interval_ms, NOW_MS)
    assert found.rejected == ()
    assert_exact(found.klines, klines)


@settings(max_examples=60, deadline=None)
@given(
    ending=st.sampled_from(ENDINGS),
    prices=st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=8),
    flow=st.floats(0, 1e15) | st.just(float("nan")),
)
def test_every_number_is_told_exactly(ending: str, prices: list[float], flow: float) -> None:
    price, volume = np.array(prices), np.full(len(prices), 0.1)
    columns = dict.fromkeys(("open", "high", "low", "close"), price) | dict.fromkeys(FLOW_COLUMNS, volume)
    columns |= {"trades": np.full(len(prices), flow), "quote_volume": volume * price, "taker_buy_quote": volume * price}
    times = START_MS + MINUTE_MS * np.arange(len(prices))
    klines = Klines(interval_ms=MINUTE_MS, open_time_ms=times, **columns)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{ending}"
        write_klines(path, "ETHUSDT", klines)
        assert_exact(read_klines(path, MINUTE_MS, NOW_MS).klines, klines)


def test_a_zip_is_as_the_archive_has_it(tmp_path: Path) -> None:
    klines = as_written(around_2025())
    write_klines(tmp_path / "ETHUSDT-1m-2025.zip", "ETHUSDT", klines)
    body = (tmp_path / "ETHUSDT-1m-2025.zip").read_bytes()
    assert_exact(read_archive(body, MINUTE_MS, 0, 2**62).klines, klines)
    frame = pl.read_csv(csv_in_zip(body, CSV_LIMIT_BYTES)[1], has_header=False, infer_schema=False)
    assert frame.width == 12
    assert frame.row(0)[0] == str(klines.open_time_ms[0])
    assert frame.row(-1)[0] == str(klines.open_time_ms[-1] * 1000)
    assert frame.row(-1)[6] == str((klines.open_time_ms[-1] + MINUTE_MS) * 1000 - 1)
    assert frame.row(0)[1] == f"{klines.open[0]:.8f}"
    assert frame.row(0)[8] == str(int(klines.trades[0]))


# -- what others write ------------------------------------------------------------------------------------------------

PLAIN = as_written(WALK)
LINES = csv_of(PLAIN).splitlines()


def first_columns(count: int) -> str:
    return "\n".join(",".join(line.split(",")[:count]) for line in LINES)


def dated(write: Callable[[datetime], str]) -> str:
    """With a header and dates, in quotes as some programs put them."""
    names = "date,open,high,low,close,volume,close_time,quote_volume,trades,taker_buy_base,taker_buy_quote,ignore"
    rows = (line.partition(",") for line in LINES)
    return names + "".join(f'\n"{write(datetime.fromtimestamp(int(at) / 1000, UTC))}",{rest}' for at, _, rest in rows)


def test_whole_numbers_of_trades_are_written_as_such(tmp_path: Path) -> None:
    whole = replace(PLAIN, trades=np.where(np.arange(len(PLAIN)) == 3, np.nan, np.floor(PLAIN.trades)))
    for trades, written in ((whole.trades, r"[0-9]*"), (whole.trades + 0.5, r"([0-9]+\.5)?")):
        klines = replace(PLAIN, trades=trades)
        write_klines(tmp_path / "a.csv", "ETHUSDT", klines)
        header, *rows = (tmp_path / "a.csv").read_text().splitlines()
        place = header.split(",").index("trades")
        assert all(re.fullmatch(written, row.split(",")[place]) for row in rows)
        assert_exact(read_klines(tmp_path / "a.csv", MINUTE_MS, NOW_MS).klines, klines)


def test_days_are_read_by_their_dates(tmp_path: Path) -> None:
    days = as_written(random_walk_klines(30, DAY_MS))
    rows = (line.split(",") for line in csv_of(days).splitlines())
    lines = [f"{datetime.fromtimestamp(int(row[0]) / 1000, UTC):%Y-%m-%d},{','.join(row[1:6])}" for row in rows]
    found = read(tmp_path, "\n".join(lines), interval_ms=DAY_MS)
    assert_exact(found.klines, without(days, *FLOW_COLUMNS[1:]))
    assert found.notes == ("times without an offset are read as UTC",)


@pytest.mark.parametrize("nothing", ["", "null", "NaN", "None", "N/A", "no column"])
def test_a_flow_of_nothing_is_not_known(tmp_path: Path, nothing: str) -> None:
    text = "\n".join(",".join([*line.split(",")[:7], *[nothing] * 4, "0"]) for line in LINES)
    text = first_columns(6) if nothing == "no column" else text
    assert_exact(read(tmp_path, text, "file.CSV").klines, without(PLAIN, *FLOW_COLUMNS[1:]))


def test_what_macos_adds_to_a_zip_is_passed_over(tmp_path: Path) -> None:
    macos = ("__MACOSX/ETH/._ETHUSDT-1m.csv", "x"), ("._a.csv", "x")
    found = read(tmp_path, zip_of(("ETH/", ""), ("ETH/ETHUSDT-1m.csv", csv_of(PLAIN)), *macos), "file.zip")
    assert found.member == "ETHUSDT-1m.csv"
    assert_exact(found.klines, PLAIN)


def test_a_locked_zip_is_told(tmp_path: Path) -> None:
    content = bytearray(zip_of(("a.csv", csv_of(PLAIN))))
    content[6] |= 1  # of the member
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and of the list of members
    with pytest.raises(MalformedKlines, match=r"a\.csv in the zip is locked by a password"):
        read(tmp_path, content, "file.zip")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(csv_of(PLAIN), id="as the archive has it"),
        pytest.param(csv_of(PLAIN).encode("utf-8-sig"), id="a byte order mark"),
        pytest.param(csv_of(PLAIN).encode("utf-16"), id="UTF-16"),
        pytest.param(csv_of(PLAIN, factor=1000), id="microseconds"),
        pytest.param(csv_of(PLAIN).replace("\n", "\r\n"), id="lines end as on Windows"),
        pytest.param("\n".join(LINES[::-1]), id="newest first"),
        pytest.param("\n".join(LINES + LINES[:50]), id="rows twice"),
        pytest.param(csv_of(PLAIN) + "\n\n", id="empty lines at the end"),
        pytest.param(csv_of(PLAIN).replace(f"\n{START_MS + MINUTE_MS},", f"\n {START_MS + MINUTE_MS} ,"), id="blanks"),
        pytest.param("// https://where.it/is/from\n" + csv_of(PLAIN), id="a comment with slashes"),
        pytest.param("# minutes\n\n" + csv_of(PLAIN).replace("\n", "\n\n  \n", 3), id="a comment and empty lines"),
        pytest.param(dated(lambda at: at.isoformat().replace("+00:00", "Z")), id="ISO with Z"),
        pytest.param(dated(lambda at: at.astimezone(timezone(timedelta(hours=5.5))).isoformat()), id="ISO, an offset"),
        pytest.param(dated(lambda at: f"{at:%Y-%m-%d %H:%M:%S}"), id="date and time"),
        pytest.param(dated(lambda at: f"{at:%Y-%m-%d %H:%M}"), id="to the minute"),
        pytest.param(dated(lambda at: f"{at:%Y-%m-%dT%H:%M:%S.000} UTC"), id="UTC in letters"),
        pytest.param(
            "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
            f"taker_buy_quote_volume,ignore\n{csv_of(PLAIN)}",
            id="the header of the archive's futures",
        ),
        pytest.param(
            '"Open time","Open","High","Low","Close","Volume","Close time","Quote asset volume","Number of trades",'
            f'"Taker buy base asset volume","Taker buy quote asset volume","Ignore"\n{csv_of(PLAIN)}',
            id="a header in words and quotes",
        ),
        pytest.param(
            "\n".join(
                ["close,timestamp,open,low,high,volume,quote_volume,trades,taker_buy_base,taker_buy_quote,note"]
                + [
                    ",".join([c[4], c[0], c[1], c[3], c[2], c[5], *c[7:11], "x"])
                    for c in (line.split(",") for line in LINES)
                ]
            ),
            id="another order, with a column more",
        ),
    ],
)
def test_csv_is_read_in_every_form(tmp_path: Path, text: str | bytes) -> None:
    found = read(tmp_path, text)
    assert found.rejected == ()
    assert_exact(found.klines, PLAIN)


def shuffled(*places: int) -> str:
    """The archive's columns in another order."""
    return "\n".join(",".join(line.split(",")[place] for place in places) for line in LINES)


def flat(first: int, step: int) -> str:
    return "".join(f"{first + row * step},1,1,1,1,1\n" for row in range(30))


def headed(end: str) -> str:
    return f"time,open,high,low,{end}\n{first_columns(6)}"


def test_minutes_that_lie_differently_far_off_the_grid_are_taken_and_told(tmp_path: Path) -> None:
    rows = [line.split(",") for line in LINES]
    late = [(int(row[0]) + 1 + 37 * number % 50_000, row[1:6]) for number, row in enumerate(rows)]
    found = read(tmp_path, "".join(f"{at_ms},{','.join(cells)}\n" for at_ms, cells in late), "a.csv")
    np.testing.assert_array_equal(found.klines.open_time_ms, PLAIN.open_time_ms)
    np.testing.assert_array_equal(found.klines.close, PLAIN.close)
    assert not found.rejected
    (said,) = found.notes
    assert f"{len(PLAIN):,} rows used, and odd, the first of {iso(late[0][0])}: open time is off the grid, not" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *[pytest.param(first_columns(count), f"6 or 12 columns, was {count} in line 1", id=f"the first {count}")
          for count in (2, 5, 7, 8, 9, 10, 11)],
        pytest.param(
            "\n".join(f"{line},{row % 2}" for row, line in enumerate(first_columns(8).splitlines())),
            "6 or 12 columns, was 9 in line 1: '1700006400000,2000.0",
            id="nine, the last a flag",
        ),
        pytest.param(shuffled(0, 1, 2, 3, 4, 5, 7, 6, 8, 9, 10, 11), "line 1: column 7 '", id="close time elsewhere"),
        pytest.param(shuffled(0, 1, 2, 3, 4, 5, 6, 7, 9, 8, 10, 11), "must count trades", id="trades elsewhere"),
        pytest.param(shuffled(0, 1, 2, 3, 4, 5, 6, 7, 11, 9, 10, 8), "must count trades", id="a flag for trades"),
        pytest.param(shuffled(0, 1, 2, 3, 4, 7, 6, 5, 8, 9, 10, 11), "quote volume must be between", id="volumes"),
        pytest.param(shuffled(0, 1, 2, 3, 4, 9, 6, 7, 8, 5, 10, 11), "quote volume must be between", id="takers"),
        pytest.param(shuffled(0, 3, 2, 1, 4, 5), "the low must be the lowest", id="low, high, open, close"),
        pytest.param(shuffled(0, 1, 4, 2, 3, 5), "must be the", id="open, close, high, low"),
        pytest.param(csv_of(PLAIN).replace("59999,", "59998,"), "must be the end of its candle", id="another end"),
        pytest.param(flat(START_MS // 1000, 60), "seconds are to be multiplied by 1000", id="seconds"),
        pytest.param(flat(START_MS * 10**6, 10**6 * MINUTE_MS), "nanoseconds are to be divided by 1,000,000", id="ns"),
        pytest.param(flat(45352, 60), "line 1: column 1 '45352' must be .*a spreadsheet counts days", id="days"),
        pytest.param(headed("close,timestamp"), "has the column open_time twice", id="two times"),
        pytest.param(headed("close,Close"), "'close' is column 5 and 'Close' column 6", id="two closes"),
        pytest.param(headed("last,volume"), "has no column close, only time, open", id="another name"),
        pytest.param(headed("close,"), "has no column volume, only", id="no name"),
    ],
)  # fmt: skip
def test_columns_in_another_order_need_a_header_that_names_each_once(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(MalformedKlines, match=says):
        read(tmp_path, text)


def test_columns_with_other_names_are_left_out_and_named(tmp_path: Path) -> None:
    found = read(tmp_path, "time,open,high,low,close,volume,close_time,vwap,\n" + shuffled(0, 1, 2, 3, 4, 5, 6, 8, 9))
    assert found.notes == ("columns not read: vwap, number 9 without a name",)
    assert_exact(found.klines, without(PLAIN, *FLOW_COLUMNS[1:]))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda frame: frame, id="ours"),
        pytest.param(lambda frame: frame.rename({"open_time_ms": "open_time"}), id="open_time"),
        pytest.param(lambda frame: frame.with_columns(close_time=pl.lit(0), more=pl.lit("x")), id="columns more"),
        pytest.param(lambda frame: frame.with_columns(pl.col("open_time_ms") * 1000), id="microseconds"),
        pytest.param(lambda frame: frame.with_columns(pl.from_epoch("open_time_ms", "ms")), id="moments"),
        pytest.param(lambda frame: frame.with_columns(pl.col("trades").cast(pl.Int64)), id="counts that are whole"),
        pytest.param(
            lambda frame: frame.with_columns(pl.from_epoch("open_time_ms", "ms").cast(pl.Datetime("ns", "UTC"))),
            id="moments of UTC in ns",
        ),
        pytest.param(lambda frame: frame.with_columns(pl.col("open_time_ms", "close").cast(pl.String)), id="texts"),
        pytest.param(lambda frame: frame.reverse(), id="newest first"),
    ],
)
def test_parquet_is_read_in_every_form(tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    assert_exact(read_altered(tmp_path, change).klines, WALK)
    nulls = {"trades": pl.lit(None, pl.Int64), "quote_volume": pl.lit(None)}
    found = read_altered(tmp_path, lambda frame: change(frame.with_columns(**nulls))).klines
    assert_exact(found, without(WALK, "trades", "quote_volume"))


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        (lambda row: row % 2, "100 rows whose trades count none, such as line 2: column trades '0'"),
        (lambda row: row + 0.5, "200 rows whose trades count none, such as line 2: column trades '0.5'"),
        (lambda row: row + 1, ""),
    ],
    ids=["a flag", "no whole numbers", "counts"],
)
def test_trades_that_count_none_are_told(tmp_path: Path, flag: Callable[[int], float], says: str) -> None:
    numbers = pl.Series("trades", [flag(row) for row in range(len(WALK))])
    write_klines(tmp_path / "a.csv", "ETHUSDT", WALK)
    pl.read_csv(tmp_path / "a.csv").with_columns(numbers).write_csv(tmp_path / "a.csv")
    found = read_klines(tmp_path / "a.csv", MINUTE_MS, NOW_MS)
    assert len(found.klines) == len(WALK)
    assert found.notes == ((says,) if says else ())


def test_real_klines_are_read_and_come_back(shared_data: Path, tmp_path: Path) -> None:
    for name, interval_ms, rows in (
        ("BTCUSDT-1m-20230322-20230325", MINUTE_MS, 5_680),
        ("BTCUSDT-5m-20240101-20240331", 5 * MINUTE_MS, 26_208),
        ("BNBUSDT-1h-20220101-20240331", HOUR_MS, 19_703),
    ):
        klines = read_klines(shared_data / "spot" / f"{name}.parquet", interval_ms, NOW_MS).klines
        assert len(klines) == rows
        for ending in ENDINGS:
            write_klines(tmp_path / f"{name}{ending}", "BTCUSDT", klines)
            assert_exact(read_klines(tmp_path / f"{name}{ending}", interval_ms, NOW_MS).klines, klines)
    vision = shared_data / "raw" / "binance_vision"
    for of_a_day in ("spot_daily_zip/BTCUSDT-1m-2022-11-09.zip", "um_monthly_csv/NEARUSDT-1m-2023-02.head.csv"):
        assert len(read_klines(vision / of_a_day, MINUTE_MS, NOW_MS).klines) == 1440


# -- what is refused --------------------------------------------------------------------------------------------------


def spoilt(row: int, column: int, cell: str) -> str:
    lines = [line.split(",") for line in LINES]
    lines[row][column] = cell
    return "\n".join(",".join(line) for line in lines)


SIX = "line 6: column {} {} must be {}".format
TIME = "milliseconds or microseconds since 1970"
TOMORROW = str(NOW_MS // MINUTE_MS * MINUTE_MS + DAY_MS)


@pytest.mark.parametrize(
    ("column", "cell", "fault"),
    [
        pytest.param(4, "-1", SIX(5, "'-1'", "a number above 0"), id="a negative price"),
        pytest.param(4, "much", SIX(5, "'much'", "a number above 0, such as 0.5"), id="a price in words"),
        pytest.param(4, '"1,5"', SIX(5, "'1,5'", "a number above 0, such as 0.5"), id="a decimal comma"),
        pytest.param(4, '"1,234.5"', SIX(5, "'1,234.5'", "a number above 0, such as 0.5"), id="thousands"),
        pytest.param(4, "", SIX(5, "''", "a number above 0"), id="no price"),
        pytest.param(4, "null", SIX(5, "'null'", "a number above 0"), id="null for a price"),
        pytest.param(4, "inf", SIX(5, "'inf'", "a number above 0"), id="a price without end"),
        pytest.param(2, "1", "line 6: column 3 '1', column 2 '", id="high below low"),
        pytest.param(8, "many", SIX(9, "'many'", "a number not below 0; only a flow"), id="trades in words"),
        pytest.param(8, "-2", SIX(9, "'-2'", "a number not below 0; only a flow"), id="trades below 0"),
        pytest.param(5, "nan", SIX(6, "'nan'", "a number not below 0"), id="no volume"),
        pytest.param(7, "5", "line 6: column 8 '5', column 6 '", id="a quote volume of other trades"),
        pytest.param(9, "9999", "line 6: column 10 '9999', column 6 '", id="takers above volume"),
        pytest.param(10, "9999999", "line 6: column 11 '9999999', column 8 '", id="takers above quote volume"),
        pytest.param(0, "soon", SIX(1, "'soon'", TIME), id="a time in words"),
        pytest.param(0, "", SIX(1, "''", TIME), id="no time"),
        pytest.param(0, "3/1/2024 0:05", SIX(1, "'3/1/2024 0:05'", TIME), id="a spreadsheet's date"),
        pytest.param(0, "45352.00347", SIX(1, "'45352.00347'", TIME), id="a spreadsheet's day"),
        pytest.param(
            0, str(START_MS + 1), SIX(1, f"'{START_MS + 1}'", "where a candle of 1m opens"), id="off the grid"
        ),
        pytest.param(0, f"{START_MS}.5", SIX(1, f"'{START_MS}.5'", TIME), id="half a millisecond"),
        pytest.param(0, str(START_MS * 1000 + 1), SIX(1, f"'{START_MS * 1000 + 1}'", TIME), id="a microsecond late"),
        pytest.param(0, "1e300", SIX(1, "'1e300'", TIME), id="a huge time"),
        pytest.param(0, str(START_MS // 1000 - 60), SIX(1, f"'{START_MS // 1000 - 60}'", ""), id="seconds"),
        pytest.param(0, TOMORROW, SIX(1, f"'{TOMORROW}'", "in the past"), id="of tomorrow"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_by_its_cells_and_the_others_are_taken(
    tmp_path: Path, column: int, cell: str, fault: str
) -> None:
    found = read(tmp_path, spoilt(5, column, cell))
    assert len(found.rejected) == 1
    assert fault in found.fault
    assert not re.search(r"-1\b(?!')|inf(?!')|1969|nan(?!')", found.fault)
    assert len(found.klines) == 199


def test_cells_are_counted_as_a_person_does(tmp_path: Path) -> None:
    """Comments and empty lines count, and so does the header; rows of Parquet have no lines."""
    text = f"# from us\n\ntime,open,high,low,close,volume\n\n{first_columns(6)}\nsoon,1,1,1,1,1\n"
    assert read(tmp_path, text).fault.startswith("line 205: column time 'soon' must be ")
    close = pl.when(pl.int_range(pl.len()) == 5).then(-3.0).otherwise("close")
    fault = read_altered(tmp_path, lambda frame: frame.with_columns(close=close)).fault
    assert fault == "row 6: column close '-3.0' must be a number above 0, such as 0.5"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        pytest.param("a.csv", b"", "is empty", id="nothing"),
        pytest.param("a.csv", b"open_time,open,high,low,close,volume\n", "has no rows", id="only a header"),
        pytest.param("a.csv", b"1;2;3;4;5;6\n", "6 or 12 columns, was 1 in line 1: '1;2;3;4;5;6'", id="semicolons"),
        pytest.param("a.csv", b"1," * 12 + b"1\n", "6 or 12 columns, was 13", id="thirteen columns"),
        pytest.param("a.csv", b"day,price\n1,2\n", "has no column open_time, open", id="other columns"),
        pytest.param(
            "a.csv",
            f"{LINES[0]}\n{LINES[1]},7\n{LINES[2][:40]}\n".encode(),
            "line 2 has 13 cells, must have 12",
            id="uneven rows",
        ),
        pytest.param("a.csv", b"\xff\xfe\x00\x01", "file|column", id="no text"),
        pytest.param(
            "a.csv",
            "".join(f"{START_MS + row + row * MINUTE_MS // 2},1,1,1,1,1\n" for row in range(1, 9)).encode(),
            "8 of 8 rows are no klines, the first: line 1: column 1 '1700006430001' must be where a candle of 1m opens",
            id="two rows in each minute",
        ),
        pytest.param("a.parquet", b"PAR1", "no Parquet file", id="torn Parquet"),
        pytest.param("a.zip", b"PK", "not a zip", id="torn zip"),
        pytest.param(
            "a.zip", zip_of(("a.csv", "1"), ("b.csv", "2")), "one CSV, holds 2: a.csv, b.csv", id="two inside"
        ),
        pytest.param("a.zip", zip_of(("a.txt", "1")), "one CSV, holds 0: a.txt", id="no CSV inside"),
        pytest.param("a.csv", zip_of(("a.csv", "1")), "is a zip: let its name end in .zip", id="a zip by another name"),
        pytest.param("a.csv", gzip.compress(csv_of(PLAIN).encode()), "compressed by gzip", id="gzip"),
        pytest.param("a.csv", csv_of(PLAIN).encode("utf-16")[2:], "line 1 holds the byte 0x00", id="UTF-16, unmarked"),
        pytest.param("a.csv", LINES[0].encode() + b"\n\xe9,1\n", "line 2 holds the byte 0xe9", id="another encoding"),
        pytest.param("a.csv", b"# only\n\n# words\n", "is empty", id="comments alone"),
    ],
)
def test_what_is_no_file_of_klines_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MalformedKlines, match=says) as caught:
        read_klines(path, MINUTE_MS, NOW_MS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not re.search(r"\binf\b|1969|row of -", str(caught.value))


def test_text_in_a_column_of_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedKlines, match=": column open holds Boolean, must be numbers"):
        read_altered(tmp_path, lambda frame: frame.with_columns(open=pl.lit(value=True)))


@pytest.mark.parametrize("name", ["file", "file.xlsx", "file.csv.gz", ""])
def test_an_ending_that_nobody_reads_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.csv, \.parquet, \.zip"):
        ending_of(Path("folder") / name)


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "file.csv"
    with pytest.raises(ConfigError, match="No such file"):
        read_klines(path, MINUTE_MS, NOW_MS)
    with pytest.raises(ConfigError, match="No such file"):
        write_klines(path, "ETHUSDT", WALK)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        read_klines(tmp_path / "folder.csv", MINUTE_MS, NOW_MS)
