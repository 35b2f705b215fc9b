"""Each venue's own way to say what the market did."""
