"""The verbs of ``birnn data``."""

import typer

from cli.data.files import export, import_files
from cli.data.look import gaps, trim, verify
from cli.data.sync import sync

data_app = typer.Typer(no_args_is_help=True, help="The stored klines: sync, verify, gaps, export, import, trim.")
for verb in (sync, verify, gaps, export):
    data_app.command()(verb)
data_app.command(name="import")(import_files)
data_app.command()(trim)
