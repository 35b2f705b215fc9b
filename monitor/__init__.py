"""Scores every answer once its truth is known, shows the status page and sends alarms. A process of its own."""

import os

# Before polars is imported, which reads it then: a thread for each core costs 30 MB here, and scores come no sooner.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
