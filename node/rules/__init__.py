"""Errors and warnings about a config.json, for the official node and for this worker."""
