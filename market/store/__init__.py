"""Klines on disk: the store, what fills it and what reads files of others."""
