"""The network's seven criteria of admission, and how near a topic's answers are to them."""
