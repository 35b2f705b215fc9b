"""HTTP with deadlines: to venues and chains with ``requests``, to our own endpoint with the standard library."""
