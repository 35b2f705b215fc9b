"""Klines in files: exact round trips in every form, and whatever else programs write."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError, MalformedKlines
from market.archive import read_archive, unzipped
from market.exchange_files import ending_of, read_klines, write_klines
from market.klines import COLUMNS, FLOW_COLUMNS, Klines
from tests.fakes import START_MS, random_walk_klines
from tests.market.venue import csv_of, zip_of

NOW_MS = 1_764_085_587_000
WALK = random_walk_klines(200)
IN_2025_MS = 1_735_689_600_000
ENDINGS = [".csv", ".parquet", ".zip"]


def assert_same(left: Klines, right: Klines) -> None:
    np.testing.assert_array_equal(left.open_time_ms, right.open_time_ms)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def as_written(klines: Klines) -> Klines:
    """With the eight decimals of the venue's texts."""
    columns = {name: np.round(getattr(klines, name), 8) for name in COLUMNS}
    return Klines(interval_ms=klines.interval_ms, open_time_ms=klines.open_time_ms, **columns)


def without(klines: Klines, *names: str) -> Klines:
    columns = {name: getattr(klines, name) for name in COLUMNS} | {n: np.full(len(klines), np.nan) for n in names}
    return Klines(interval_ms=klines.interval_ms, open_time_ms=klines.open_time_ms, **columns)


