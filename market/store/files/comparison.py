"""Check that candles belong to a symbol and interval: by the file's name, stored rows, and a venue's rows."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import ConfigError, WorkerError
from klines.klines import FLOW_COLUMNS, PRICE_COLUMNS, Bools, Ints, Klines
from klines.spans import INTERVALS, Span, interval_name, month_span
from market.venue import Venue

SAME = 1e-6  # relative; such numbers are one number written twice, with six digits or 32 bits
OTHER_VENUE, OTHER_DAY = 0.02, 0.05  # two venues' prices of one asset are closer than this, and those of a day
LEAST_OF_MONTH = 20  # rows in common that make a month of a file count by itself
SHIFTS_MS = DAY_MS  # times of files are off by time zones and days at most
SHIFT_ROWS, SHIFT_LEAST, SHIFT_SHARE = 2000, 20, 0.9  # rows looked at, needed in common, and equal, to name a shift
ASKED_ROWS, LEAST_ASKED_ROWS = 8, 2  # of all files, and of each
DOLLARS = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USD")
QUOTES = (*DOLLARS, "BTC", "ETH", "BNB", "EUR", "TRY")
UNITS_MS = {"m": MINUTE_MS, "min": MINUTE_MS, "h": HOUR_MS, "hour": HOUR_MS, "d": DAY_MS, "day": DAY_MS}
SPAN = re.compile(r"([0-9]{1,4})(m|min|h|hour|d|day|M|mo|w|s)s?")
# Words before a quote that are no base, as in klines_usdt.csv.
NO_BASES = frozenset(
    ("all", "binance", "candles", "data", "export", "futures", "history", "klines", "my", "ohlcv", "prices", "spot")
)
OTHER_INTERVALS = {"1s", "3d", "1w", "1mo"}  # Binance's that are not read here
COMPARED = (*reversed(PRICE_COLUMNS), "volume")  # the close first: of a differing row it is the one that is shown


# -- names ------------------------------------------------------------------------------------------------------------


def name_fault(name: str, symbol: str, interval_ms: int) -> str:
    """The other symbol or interval that a file's name plainly says; empty if there is no such thing.

    >>> name_fault("TK0USDT-1m-2024-03.zip", "TK1USDT", 60_000)
    'says TK0USDT'
    >>> name_fault("eth_usdt_1h.csv", "ETHUSDT", 60_000)
    'says 1h'
    >>> name_fault("my klines.csv", "ETHUSDT", 60_000), name_fault("klines_usdt.csv", "ETHUSDT", 60_000)
    ('', '')
    """
    words = re.findall(r"[A-Za-z0-9]+", name.rsplit(".", 1)[0])
    spans = [said for word in words if (said := _interval_in(word))]
    symbols = list(_symbols_in(words))
    if symbols and symbol not in symbols and symbol not in (word.upper() for word in words):
        return f"says {symbols[0]}"
    if spans and interval_name(interval_ms) not in spans:
        return f"says {spans[0]}"
    return ""


def column_fault(symbols: Sequence[str], symbol: str) -> str:
    """The other symbol that a column of symbols names; empty if it names none."""
    for said in symbols:
        if re.sub(r"[^A-Z0-9]", "", said.upper()) != re.sub(r"[^A-Z0-9]", "", symbol):
            return f"has rows of {said}"
    return ""


def _interval_in(word: str) -> str:
    found = SPAN.fullmatch(word) or SPAN.fullmatch(word.lower())
    if found is None or word.endswith("M"):  # a month, or minutes: nobody knows
        return ""
    if word.lower() in OTHER_INTERVALS:
        return word.lower()
    return INTERVALS.get(int(found[1]) * UNITS_MS.get(found[2], 0), "")


def _symbols_in(words: Sequence[str]) -> Iterator[str]:
    """Words that are plainly symbols: base and quote in one word, or in two that follow each other."""
    for word, following in pairwise([*words, ""]):
        quotes = QUOTES if word.isupper() or _interval_in(following) else DOLLARS[:-1]
        if any(word.upper().endswith(quote) and len(word) > len(quote) + 1 for quote in quotes):
            yield word.upper()
        quotes = QUOTES if word.isupper() and following.isupper() else DOLLARS[:-1]
        is_base = word.lower() not in NO_BASES and not word.isdigit() and not _interval_in(word)
        if is_base and following.upper() in quotes:
            yield f"{word}{following}".upper()


# -- what is stored ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Count the rows of a file that are new, would replace stored rows, or are stored already."""

    new: int
    replaced: int
    same: int

    def __str__(self) -> str:
        return f"{self.new:,} new, {self.replaced:,} replaced, {self.same:,} the same"


