"""How counts, times and progress are shown to a person."""
