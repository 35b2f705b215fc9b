"""The question's own clock."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns. Until then each interval began with its answer."""
    op.add_column("answers", sa.Column("asked_ms", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("answers", sa.Column("base_ms", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("answers", sa.Column("base_source", sa.String, nullable=False, server_default="asked"))
    op.add_column("answers", sa.Column("block_ms", sa.BigInteger, nullable=True))
    op.add_column("answers", sa.Column("elapsed_ms", sa.BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE answers SET asked_ms = answered_ms, base_ms = answered_ms")
    op.execute("INSERT INTO ledger_schema VALUES (4)")
