"""Proof: how the very code that trains and serves would have done on days gone by."""
