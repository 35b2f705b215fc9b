"""Requests to the hosts of a venue, within its limits."""
