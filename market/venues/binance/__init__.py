"""Binance: REST, archive and stream."""
