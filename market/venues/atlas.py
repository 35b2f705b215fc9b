"""All that knows Atlas, the data service of Allora's Forge: its datasets, resolutions, pages and tags."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar
from urllib.parse import parse_qsl, urlsplit

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import MalformedKlines
from klines.checks import MOST_REFUSED, CheckedRows, RejectedRow
from klines.klines import PRICE_COLUMNS, Klines
from market.http.client import json_of
from market.venue import Offer, Price
from market.venues.base import Page, RestVenue, key_setting
from market.venues.parsing import Row, aged_price, rows_in, sifted_rows, spans, time_ms

PAGE_ROWS = 10_000  # the most that one request may ask for; more than a span has
MOST_PAGES = 50  # of one span, which has at most 3650 rows; a page has 250 or more
RESOLUTIONS = {MINUTE_MS: "raw", 5 * MINUTE_MS: "5m", HOUR_MS: "1h", DAY_MS: "1d"}
SPANS_MS = {MINUTE_MS: DAY_MS, 5 * MINUTE_MS: 7 * DAY_MS, HOUR_MS: 90 * DAY_MS, DAY_MS: 3650 * DAY_MS}
COLUMNS = {name: name for name in (*PRICE_COLUMNS, "volume")}
RAW_COLUMNS = COLUMNS | {"quote_volume": "volume_notional", "trades": "trades_done"}
TAG = (
    'a new key sees no dataset: POST /api/tags/acquire/ with {"tag_name": "public"} once with the key of '
    f"{key_setting('atlas')}, and see that Atlas has a dataset of that pair"
)


class Atlas(RestVenue):
    """Tiingo's bars as Allora's topics see them, named by their open times. Source: docs.allora.network, Atlas API.

    A bar of five minutes, an hour or a day that lacks one of its minutes is left out, as ``Klines.resample`` leaves it
    out: the high, the low or the close may be missing. So a bar that has just ended comes with its last minute, and a
    pair that does not trade every minute has hardly a whole day.
    Only minutes have ``quote_volume`` and ``trades``. Prices are the close of the newest minute.
    """

    OFFER = Offer(
        name="atlas",
        quote="USD",
        intervals_ms=frozenset(RESOLUTIONS),
        flow=frozenset({"quote_volume", "trades"}),
        prices_at_once=False,
        tells_time=False,
        ping="/api/tags/",
        requests_a_minute=60,  # Atlas documents no limit
        key=key_setting("atlas"),
    )
    KEY_HEADER = "X-API-Key"
    KEY_ADVICE: ClassVar[Mapping[int, str]] = {
        401: f"set {key_setting('atlas')} to a key of developer.allora.network",
        **dict.fromkeys((403, 404, 409), TAG),
    }

    def name_of(self, symbol: str) -> str:
        return f"tiingo_{self._usd_base(symbol).lower()}usd_1min"

    def _pages(self, name: str, interval_ms: int, start_ms: int, end_ms: int, now_ms: int) -> Iterator[Page]:
        parse = partial(page, interval_ms=interval_ms, now_ms=now_ms)
        fixed: dict[str, str | int] = {"dataset_name": name, "resolution": RESOLUTIONS[interval_ms]}
        for span in spans(start_ms, end_ms, SPANS_MS[interval_ms]):
            query: Mapping[str, str | int] | None = {
                "start": iso(span[0]),
                "end": iso(span[1]),
                "limit": PAGE_ROWS,
                "ordering": "timestamp",
            }
            asked: list[Mapping[str, str | int]] = []
            klines = Klines.empty(interval_ms)
            refused: tuple[RejectedRow, ...] = ()
            marked: tuple[RejectedRow, ...] = ()
            while query is not None:
                if query in asked or len(asked) == MOST_PAGES:
                    raise MalformedKlines(f"the pages of {name} go on without end: {len(asked)} of them, next {query}")
                asked.append(query)
                # Only the query of the next page's address is used: the key goes to our hosts alone.
                found, query = self._ask("/api/rows/", {**query, **fixed}, parse)
                klines = klines.merge(found.klines)  # pages come oldest or newest first
                refused += found.refused
                marked += found.marked
            yield CheckedRows(klines=klines, refused=refused, marked=marked), span

    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        return {
            name: self._ask(
                "/api/rows/live/", {"dataset_name": name, "limit": 1}, partial(live, name=name, now_ms=now_ms)
            )
            for name in names
        }


def page(body: bytes, *, interval_ms: int, now_ms: int) -> tuple[CheckedRows, Mapping[str, str] | None]:
    """Read a page of rows. ``count`` of a row is the number of its minutes; that of the page means nothing.

    Returns:
        The rows, and the query of the next page; None after the last page.
    Raises:
        MalformedKlines: not a page of rows.
    """
    answer = json_of(body)
    if not isinstance(answer, dict) or "results" not in answer:
        raise MalformedKlines(f"a page must have results, was {body[:80]!r}")
    rows = rows_in(answer["results"] or [], "results")  # null means no rows
    if interval_ms == MINUTE_MS:
        rows = [_flat(row) for row in rows]
    else:
        counted = [type(row.get("count")) is int for row in rows]
        if counted.count(False) > MOST_REFUSED * len(rows):
            odd = rows[counted.index(False)]
            raise MalformedKlines(f"a row must have the count of its minutes, was {str(odd)[:80]}")
        rows = [
            row if known else {}  # which the checks reject
            for row, known in zip(rows, counted, strict=True)
            if not known or row["count"] >= interval_ms // MINUTE_MS
        ]
    columns = RAW_COLUMNS if interval_ms == MINUTE_MS else COLUMNS
    following = answer.get("next")
    if following is not None and not isinstance(following, str):
        raise MalformedKlines(f"next must be an address or null, was {str(following)[:80]}")
    try:
        query = dict(parse_qsl(urlsplit(following).query)) if following else None
    except ValueError as error:
        raise MalformedKlines(f"next is not an address: {following!r:.80}") from error
    return sifted_rows(interval_ms, rows, "timestamp", columns, now_ms), query


def live(body: bytes, *, name: str, now_ms: int) -> Price:
    """Read the close of the newest row; each row is a line of its own.

    Raises:
        MalformedKlines: there is no row, or no price in it.
    """
    rows = rows_in([json_of(line) for line in body.splitlines() if line.strip()], "rows")
    if not rows:
        raise MalformedKlines(f"no rows of {name}")
    at_ms, newest = max(((time_ms(row.get("timestamp")), row) for row in rows), key=lambda pair: pair[0])
    return aged_price(name, _flat(newest).get("close"), at_ms + MINUTE_MS, now_ms)


def _flat(row: Row) -> Row:
    values = row.get("values")
    return row | values if isinstance(values, dict) else row
