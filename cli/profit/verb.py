"""``birnn profit``."""

from pathlib import Path
from typing import Annotated

import typer

from cli.screen import JsonOption, print_json, say, screen, show_parts
from cli.verbs import DataOption, one_line_errors, settings_from
from core.clock import SystemClock, iso
from core.errors import ConfigError, WorkerError

DAYS = 7


@one_line_errors
def profit(
    topic: Annotated[list[int] | None, typer.Option(help="Topic id; all topics by default. Repeat it.")] = None,
    network: Annotated[str | None, typer.Option(help="Only the topics of this network.")] = None,
    since: Annotated[str | None, typer.Option(help="UTC day or moment where the span begins.")] = None,
    until: Annotated[str | None, typer.Option(help="UTC day or moment where it ends, itself not included.")] = None,
    days: Annotated[
        int | None, typer.Option(help="The last so many days instead of --since; 7 by default.", min=1, max=36500)
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write a row for each wallet, topic and day to FILE.csv.")] = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the answers earned: rewards less fees by wallet, topic and day, as seen on the chain."""
    from cli.place import ledger_url, place_of  # noqa: PLC0415
    from cli.profit.account import account_of  # noqa: PLC0415
    from cli.profit.tables import account_json, account_parts, write_csv  # noqa: PLC0415
    from cli.scores.record import reading  # noqa: PLC0415
    from cli.scores.verb import span_of  # noqa: PLC0415
    from ledger.epochs import EpochBook  # noqa: PLC0415
    from monitor.chain.words import NO_ADDRESS, NO_EPOCHS, NOT_READ  # noqa: PLC0415

    if export and export.suffix.lower() != ".csv":
        raise ConfigError(f"--export {export}: the file ends in .csv; give it such an ending")
    if export and not export.parent.is_dir():
        raise ConfigError(f"--export {export}: there is no folder {export.parent}; make it, or name another")
    since_ms, until_ms = span_of(since, until, days or (None if since else DAYS), SystemClock().now_ms())
    settings = settings_from(data_dir=data_dir)
    place = place_of(settings)
    say(place.sentence)
    url = ledger_url(settings, place)
    with reading(url):  # its checks: there is a ledger, of this release, and it can be read
        book = EpochBook(url)
        try:
            account = account_of(book, since_ms, until_ms)
            has_epochs = bool(book.newest_ms())
        finally:
            book.close()
    account = account.only(topic, network)
    if not account.lines:
        why = NOT_READ if not settings.lcds else NO_ADDRESS if not settings.workers else NO_EPOCHS
        why = "No epoch of these topics was seen in that span" if has_epochs and settings.workers else why
        raise WorkerError(f"nothing to account for: {why}")
    if export:
        write_csv(export, account.lines)
        if as_json:
            print_json({"file": str(export), "rows": len(account.lines)})
        else:
            say(f"{export}: {len(account.lines):,} rows")
        return
    if as_json:
        print_json({"since": iso(since_ms), "until": iso(until_ms), **account_json(account)})
        return
    show_parts(account_parts(account, screen().width))
