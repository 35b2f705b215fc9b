"""What the market did: the venues, their newest candles and prices, and the klines on disk."""
