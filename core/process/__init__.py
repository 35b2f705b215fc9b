"""Processes that start, watch, end and outlive each other."""
