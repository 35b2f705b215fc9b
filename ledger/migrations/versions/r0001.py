"""The answers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables of the first release."""
    op.create_table("ledger_schema", sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
    op.create_table(
        "answers",
        sa.Column("network", sa.String, primary_key=True),
        sa.Column("topic_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("height", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("value", sa.String, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("symbol", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("horizon_min", sa.Integer, nullable=False),
        sa.Column("anchor", sa.Float, nullable=False),
        sa.Column("anchor_asof_ms", sa.BigInteger, nullable=False),
        sa.Column("asof_ms", sa.BigInteger, nullable=False),
        sa.Column("answered_ms", sa.BigInteger, nullable=False),
        sa.Column("market", sa.String, nullable=False),
    )
    op.execute("INSERT INTO ledger_schema VALUES (1)")
