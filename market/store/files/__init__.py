"""Files of klines that people and other programs have: read, compared, written."""
