"""``birnn replay``: what a published network would have answered in the past, beside what was answered."""
