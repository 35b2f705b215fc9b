"""Reading the chain: its blocks, their times, and until when a nonce is open."""
