"""``birnn truth``: what the network scored against, and which of our candles say the same."""
