"""Answers the offchain node: one decimal per topic."""
