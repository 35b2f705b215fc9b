"""Proof: how the very code that trains and serves would have done on days gone by."""

import core  # noqa: F401  (before matplotlib, which this package alone imports)
