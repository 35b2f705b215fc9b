"""All that knows Atlas, the data service of Allora's Forge: its datasets, resolutions, pages and tags."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import MalformedKlines
from klines.checks import CheckedRows
from klines.klines import PRICE_COLUMNS
from market.http.client import json_of
from market.venue import Price, VenueInfo
from market.venues.base import Page, RestVenue, key_setting
from market.venues.parsing import candles_in, cell, list_of, price_of, spans, time_ms

PAGE_ROWS = 10_000  # the most that one request may ask for; more than a span has
MOST_PAGES = 50  # of one span, which has at most 3650 rows; a page has 250 or more
RESOLUTIONS = {MINUTE_MS: "raw", 5 * MINUTE_MS: "5m", HOUR_MS: "1h", DAY_MS: "1d"}
SPANS_MS = {MINUTE_MS: DAY_MS, 5 * MINUTE_MS: 7 * DAY_MS, HOUR_MS: 90 * DAY_MS, DAY_MS: 3650 * DAY_MS}
PLACES = {"time": "timestamp"} | {name: name for name in (*PRICE_COLUMNS, "volume")}
RAW_PLACES = PLACES | {"quote_volume": "volume_notional", "trades": "trades_done"}
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

    INFO = VenueInfo(
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
            while query is not None:
                if query in asked or len(asked) == MOST_PAGES:
                    raise MalformedKlines(f"the pages of {name} go on without end: {len(asked)} of them, next {query}")
                asked.append(query)
                # Only the query of the next page's address is used: the key goes to our hosts alone.
                found, query = self.hosts.ask("/api/rows/", {**query, **fixed}, parse)
                yield found, span

    def _newest(self, names: Sequence[str], now_ms: int) -> dict[str, Price]:
        return {
            name: self.hosts.ask(
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
    rows = list_of(answer["results"] or [], "results")  # null means no rows
    if interval_ms == MINUTE_MS:
        found = candles_in([_flat(row) for row in rows], interval_ms, RAW_PLACES, now_ms)
    else:
        counts = [cell(row, "count") for row in rows]
        if rows and not any(type(count) is int for count in counts):
            raise MalformedKlines(f"a row must have the count of its minutes, was {str(rows[0])[:80]}")
        rows = [
            row if type(count) is int else None  # which the checks reject
            for row, count in zip(rows, counts, strict=True)
            if type(count) is not int or count >= interval_ms // MINUTE_MS
        ]
        found = candles_in(rows, interval_ms, PLACES, now_ms)
    following = answer.get("next")
    try:
        return found, dict(parse_qsl(urlsplit(following).query)) if following else None
    except (ValueError, AttributeError, TypeError) as error:
        raise MalformedKlines(f"next must be an address or null, was {following!r:.80}") from error


def live(body: bytes, *, name: str, now_ms: int) -> Price:
    """Read the close of the newest row; each row is a line of its own.

    Raises:
        MalformedKlines: there is no row, or no price in it.
    """
    rows = [json_of(line) for line in body.splitlines() if line.strip()]
    if not rows:
        raise MalformedKlines(f"no rows of {name}")
    at_ms, newest = max(((time_ms(cell(row, "timestamp")), row) for row in rows), key=lambda pair: pair[0])
    return price_of(name, cell(_flat(newest), "close"), now_ms, at_ms + MINUTE_MS)


def _flat(row: Any) -> Any:
    values = cell(row, "values")
    return row | values if isinstance(values, dict) else row
