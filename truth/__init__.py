"""The truths that the network's reputers scored against, recovered from what the chain publishes."""
