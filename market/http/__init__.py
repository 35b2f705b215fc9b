"""Requests to the hosts of a venue, within the venue's limits."""
