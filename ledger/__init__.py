"""The answers that were given: kept in memory, in a journal and in a database."""
