"""The columns of a Binance kline, the same over REST and in archive files; the last one of twelve is unused."""

from klines.klines import FLOW_COLUMNS, PRICE_COLUMNS

OPEN_TIME, CLOSE_TIME = 0, 6
PLACES = dict(zip(PRICE_COLUMNS + FLOW_COLUMNS, (1, 2, 3, 4, 5, 7, 8, 9, 10), strict=True))
WIDTH = 11  # without the unused column
MICROSECONDS_FROM = 10**14  # the year 5138 in milliseconds: such a time is in microseconds
