"""The order of Binance's columns, which REST rows, archive files and stream candles share."""

from klines.klines import COLUMNS, FLOW_COLUMNS, PRICE_COLUMNS

ROW = ("open_time", *PRICE_COLUMNS, "volume", "close_time", *FLOW_COLUMNS[1:], "ignore")
PLACES = {name: ROW.index(name) for name in COLUMNS}
OPEN_TIME, CLOSE_TIME = ROW.index("open_time"), ROW.index("close_time")
WIDTH = len(ROW) - 1  # without the unused column
MICROSECONDS_FROM = 10**14  # the year 5138 in milliseconds: such a time is in microseconds
