"""Training of a network. Torch is imported here."""
