"""``birnn doctor``: check configuration, disk, clock, venues and processes now."""
