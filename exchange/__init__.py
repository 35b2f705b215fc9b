"""The simulated exchange: Binance's REST interface, archive and streams on loopback. ``python -m exchange``."""
