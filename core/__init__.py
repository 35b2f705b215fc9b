"""The words all packages share: errors, settings, clock, topics."""

import os

# Every process of ours and its children come by here before they import a library that reads these. onnxruntime would
# report to its maker and keep an identifier of the machine in $HOME/.cache; its Python call comes too late for that.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
