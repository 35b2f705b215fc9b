"""The source of an answer's number: a network, or the naive forecast, which needs no network."""

PERSISTENCE = "persistence"  # the version of the naive forecast, where a network has its registry's id
NETWORK, NAIVE = "network", "naive"  # the ledger's and the headers' words
ADDS_NOTHING = "the network adds nothing"  # its forecast is the naive forecast
