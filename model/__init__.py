"""What we expect: features, the BiRNN, its training, judgement and registry."""

import core  # noqa: F401  (before onnxruntime, which this package alone imports)
