"""Several venues as one, in serving memory."""