def around_2025() -> Klines:
    return random_walk_klines(100, start_ms=IN_2025_MS - 50 * MINUTE_MS)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "klines",
    [
        pytest.param(WALK, id="every digit"),
        pytest.param(as_written(WALK), id="eight decimals"),
        pytest.param(without(WALK, *FLOW_COLUMNS[1:]), id="no flows"),
        pytest.param(Klines.joined(MINUTE_MS, [WALK.between(0, START_MS + DAY_MS // 24), WALK.tail(20)]), id="a gap"),
        pytest.param(around_2025(), id="into 2025, when archives began to count in microseconds"),
        pytest.param(random_walk_klines(50, HOUR_MS, first=1e-7), id="hours of tiny prices"),
        pytest.param(random_walk_klines(1, first=9e9), id="one row, a huge price"),
    ],
)
def test_a_round_trip_is_exact(tmp_path: Path, ending: str, klines: Klines) -> None:
    path = tmp_path / f"file{ending}"
    write_klines(path, "ETHUSDT", klines)
    found = read_klines(path, klines.interval_ms, NOW_MS)
    assert found.refused == ()
    assert_same(found.klines, klines)


@settings(max_examples=60, deadline=None)
@given(
    ending=st.sampled_from(ENDINGS),
    prices=st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=8),
    flow=st.floats(0, 1e15) | st.just(float("nan")),
)
def test_every_number_is_told_exactly(ending: str, prices: list[float], flow: float) -> None:
    price, volume = np.array(prices), np.full(len(prices), 0.1)
    columns = dict.fromkeys(("open", "high", "low", "close"), price) | dict.fromkeys(FLOW_COLUMNS, volume)
    columns |= {"trades": np.full(len(prices), flow), "quote_volume": np.full(len(prices), flow)}
    times = START_MS + MINUTE_MS * np.arange(len(prices))
    klines = Klines(interval_ms=MINUTE_MS, open_time_ms=times, **columns)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{ending}"
        write_klines(path, "ETHUSDT", klines)
        assert_same(read_klines(path, MINUTE_MS, NOW_MS).klines, klines)


def test_a_zip_is_as_the_archive_has_it(tmp_path: Path) -> None:
    klines = as_written(around_2025())
    write_klines(tmp_path / "ETHUSDT-1m-2025.zip", "ETHUSDT", klines)
    body = (tmp_path / "ETHUSDT-1m-2025.zip").read_bytes()
    assert_same(read_archive(body, MINUTE_MS, 0, 2**62).klines, klines)
    frame = pl.read_csv(unzipped(body), has_header=False, infer_schema=False)
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


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(csv_of(PLAIN), id="as the archive has it"),
        pytest.param(csv_of(PLAIN, factor=1000), id="microseconds"),
        pytest.param(csv_of(PLAIN).replace("\n", "\r\n"), id="lines end as on Windows"),
        pytest.param("\ufeff" + csv_of(PLAIN), id="a byte order mark"),
        pytest.param("\n".join(LINES[::-1]), id="newest first"),
        pytest.param("\n".join(LINES + LINES[:50]), id="rows twice"),
        pytest.param(csv_of(PLAIN) + "\n\n", id="empty lines at the end"),
        pytest.param(csv_of(PLAIN).replace(f"\n{START_MS + MINUTE_MS},", f"\n {START_MS + MINUTE_MS} ,"), id="blanks"),
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
def test_csv_is_read_in_every_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text)
    found = read_klines(path, MINUTE_MS, NOW_MS)
    assert found.refused == ()
    assert_same(found.klines, PLAIN)


@pytest.mark.parametrize("count", range(6, 12))
def test_columns_that_are_not_there_are_not_known(tmp_path: Path, count: int) -> None:
    path = tmp_path / "file.CSV"
    path.write_text(first_columns(count))
    unknown = FLOW_COLUMNS[1:][max(count - 7, 0) :]
    assert_same(read_klines(path, MINUTE_MS, NOW_MS).klines, without(PLAIN, *unknown))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda frame: frame, id="ours"),
        pytest.param(lambda frame: frame.rename({"open_time_ms": "open_time"}), id="open_time"),
        pytest.param(lambda frame: frame.with_columns(close_time=pl.lit(0), more=pl.lit("x")), id="columns more"),
        pytest.param(lambda frame: frame.with_columns(pl.col("open_time_ms") * 1000), id="microseconds"),
        pytest.param(lambda frame: frame.with_columns(pl.from_epoch("open_time_ms", "ms")), id="moments"),
        pytest.param(lambda frame: frame.with_columns(pl.col("trades").cast(pl.Int64)), id="counts that are whole"),
        pytest.param(lambda frame: frame.reverse(), id="newest first"),
    ],
)
def test_parquet_is_read_in_every_form(tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    path = tmp_path / "file.parquet"
    write_klines(path, "ETHUSDT", WALK)
    change(pl.read_parquet(path)).write_parquet(path)
    assert_same(read_klines(path, MINUTE_MS, NOW_MS).klines, WALK)


def test_nulls_of_a_flow_are_not_known(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    write_klines(path, "ETHUSDT", WALK)
    pl.read_parquet(path).with_columns(trades=pl.lit(None, pl.Int64), quote_volume=pl.lit(None)).write_parquet(path)
    assert_same(read_klines(path, MINUTE_MS, NOW_MS).klines, without(WALK, "trades", "quote_volume"))


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
            assert_same(read_klines(tmp_path / f"{name}{ending}", interval_ms, NOW_MS).klines, klines)
    vision = shared_data / "raw" / "binance_vision"
    assert len(read_klines(vision / "spot_daily_zip" / "BTCUSDT-1m-2022-11-09.zip", MINUTE_MS, NOW_MS).klines) == 1440
    assert (
        len(read_klines(vision / "um_monthly_csv" / "NEARUSDT-1m-2023-02.head.csv", MINUTE_MS, NOW_MS).klines) == 1440
    )


# -- what is refused --------------------------------------------------------------------------------------------------


def spoilt(row: int, column: int, cell: str) -> str:
    lines = [line.split(",") for line in LINES]
    lines[row][column] = cell
    return "\n".join(",".join(line) for line in lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(spoilt(5, 4, "-1"), "a price is not finite and above 0", id="a negative price"),
        pytest.param(spoilt(5, 4, "much"), "a price is not finite and above 0", id="a price in words"),
        pytest.param(spoilt(5, 4, ""), "a price is not finite and above 0", id="no price"),
        pytest.param(spoilt(5, 2, "1"), "high is below open or close", id="high below low"),
        pytest.param(spoilt(5, 8, "many"), "a flow is below 0 or infinite", id="trades in words"),
        pytest.param(spoilt(5, 5, "nan"), "volume is not finite", id="no volume"),
        pytest.param(spoilt(5, 0, "soon"), "open time is not on the grid", id="a time in words"),
        pytest.param(spoilt(5, 0, str(START_MS + 1)), "open time is not on the grid", id="off the grid"),
        pytest.param(spoilt(5, 0, f"{START_MS}.5"), "open time is not on the grid", id="half a millisecond"),
        pytest.param(spoilt(5, 0, str(START_MS * 1000 + 1)), "open time is not on the grid", id="a microsecond late"),
        pytest.param(spoilt(5, 0, "1e300"), "open time is not on the grid", id="a huge time"),
        pytest.param(spoilt(5, 0, str(NOW_MS // MINUTE_MS * MINUTE_MS + DAY_MS)), "in the future", id="of tomorrow"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_and_the_others_are_taken(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text)
    found = read_klines(path, MINUTE_MS, NOW_MS)
    (refused,) = found.refused
    assert reason in refused.reason
    assert len(found.klines) == 199


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        pytest.param("a.csv", b"", "is empty", id="nothing"),
        pytest.param("a.csv", b"open_time,open,high,low,close,volume\n", "has no rows", id="only a header"),
        pytest.param("a.csv", first_columns(5).encode(), "6 to 12 columns, was 5", id="five columns"),
        pytest.param("a.csv", b"1;2;3;4;5;6\n", "6 to 12 columns, was 1", id="semicolons"),
        pytest.param("a.csv", b"1," * 12 + b"1\n", "6 to 12 columns, was 13", id="thirteen columns"),
        pytest.param("a.csv", b"date,price\n1,2\n", "has no column open_time, open", id="other columns"),
        pytest.param("a.csv", b"1,2,3,4,5,6\n1,2,3,4,5,6,7,8\n", "no CSV that can be read", id="uneven rows"),
        pytest.param("a.csv", b"\xff\xfe\x00\x01", "file|column", id="no text"),
        pytest.param(
            "a.csv",
            "".join(
                f"{int(line[:13]) + number}{line[13:]}\n"
                for number, line in enumerate(csv_of(random_walk_klines(9, HOUR_MS)).splitlines(), 1)
            ).encode(),
            "9 of 9 rows are no klines: .*not on the grid",
            id="not on the grid",
        ),
        pytest.param("a.parquet", b"PAR1", "no Parquet file", id="torn Parquet"),
        pytest.param("a.zip", b"PK", "not a zip", id="torn zip"),
        pytest.param("a.zip", zip_of(("a.csv", "1"), ("b.csv", "2")), "one CSV, holds 2", id="two inside"),
    ],
)
def test_what_is_no_file_of_klines_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MalformedKlines, match=says) as caught:
        read_klines(path, MINUTE_MS, NOW_MS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_in_a_column_of_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_klines(path, "ETHUSDT", WALK)
    pl.read_parquet(path).with_columns(open=pl.lit(value=True)).write_parquet(path)
    with pytest.raises(MalformedKlines, match="column open holds Boolean, must be numbers"):
        read_klines(path, MINUTE_MS, NOW_MS)


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
