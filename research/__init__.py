"""Backtests and tuning with the code that trains and serves."""

import os
import tempfile
from pathlib import Path

# Before matplotlib is imported, which would keep its list of fonts in $HOME/.cache.
os.environ.setdefault("MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / f"matplotlib-{os.getuid()}"))
