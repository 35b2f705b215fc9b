"""``birnn data VERB``: fetch klines, check the stored ones, write them to files and read them from files."""
