"""Check that candles belong to a symbol and interval: by the file's name, stored rows, and a venue's rows."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import ConfigError, WorkerError
from klines.klines import FLOW_COLUMNS, PRICE_COLUMNS, Klines
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
NO_BASES = {
    "all",
    "binance",
    "candles",
    "data",
    "export",
    "futures",
    "history",
    "klines",
    "my",
    "ohlcv",
    "prices",
    "spot",
}
OTHER_INTERVALS = {"1s", "3d", "1w", "1mo"}  # Binance's that are not read here

Bools = npt.NDArray[np.bool_]


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
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        quotes = QUOTES if word.isupper() or _interval_in(following) else DOLLARS[:-1]
        if any(word.upper().endswith(quote) and len(word) > len(quote) + 1 for quote in quotes):
            yield word.upper()
        pairs = QUOTES if word.isupper() and following.isupper() else DOLLARS[:-1]
        if (
            following.upper() in pairs
            and word.lower() not in NO_BASES
            and not word.isdigit()
            and not _interval_in(word)
        ):
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
    alike = _close(klines, known, mine, theirs, 0.0)
    flows = {name: getattr(klines, name).copy() for name in FLOW_COLUMNS[1:]}
    for name, column in flows.items():
        lacking = alike & np.isnan(column[mine])
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
    mine, theirs = klines.common(known)
    alike = _close(klines, known, mine, theirs, SAME)
    said = ""
    for rows, when in _parts(klines.open_time_ms[mine]):
        differing = np.flatnonzero(~alike & rows)
        if len(differing) * 2 > rows.sum():
            one = differing[len(differing) // 2]
            said = (
                f"{len(differing):,} of {rows.sum():,} rows that are stored already{when} differ, such as "
                f"{_both(klines, known, int(mine[one]), int(theirs[one]), 'in the file', 'stored')}"
            )
            break
    if not said and len(mine) and alike.mean() > SHIFT_SHARE:
        return ""
    shift_ms = _shift_ms(klines, known)
    if shift_ms:
        fits = f"they fit those that are stored when moved by {shift_ms // MINUTE_MS:+d} minutes: is the file in UTC?"
        return f"{said}; {fits}" if said else fits
    return f"{said}; no shift of time makes them fit" if said else ""


def _parts(times: npt.NDArray[np.int64]) -> Iterator[tuple[Bools, str]]:
    """All common rows, then those of each month that has enough of them."""
    if not len(times):
        return
    yield np.ones(len(times), np.bool_), ""
    start_ms = int(times[0])
    while start_ms <= times[-1]:
        month_ms, end_ms = month_span(start_ms)
        rows = (times >= month_ms) & (times < end_ms)
        if rows.sum() >= LEAST_OF_MONTH:
            yield rows, f" of {iso(month_ms)[:7]}"
        start_ms = end_ms


def _shift_ms(klines: Klines, known: Klines) -> int:
    """The shift of time that makes the closes equal those of known candles; 0 if nothing fits."""
    if not len(klines) or not len(known):
        return 0
    step_ms = klines.interval_ms
    first_ms = int(known.open_time_ms[0])
    closes = np.full((int(known.open_time_ms[-1]) - first_ms) // step_ms + 1, np.nan)
    closes[(known.open_time_ms - first_ms) // step_ms] = known.close
    # Those nearest to what is known first: of a file that only begins there, the others have nothing in common with it.
    near = np.flatnonzero(
        (klines.open_time_ms >= first_ms - SHIFTS_MS) & (klines.open_time_ms <= known.open_time_ms[-1] + SHIFTS_MS)
    )
    chosen = near[np.unique(np.linspace(0, len(near) - 1, min(len(near), SHIFT_ROWS)).astype(np.int64))]
    places, mine = (klines.open_time_ms[chosen] - first_ms) // step_ms, klines.close[chosen]
    most = max(SHIFTS_MS // step_ms, 1)
    best, best_share = 0, SHIFT_SHARE
    for shift in sorted(range(-most, most + 1), key=abs):
        at = places + shift
        inside = (at >= 0) & (at < len(closes))
        told = closes[at[inside]]
        there = ~np.isnan(told)
        if there.sum() < SHIFT_LEAST or len(np.unique(told[there])) * 2 < SHIFT_LEAST:
            continue
        share = float((np.abs(told[there] / mine[inside][there] - 1) <= SAME).mean())
        if share > best_share:
            best, best_share = shift, share
    return best * step_ms


def _close(
    left: Klines, right: Klines, mine: npt.NDArray[np.intp], theirs: npt.NDArray[np.intp], tolerance: float
) -> Bools:
    """True for rows of the same prices and volume."""
    alike = np.ones(len(mine), np.bool_)
    for name in (*PRICE_COLUMNS, "volume"):
        one, other = getattr(left, name)[mine], getattr(right, name)[theirs]
        alike &= np.abs(one - other) <= tolerance * np.maximum(np.abs(one), np.abs(other))
    return alike


def _both(left: Klines, right: Klines, mine: int, theirs: int, here: str, there: str, tolerance: float = SAME) -> str:
    """The first number in which two candles differ, with both values."""
    for name in (*reversed(PRICE_COLUMNS), "volume"):
        one, other = float(getattr(left, name)[mine]), float(getattr(right, name)[theirs])
        if abs(one - other) > tolerance * max(abs(one), abs(other)):
            break
    said = iso(int(left.open_time_ms[mine]))[:16].replace("T", " ")
    return f"{said}: {name} {one:.8g} {here}, {other:.8g} {there}"


# -- what a venue says ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The result of comparing candles with the candles of a venue."""

    fault: str = ""  # why the candles are not believed; empty if nothing speaks against them
    said: str = ""  # in words: how many rows were compared with which venue, or why no rows
    spans: tuple[Span, ...] = ()  # of the candles that are not believed


