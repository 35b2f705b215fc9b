"""Scores every answer once its truth is known, shows the status page and sends alarms. A process of its own."""
