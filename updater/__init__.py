"""Keeps the kline store, retrains on a schedule, judges and publishes."""
