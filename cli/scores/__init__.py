"""``birnn scores``: what was answered, compared with what came true."""
