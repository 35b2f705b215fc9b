"""``birnn doctor``: what is well and what is not, asked now."""
