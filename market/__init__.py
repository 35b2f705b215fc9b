"""What the market did: klines, the Binance client, the kline store, the simulated exchange."""
