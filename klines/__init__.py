"""Klines and pure functions of them, with numpy alone."""
