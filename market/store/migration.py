"""Moves a store of an older release into folders by venue: ``SYMBOL-1m/`` to ``VENUE/SYMBOL-1m/``.

The old ``venues.json`` names each series' venue ("level"), and the spans that came from other venues ("borrowed").
Those spans are dropped, so that they are fetched again, and each series moves by one rename. Killed at any moment, the
next start goes on; ``venues.json`` goes last.
"""

import json
import re
from pathlib import Path

import structlog

from core.errors import ConfigError
from core.files import sync_folder
from klines.spans import Span, interval_name
from market.store.disk import disk
from market.store.home import read_homes, write_homes
from market.store.kline_store import KlineStore
from market.store.warm_start import tail_path

STANDING = "venues.json"

log = structlog.get_logger()


def migrate(root: Path, first_venue: str = "binance") -> None:
    """Move a store of an older release over, once; a store of this release is left alone.

    Args:
        root: ``DATA_DIR/klines``.
        first_venue: has the rows of series that ``venues.json`` does not name.
    Raises:
        ConfigError: the store cannot be carried over, or another process is writing it; says what to do.
        WorkerError: the disk refuses.
    """
    store, tails, standing = KlineStore(root), root / "tails", root / STANDING
    old = store.series()
    if not old and not standing.exists() and not tails.exists():
        return
    with store.writing():
        entries = _read_standing(standing)
        by_symbol = {key.rpartition("-")[0]: entry for key, entry in entries.items()}
        homes = read_homes(root)
        for symbol, interval_ms in old:
            venue = by_symbol[symbol][0] if symbol in by_symbol else first_venue
            venue, borrowed = entries.get(f"{symbol}-{interval_name(interval_ms)}", (venue, []))
            homes[symbol] = venue
            write_homes(root, homes)
            _move(store, symbol, interval_ms, venue, borrowed)
        with disk(root):
            for path in [*tails.glob("*"), standing]:
                path.unlink(missing_ok=True)
            if tails.exists():
                tails.rmdir()
            sync_folder(root)


def _move(store: KlineStore, symbol: str, interval_ms: int, venue: str, borrowed: list[Span]) -> None:
    source = store.folder(symbol, interval_ms)
    target = store.root / venue / source.name
    if target.exists():
        raise ConfigError(
            f"{source} and {target} both hold klines of {symbol}: an older release has written beside a newer one; "
            f"delete the folder that you do not want to keep"
        )
    dropped = sum(store.remove(symbol, interval_ms, span) for span in borrowed)
    if borrowed:  # a kill may have come between the months and the warm-start file
        store.repair_tail(symbol, interval_ms)
    tail, moved = (tail_path(folder, symbol, interval_ms) for folder in (store.root, target.parent))
    with disk(source):
        moved.parent.mkdir(parents=True, exist_ok=True)
        if tail.exists():
            tail.replace(moved)
        source.replace(target)
        sync_folder(target.parent)
        sync_folder(store.root)
    log.info("series_moved", series=source.name, venue=venue, dropped_rows=dropped)


def _read_standing(path: Path) -> dict[str, tuple[str, list[Span]]]:
    """Venue and borrowed spans by series; empty for an even older store, which had a single venue."""
    try:
        entries = {
            series: (str(entry["level"]), [(int(start), int(end)) for start, end in entry["borrowed"]])
            for series, entry in json.loads(path.read_bytes()).items()
        }
        if not all(re.fullmatch(r"\w+", venue) for venue, _ in entries.values()):
            raise ValueError("a level is not the name of a venue")
        return entries
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error!r}), so the venue of the stored rows is not known; delete the file if all "
            f"are of the first venue of MARKET_VENUES, or move {path.parent} away to have everything fetched anew"
        ) from error
