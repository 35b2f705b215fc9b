"""Records of what was answered and would have been, from which each topic's admission is judged."""
