"""The order of Binance's columns, which REST rows and archive files share."""

from klines.klines import COLUMNS, FLOW_COLUMNS, PRICE_COLUMNS

ROW = ("open_time", *PRICE_COLUMNS, "volume", "close_time", *FLOW_COLUMNS[1:], "ignore")
PLACES = {name: ROW.index(name) for name in COLUMNS}
