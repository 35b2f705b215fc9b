"""What a volatility is, and whether an answer was a network's."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column, and name what earlier answers were."""
    op.add_column("answers", sa.Column("forecast", sa.String, nullable=False, server_default=""))
    op.execute("UPDATE answers SET target = 'volatility std' WHERE target = 'volatility'")
    op.execute("UPDATE answers SET forecast = 'naive' WHERE version = 'persistence'")
    op.execute("INSERT INTO ledger_schema VALUES (3)")
