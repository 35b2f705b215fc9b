"""The process that holds the endpoint's port, and runs the process that answers on it."""