def venues_say(venues: Sequence[Venue], symbol: str, klines: Klines, own: str, rows_asked: int) -> Heard:
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
    name, told = _first_told(venues, symbol, klines.interval_ms, spans)
    if not len(told):
        return Heard(said=f"not compared with a venue: {name}")
    mine, theirs = rows.common(told)
    if name == own:
        alike = _close(rows, told, mine, theirs, SAME)
    else:
        alike = np.abs(rows.close[mine] / told.close[theirs] - 1) <= OTHER_VENUE
    differing = np.flatnonzero(~alike)
    if len(differing) * 2 > len(mine):
        one = differing[-1]
        both = _both(rows, told, int(mine[one]), int(theirs[one]), "in the file", f"at {name}")
        return Heard(fault=f"{len(differing)} of {len(mine)} rows compared with {name} differ, such as {both}")
    return Heard(said=f"{int(alike.sum())} of {len(mine)} rows compared are as {name} has them")


def days_say(venues: Sequence[Venue], symbol: str, klines: Klines) -> Heard:
    """Compare every whole day of candles with the daily candles of the first venue that has them, in one request.

    That finds days of another symbol, and no single odd candles: prices of venues differ by less.
    """
    days = klines if klines.interval_ms == DAY_MS else klines.resample(DAY_MS)
    if not len(days):
        return Heard(said="no whole day to compare with a venue")
    name, told = _first_told(venues, symbol, DAY_MS, [(int(days.open_time_ms[0]), days.end_ms)])
    if not len(told):
        return Heard(said=f"not compared with a venue: {name}")
    mine, theirs = days.common(told)
    far = np.zeros(len(mine), np.bool_)
    for column in PRICE_COLUMNS:
        far |= np.abs(getattr(days, column)[mine] / getattr(told, column)[theirs] - 1) > OTHER_DAY
    differing = np.flatnonzero(far)
    if not len(differing):
        return Heard(said=f"{len(mine):,} days compared are as {name} has them")
    both = _both(days, told, int(mine[differing[0]]), int(theirs[differing[0]]), "stored", f"at {name}", OTHER_DAY)
    starts = days.open_time_ms[mine[differing]].tolist()
    return Heard(
        fault=f"{len(differing):,} of {len(mine):,} days compared with {name} are of something else, the first {both}",
        spans=tuple((start, start + DAY_MS) for start in starts),
    )


def _first_told(venues: Sequence[Venue], symbol: str, interval_ms: int, spans: Sequence[Span]) -> tuple[str, Klines]:
    """Name and candles of the first venue that has some; else the reasons why no venue has, and no candles."""
    reasons = []
    for venue in venues:
        name, told = venue.offer.name, Klines.empty(interval_ms)
        if interval_ms not in venue.offer.intervals_ms or venue.offer.key_missing:
            continue
        try:
            for span in reversed(spans):  # the newest first: some venues have only those
                told = told.merge(venue.klines(symbol, interval_ms, *span))
            reason = "has none of these candles"
        except ConfigError:
            reason = f"does not list {symbol}"
        except WorkerError as error:
            reason = f"did not answer ({str(error).split(';', 1)[0][:120]})"
        if len(told):
            return name, told
        reasons.append(f"{name} {reason}")
    return "; ".join(reasons) or "none has this interval", Klines.empty(interval_ms)
