"""The newest klines and prices of every series, kept warm."""
