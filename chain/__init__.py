"""What the chain did: its blocks, their times, and until when a nonce is open."""
