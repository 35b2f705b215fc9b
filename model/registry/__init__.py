"""Published networks: their files, versions, origin and champions."""
