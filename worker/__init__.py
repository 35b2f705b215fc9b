"""The dry-run node, which replaces the official node on one machine."""
