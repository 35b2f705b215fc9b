"""The ledger's Alembic migrations; imported only while a database is upgraded."""
