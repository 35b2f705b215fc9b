"""Forecasts: features, the BiRNN, how it is trained and judged, and the registry of published networks."""

import core  # noqa: F401  (before onnxruntime, which this package alone imports)
