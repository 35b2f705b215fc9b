"""The words all packages share: errors, settings, clock, topics."""

import os
import tempfile
from pathlib import Path

# Every process of ours and its children come by here before they import a library that reads these. onnxruntime would
# report to its maker and keep an identifier of the machine in $HOME/.cache; its Python call comes too late for that.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# matplotlib would keep its list of fonts in $HOME/.cache.
os.environ.setdefault("MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / f"matplotlib-{os.getuid()}"))
