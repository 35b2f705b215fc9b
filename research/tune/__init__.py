"""``birnn tune``: a search for training settings."""
