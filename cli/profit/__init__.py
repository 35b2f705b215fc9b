"""``birnn profit``."""
