"""``birnn status``: what is served, how good it is, and what the updater does."""
