"""Holds the port that the endpoint answers on, and runs the process that answers."""