def completed(klines: Klines, known: Klines) -> Klines:
    """Candles with flows that they lack taken from known candles of the same prices and volume."""
    mine, theirs = klines.common(known)
    is_same = ~_apart(klines, known, 0.0).any(axis=1)
    flows = {name: getattr(klines, name).copy() for name in FLOW_COLUMNS[1:]}
    for name, column in flows.items():
        lacking = is_same & np.isnan(column[mine])
        column[mine[lacking]] = getattr(known, name)[theirs[lacking]]
    return replace(klines, **flows)


def tally(klines: Klines, known: Klines) -> Tally:
    """Count the candles that are unknown, that differ from known candles, and that equal known candles."""
    shared = len(klines.common(known)[0])
    same = len(klines) - len(klines.not_in(known))
    return Tally(new=len(klines) - shared, replaced=shared - same, same=same)


def overlap_fault(klines: Klines, known: Klines) -> str:
    """Why candles cannot be of the same series as known candles: most common rows differ, in all or in one month.

    Args:
        known: the stored candles of the same time, and of a day before and after.
    Returns:
        Both values of one candle, and the shift of time that makes them fit, if there is one; empty if nothing speaks
        against them.
    """
    apart = _apart(klines, known, SAME)
    differs = apart.any(axis=1)
    times = klines.open_time_ms[klines.common(known)[0]]
    fault = ""
    for rows, when in _parts(times):
        differing = np.flatnonzero(differs & rows)
        if len(differing) * 2 > rows.sum():
            example = _both(klines, known, apart, int(differing[len(differing) // 2]), "in the file", "stored")
            fault = (
                f"{len(differing):,} of {rows.sum():,} rows that are stored already{when} differ, such as {example}; "
            )
            break
    if not fault and len(times) and differs.mean() < 1 - SHIFT_SHARE:
        return ""
    if shift_ms := _shift_ms(klines, known):
        minutes = f"{shift_ms // MINUTE_MS:+d} minutes"
        return f"{fault}they fit those that are stored when moved by {minutes}: is the file in UTC?"
    return f"{fault}no shift of time makes them fit" if fault else ""


def _parts(times: Ints) -> Iterator[tuple[Bools, str]]:
    """All common rows, then those of each month that has enough of them."""
    yield np.ones(len(times), np.bool_), ""
    for start_ms, end_ms in sorted({month_span(at_ms) for at_ms in np.unique(times // DAY_MS * DAY_MS).tolist()}):
        rows = (times >= start_ms) & (times < end_ms)
        if rows.sum() >= LEAST_OF_MONTH:
            yield rows, f" of {iso(start_ms)[:7]}"


def _shift_ms(klines: Klines, known: Klines) -> int:
    """The shift of time that makes the closes equal those of known candles; 0 if nothing fits."""
    if not len(klines) or not len(known):
        return 0
    step_ms = klines.interval_ms
    most = max(SHIFTS_MS // step_ms, 1)
    # Only those near to what is known: of a file that only begins there, the others have nothing in common with it.
    first_ms = int(known.open_time_ms[0])
    near = klines.between(first_ms - most * step_ms, int(known.open_time_ms[-1]) + most * step_ms + 1)
    chosen = np.unique(np.linspace(0, len(near) - 1, min(len(near), SHIFT_ROWS)).astype(np.int64))
    closes = np.full((known.end_ms - first_ms) // step_ms + 4 * most, np.nan)  # so that every shifted row has a place
    closes[(known.open_time_ms - first_ms) // step_ms + 2 * most] = known.close
    places, mine = (near.open_time_ms[chosen] - first_ms) // step_ms + 2 * most, near.close[chosen]
    best, best_share = 0, SHIFT_SHARE
    for shift in sorted(range(-most, most + 1), key=abs):
        theirs = closes[places + shift]
        there = ~np.isnan(theirs)
        if there.sum() >= SHIFT_LEAST and len(np.unique(theirs[there])) * 2 >= SHIFT_LEAST:
            share = float((np.abs(theirs[there] / mine[there] - 1) <= SAME).mean())
            if share > best_share:
                best, best_share = shift, share
    return best * step_ms


def _apart(left: Klines, right: Klines, tolerance: float, columns: Sequence[str] = COMPARED) -> Bools:
    """``(common rows, columns)``: True for numbers that differ by more than the tolerance."""
    mine, theirs = left.common(right)
    one, other = np.stack([(getattr(left, name)[mine], getattr(right, name)[theirs]) for name in columns], axis=2)
    apart: Bools = np.abs(one - other) > tolerance * np.maximum(np.abs(one), np.abs(other))
    return apart


def _both(left: Klines, right: Klines, apart: Bools, row: int, here: str, there: str) -> str:
    """The first number in which two candles differ, with both values."""
    mine, theirs = (int(rows[row]) for rows in left.common(right))
    name = COMPARED[int(apart[row].argmax())]
    one, other = getattr(left, name)[mine], getattr(right, name)[theirs]
    time = iso(int(left.open_time_ms[mine]))[:16].replace("T", " ")
    return f"{time}: {name} {one:.8g} {here}, {other:.8g} {there}"


# -- what a venue says ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The result of comparing candles with the candles of a venue."""

    fault: str = ""  # why the candles are not believed; empty if nothing speaks against them
    words: str = ""  # how many rows were compared with which venue, or why no rows
    spans: tuple[Span, ...] = ()  # of the candles that are not believed


def venues_say(venues: Sequence[Venue], symbol: str, klines: Klines, own: str, rows_asked: int) -> Compared:
    """Compare a few candles with those of the first venue that has some of them.

    Args:
        venues: in the order they are asked.
        klines: candles that have closed.
        own: the home venue, whose candles must be equal; other venues' prices are only near.
        rows_asked: how many candles, from the oldest to the newest.
    """
    chosen = np.linspace(0, len(klines) - 1, rows_asked).round().astype(int)
    rows = klines.where(np.isin(np.arange(len(klines)), chosen))
    spans = [(at, at + klines.interval_ms) for at in rows.open_time_ms.tolist()]
    name, theirs = _first_of(venues, symbol, klines.interval_ms, spans)
    if not len(theirs):
        return Compared(words=f"not compared with a venue: {name}")
    apart = _apart(rows, theirs, SAME) if name == own else _apart(rows, theirs, OTHER_VENUE, COMPARED[:1])
    differing = np.flatnonzero(apart.any(axis=1))
    if len(differing) * 2 > len(apart):
        both = _both(rows, theirs, apart, int(differing[-1]), "in the file", f"at {name}")
        return Compared(fault=f"{len(differing)} of {len(apart)} rows compared with {name} differ, such as {both}")
    return Compared(words=f"{len(apart) - len(differing)} of {len(apart)} rows compared are as {name} has them")


def days_say(venues: Sequence[Venue], symbol: str, klines: Klines) -> Compared:
    """Compare every whole day of candles with the daily candles of the first venue that has them, in one request.

    That finds days of another symbol, and no single odd candles: prices of venues differ by less.
    """
    days = klines if klines.interval_ms == DAY_MS else klines.resample(DAY_MS)
    if not len(days):
        return Compared(words="no whole day to compare with a venue")
    name, theirs = _first_of(venues, symbol, DAY_MS, [(int(days.open_time_ms[0]), days.end_ms)])
    if not len(theirs):
        return Compared(words=f"not compared with a venue: {name}")
    apart = _apart(days, theirs, OTHER_DAY, COMPARED[:-1])
    differing = np.flatnonzero(apart.any(axis=1))
    if not len(differing):
        return Compared(words=f"{len(apart):,} days compared are as {name} has them")
    both = _both(days, theirs, apart, int(differing[0]), "stored", f"at {name}")
    starts = days.open_time_ms[days.common(theirs)[0][differing]].tolist()
    return Compared(
        fault=f"{len(differing):,} of {len(apart):,} days compared with {name} are of something else, the first {both}",
        spans=tuple((start, start + DAY_MS) for start in starts),
    )


def _first_of(venues: Sequence[Venue], symbol: str, interval_ms: int, spans: Sequence[Span]) -> tuple[str, Klines]:
    """Name and candles of the first venue that has some; else the reasons why no venue has, and no candles."""
    reasons = []
    for venue in venues:
        name, found = venue.info.name, Klines.empty(interval_ms)
        if interval_ms not in venue.info.intervals_ms or venue.info.key_missing:
            continue
        try:
            for span in reversed(spans):  # the newest first: some venues have only those
                found = found.merge(venue.klines(symbol, interval_ms, *span))
            reason = "has none of these candles"
        except ConfigError:
            reason = f"does not list {symbol}"
        except WorkerError as error:
            reason = f"did not answer ({str(error).split(';', 1)[0][:120]})"
        if len(found):
            return name, found
        reasons.append(f"{name} {reason}")
    return "; ".join(reasons) or "none has this interval", Klines.empty(interval_ms)
