"""``birnn topics``: the configured topics, or those of the shipped catalogue."""

from collections.abc import Sequence

from cli.screen import ROOMY, Column, print_json, say, screen, table_of
from core.clock import SystemClock
from core.errors import ConfigError
from core.settings import Settings
from core.topic import CLASSIFICATION, PROXIES, Topic, catalogue, default_symbol
from node.config_file import read_config

LISTING_PATIENCE_S = 2.0  # for the venues' lists of pairs
NAMES = ("topic", "token", "symbol", "target", "horizon", "loss", "network", "epoch")

Row = tuple[int | str, ...]


def show_catalogue(*, as_json: bool) -> None:
    """Print every topic that the catalogue knows."""
    rows: list[Row] = []
    for (network, topic_id), entry in sorted(catalogue().items()):
        symbol = default_symbol(entry.asset) if entry.target != CLASSIFICATION else "none"
        asked = (topic_id, entry.asset, symbol, entry.target, entry.horizon, entry.loss)
        rows.append((*asked, network, entry.epoch_length_blocks))
    notes = [
        f"{asset} is no pair of the exchange: {default_symbol(asset)} stands for it (or {', '.join(others)} in dollars)"
        for asset, (_, *others) in PROXIES.items()
    ]
    if as_json:
        print_json(_document(rows, notes, []))
    else:
        _print(rows, notes, epoch_from=ROOMY)


def show_configured(settings: Settings, *, as_json: bool) -> None:
    """Print the topics of config.json with warnings, including warnings from the venues' lists of pairs."""
    read = read_config(
        *settings.config_files, node_version=settings.node_version, own=settings.address, workers=settings.workers
    )
    rows: list[Row] = []
    for topic in read.topics:
        asked = (topic.topic_id, topic.token, topic.symbol, topic.target, topic.horizon, topic.loss)
        rows.append((*asked, topic.network or "not said", topic.epoch_length_blocks or "not said"))
    notes = [f"{topic.proxy}: prices of {topic.symbol}" for topic in read.topics if topic.proxy]
    unknown = [topic.key for topic in read.topics if (topic.network or "", topic.topic_id) not in catalogue()]
    notes += [f"topic {key} is not in the catalogue: asked as config.json says, unchecked" for key in unknown]
    if as_json:
        doubts = [line for _, line in _listing_doubts(settings, read.topics)]
        print_json(_document(rows, notes, [*read.warnings, *doubts]))
        return
    _print(rows, notes)
    for line in read.warnings:
        say(f"warning: {line}")
    for kind, line in _listing_doubts(settings, read.topics):  # the table need not wait for the venues
        say(f"{kind}: {line}")


def _document(rows: Sequence[Row], notes: Sequence[str], warnings: Sequence[str]) -> dict[str, object]:
    topics = [dict(zip(NAMES, row, strict=True)) for row in rows]
    return {"topics": topics, "notes": sorted(set(notes)), "warnings": list(warnings)}


def _print(rows: Sequence[Row], notes: Sequence[str], *, epoch_from: int = 0) -> None:
    columns = [Column(heading=name) for name in NAMES[:-2]]
    columns += [Column(heading="network", wraps=True), Column(heading="blocks/epoch", least_width=epoch_from)]
    console = screen()
    console.print(table_of(columns, [[str(cell) for cell in row] for row in rows], console.width))
    for note in sorted(set(notes)):
        say(note)


def _listing_doubts(settings: Settings, configured: Sequence[Topic]) -> list[tuple[str, str]]:
    """Doubts about configured symbols by the venues' lists of pairs; empty if no venue can be asked."""
    from market.build import market_from  # noqa: PLC0415
    from market.listings import asked_pairs  # noqa: PLC0415

    try:
        clock, wait_s = SystemClock(), LISTING_PATIENCE_S
        venues = market_from(settings, clock, topics=configured, timeout_s=wait_s, patience_s=0).venues
    except ConfigError as error:  # such as MARKET=simulated without the exchange
        return [("warning", f"symbols were not looked up: {error}")]
    pairs = asked_pairs(venues, configured, LISTING_PATIENCE_S)
    return [("refused" if pair.contradiction else "warning", pair.line) for pair in pairs if pair.line]
