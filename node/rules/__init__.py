"""What is wrong or unwise in a config.json, for the official node and for this worker."""
