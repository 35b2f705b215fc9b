"""The network's seven criteria, and what a topic would need to meet them."""
