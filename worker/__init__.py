"""What stands in the place of the official node on one machine."""
