"""The chain as the monitor sees it: what became of every answer there."""
