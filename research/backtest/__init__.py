"""``birnn backtest``: walk-forward over stored klines."""
