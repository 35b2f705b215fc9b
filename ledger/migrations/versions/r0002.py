"""The venue of an answer's price."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("answers", sa.Column("venue", sa.String, nullable=False, server_default=""))
    op.add_column("answers", sa.Column("truth_ratio", sa.Float, nullable=False, server_default="1"))
    op.execute("INSERT INTO ledger_schema VALUES (2)")
