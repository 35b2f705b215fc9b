"""``birnn topics --live``."""
