"""``birnn doctor --market``: ask every venue as inference would."""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from cli.screen import ROOMY, Column, table_of
from core.clock import MINUTE_MS, Clock
from core.errors import ConfigError, WorkerError
from core.settings import Market, Settings
from core.topic import Topic, split_symbol
from klines.klines import Klines
from market.http.client import HostState
from market.listings import asked_pairs
from market.price_ratio import price_ratio
from market.quarantine import Quarantine
from market.venue import Price, Venue
from market.venues.registry import VENUES, venue_from

TIMEOUT_S = 5.0
MINUTES = 60  # of candles asked of each, to compare levels by


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result for one venue and one symbol."""

    venue: str
    role: str  # "1", "2" ... in MARKET_VENUES, "truth", or empty: not used
    symbol: str  # in our spelling
    name: str = ""  # in the venue's spelling
    state: str = ""  # "well", or the fault
    quote: str = ""
    price: Price | None = None
    price_fault: str = ""
    klines: Klines | None = None
    klines_fault: str = ""
    contradiction: str = ""  # why no topic is answered from it: the venue lists another pair by that name
    ratio: float | None = None  # of the first venue's level over its own
    hosts: str = ""
    budget: int = 0  # requests a minute
    key: str = ""  # "set", "missing", "not needed"

    @property
    def serves(self) -> bool:
        """True if the venue has a price or candles."""
        return self.price is not None or (self.klines is not None and len(self.klines) > 0)


def examine(settings: Settings, symbols: Sequence[str], topics: Sequence[Topic], clock: Clock) -> list[Finding]:
    """Ask every venue for the newest price, the last hour and the listing of each symbol, all at once.

    Args:
        topics: the configured topics, if known; they say which pair a symbol must be.
    """
    asked = [(name, symbol) for name in VENUES for symbol in symbols]
    with ThreadPoolExecutor(len(VENUES), thread_name_prefix="doctor") as pool:
        found = list(pool.map(lambda pair: _look(settings, pair[0], pair[1], topics, clock), asked))
    return list(_compared(found, settings.venues[0]))


def _look(settings: Settings, name: str, symbol: str, topics: Sequence[Topic], clock: Clock) -> Finding:
    order = settings.venues
    role = str(order.index(name) + 1) if name in order else ""
    if name == settings.truth_venue:
        role = f"{role}, truth" if role else "truth"
    finding = Finding(venue=name, role=role, symbol=symbol)
    try:
        venue = venue_from(name, settings, clock, Quarantine(), topics=topics, timeout_s=TIMEOUT_S, patience_s=0)
    except ConfigError as error:
        return replace(finding, state="not asked", price_fault=str(error))
    info = venue.info
    key = (
        ("missing" if info.key_missing else "set" if settings.key_of(name) else "optional")
        if info.key
        else "not needed"
    )
    of_symbol = [topic for topic in topics if topic.symbol == symbol]
    token = of_symbol[0].token if of_symbol else ""
    quote = info.quote or split_symbol(symbol, token)[1]
    finding = replace(finding, quote=quote, budget=info.requests_a_minute, key=key)
    if info.key_missing:
        return replace(finding, state="needs VENUE_KEYS")
    try:
        finding = replace(finding, name=venue.name_of(symbol))
    except ConfigError as error:
        return replace(finding, state="unknown symbol", price_fault=str(error))
    finding = _asked(venue, finding, symbol, clock)
    hosts = ", ".join(_host(state) for state in venue.hosts.states)
    state = (
        "well" if finding.price and finding.klines is not None else _short(finding.price_fault or finding.klines_fault)
    )
    if finding.price and not info.intervals_ms:
        state = "well"
    for pair in [] if info.quote else asked_pairs([venue], of_symbol, TIMEOUT_S):
        if pair.contradiction:
            state, finding = "another pair", replace(finding, contradiction=pair.line)
    return replace(finding, state=state, hosts=hosts)


def _asked(venue: Venue, finding: Finding, symbol: str, clock: Clock) -> Finding:
    try:
        finding = replace(finding, price=venue.prices([symbol])[symbol])
    except (WorkerError, KeyError) as error:
        finding = replace(finding, price_fault=str(error))
    if MINUTE_MS not in venue.info.intervals_ms:
        return replace(finding, klines_fault="has no 1m candles")
    end_ms = clock.now_ms() // MINUTE_MS * MINUTE_MS
    try:
        return replace(finding, klines=venue.klines(symbol, MINUTE_MS, end_ms - MINUTES * MINUTE_MS, end_ms))
    except WorkerError as error:
        return replace(finding, klines_fault=str(error))


def _compared(findings: Sequence[Finding], first: str) -> Iterator[Finding]:
    """Add the ratio of the first venue's price level to each finding's."""
    levels: Mapping[str, Klines] = {f.symbol: f.klines for f in findings if f.venue == first and f.klines is not None}
    for finding in findings:
        level = levels.get(finding.symbol)
        known = level is not None and finding.klines is not None
        scale = price_ratio(level, finding.klines) if known else None  # type: ignore[arg-type]
        yield replace(finding, ratio=scale.value if scale else None)


def _host(host: HostState) -> str:
    name = host.url.partition("//")[2]
    how = "barred" if host.is_barred else "failed" if host.fault else "answers" if host.asked else "not asked"
    return f"{name} {how}"


def _short(text: str) -> str:
    """The first clause of a failure, without the host."""
    clause = re.sub(r"^https?://\S+?(: | )", "", text.partition("; ")[0])
    return clause if len(clause) <= 60 else f"{clause[:57]}..."


def venues_table(findings: Sequence[Finding], now_ms: int, width: int) -> Table:
    """The findings as a table.

    Args:
        width: of the screen, in columns.
    """
    columns = (
        Column(heading="venue"),
        Column(heading="used", wraps=width < ROOMY),
        Column(heading="symbol"),
        Column(heading="state", wraps=True),
        Column(heading="price"),
        Column(heading="age", least_width=ROOMY),
        Column(heading="candles"),
        Column(heading="level"),
        Column(heading="a minute", least_width=150),
        Column(heading="key", least_width=130),
        Column(heading="hosts", least_width=150, wraps=True),
    )
    rows = []
    for finding in findings:
        price, klines = finding.price, finding.klines
        quote = f" {finding.quote}" if width >= ROOMY else ""
        rows.append(
            (
                finding.venue,
                finding.role or "no",
                finding.name or finding.symbol,
                finding.state,
                f"{price.price:.8g}{quote}" if price else "none",
                f"{(now_ms - price.asof_ms) / 1000:.1f} s" if price else "",
                f"{len(klines)} of {MINUTES}" if klines is not None else "none",
                f"{finding.ratio - 1:+.3%}" if finding.ratio else "",
                str(finding.budget or ""),
                finding.key,
                finding.hosts,
            )
        )
    return table_of(columns, rows, width, title="venues")


def reasons(findings: Sequence[Finding]) -> list[str]:
    """The full faults of venues in use that the table shortens."""
    faults = ((f, f.price_fault or f.klines_fault) for f in findings if f.role and f.state != "well")
    return list(dict.fromkeys(f"{f.venue}: {fault}" for f, fault in faults if fault not in {"", f.state}))


def report_of(findings: Sequence[Finding], now_ms: int) -> list[dict[str, Any]]:
    """The findings as JSON."""
    return [
        {
            "venue": f.venue,
            "used": f.role,
            "symbol": f.symbol,
            "name": f.name,
            "state": f.state,
            "quote": f.quote,
            "price": f.price.price if f.price else None,
            "price_age_ms": now_ms - f.price.asof_ms if f.price else None,
            "price_fault": f.price_fault,
            "candles": len(f.klines) if f.klines is not None else 0,
            "candles_fault": f.klines_fault,
            "contradiction": f.contradiction,
            "level_over_first": f.ratio,
            "requests_a_minute": f.budget,
            "key": f.key,
            "hosts": f.hosts,
        }
        for f in findings
    ]


def unserved(findings: Sequence[Finding], settings: Settings) -> list[str]:
    """A line with a remedy for each symbol that no venue in use serves, or that a venue lists as another pair."""
    lines: list[str] = []
    for symbol in dict.fromkeys(finding.symbol for finding in findings):
        used = [f for f in findings if f.symbol == symbol and f.venue in settings.venues]
        lines += dict.fromkeys(f.contradiction for f in used if f.contradiction)
        lacking = [
            what
            for what, has in (
                ("price", any(f.price for f in used)),
                ("1m candles", any(f.klines is not None and len(f.klines) for f in used)),
            )
            if not has
        ]
        if lacking:
            others = sorted({f.venue for f in findings if f.symbol == symbol and f.serves} - set(settings.venues))
            remedy = (
                f"add {' or '.join(others)} to MARKET_VENUES"
                if others
                else "by the states above check the network and its proxy, wait for the end of a ban, or name "
                "others in MARKET_VENUES (`birnn run --market simulated` works without any)"
                if settings.market is not Market.SIMULATED
                else "is the simulated exchange running?"
            )
            lines.append(f"{symbol}: no venue in use has its {' and '.join(lacking)}; {remedy}")
    return lines
