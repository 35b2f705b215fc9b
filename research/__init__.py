"""Backtests and tuning with the code that trains and serves."""

import core  # noqa: F401  (before matplotlib, which this package alone imports)
