"""The birnn command."""
