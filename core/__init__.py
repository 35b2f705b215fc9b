"""The words all packages share: errors, settings, clock, topics."""
