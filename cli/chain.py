"""The verbs of ``birnn chain``."""

from typing import Annotated

import typer

from cli.screen import JsonOption
from cli.verbs import ConfigOption, one_line_errors, settings_from

chain_app = typer.Typer(no_args_is_help=True, help="The network's chain: probe.")


@chain_app.callback()
def chain() -> None:
    """Ask the network's chain."""


@chain_app.command()
@one_line_errors
def probe(
    url: Annotated[str | None, typer.Option(help="A host to ask instead of those of LCD_URLS.")] = None,
    topic: Annotated[int | None, typer.Option(help="Topic to read; the newest active one if not given.", min=1)] = None,
    address: Annotated[
        str | None, typer.Option(help="Worker to read; if not given, of WORKER_ADDRESS, else one of the topic's.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask hosts of the chain's REST interface for each path that is read; exit 1 if a host cannot be used."""
    from cli.probe import probe_hosts  # noqa: PLC0415

    is_well = probe_hosts(settings_from(config=config, lcd_urls=url), topic, address, as_json=as_json)
    raise typer.Exit(0 if is_well else 1)
