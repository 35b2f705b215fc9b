"""The HTTP edge of inference: routes, held questions, metrics."""
