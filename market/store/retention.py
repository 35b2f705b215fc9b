"""How long stored klines are kept."""

from core.clock import DAY_MS

BACKTEST_DAYS = 92  # before what a training reads: a backtest walks over the last three months


def kept_from_ms(training_start_ms: int) -> int:
    """The open time before which no stored kline is needed, from where a training of today begins to read."""
    return training_start_ms - BACKTEST_DAYS * DAY_MS
