"""Scores, alarms, answers by time, and what the chain made of them.

ledger_schema stays at 4: a release that reads 4 can work on the database as well, and the older ones refuse it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the monitor's tables, and the index."""
    op.create_table(
        "scores",
        sa.Column("network", sa.String, primary_key=True),
        sa.Column("topic_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("height", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("answered_ms", sa.BigInteger, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("forecast", sa.String, nullable=False),
        sa.Column("start_ms", sa.BigInteger, nullable=False),
        sa.Column("end_ms", sa.BigInteger, nullable=False),
        sa.Column("scored_ms", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("venue", sa.String, nullable=False),
        sa.Column("value", sa.Float, nullable=True),
        sa.Column("truth", sa.Float, nullable=True),
        sa.Column("truth_sd", sa.Float, nullable=True),
        sa.Column("naive", sa.Float, nullable=True),
        sa.Column("plain_naive", sa.Float, nullable=True),
        sa.Column("loss", sa.Float, nullable=True),
        sa.Column("naive_loss", sa.Float, nullable=True),
        sa.Column("plain_naive_loss", sa.Float, nullable=True),
        sa.Column("right_direction", sa.Boolean, nullable=True),
        sa.Column("error_bp", sa.Float, nullable=True),
        sa.Column("loss_name", sa.String, nullable=False, server_default=""),
    )
    op.create_index("scores_by_end", "scores", ["network", "topic_id", "end_ms"])
    op.create_table(
        "candle_days",
        sa.Column("venue", sa.String, primary_key=True),
        sa.Column("symbol", sa.String, primary_key=True),
        sa.Column("interval_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "alarms",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("subject", sa.String, primary_key=True),
        sa.Column("since_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("what", sa.String, nullable=False),
        sa.Column("remedy", sa.String, nullable=False),
        sa.Column("sent_ms", sa.BigInteger, nullable=True),
        sa.Column("ended_ms", sa.BigInteger, nullable=True),
        sa.Column("end_sent_ms", sa.BigInteger, nullable=True),
    )
    op.create_index("answers_by_time", "answers", ["answered_ms"])
    op.create_table(
        "epochs",
        sa.Column("network", sa.String, primary_key=True),
        sa.Column("topic_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("nonce", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("block_ms", sa.BigInteger, nullable=True),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
        sa.Column("stage", sa.String, nullable=False),
        sa.Column("worker", sa.String, nullable=False),
        sa.Column("arrival", sa.String, nullable=False),
        sa.Column("value", sa.String, nullable=True),
        sa.Column("active", sa.Boolean, nullable=True),
        sa.Column("combined", sa.String, nullable=True),
        sa.Column("combined_without", sa.String, nullable=True),
        sa.Column("naive", sa.String, nullable=True),
        sa.Column("combined_loss", sa.String, nullable=True),
        sa.Column("combined_loss_without", sa.String, nullable=True),
        sa.Column("naive_loss", sa.String, nullable=True),
        sa.Column("loss", sa.String, nullable=True),
        sa.Column("score", sa.String, nullable=True),
        sa.Column("score_ema", sa.String, nullable=True),
        sa.Column("reward", sa.String, nullable=True),
        sa.Column("settled_height", sa.BigInteger, nullable=True),
        sa.Column("missing", sa.String, nullable=False),
        sa.Column("detail", sa.LargeBinary, nullable=True),
    )
    op.create_table(
        "sightings",
        sa.Column("network", sa.String, primary_key=True),
        sa.Column("topic_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
        sa.Column("body", sa.String, nullable=False),
    )
    op.create_table(
        "balances",
        sa.Column("network", sa.String, primary_key=True),
        sa.Column("address", sa.String, primary_key=True),
        sa.Column("read_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("amount", sa.String, nullable=False),
    )
    op.create_table(
        "adoptions",
        sa.Column("setting", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
        sa.Column("evidence", sa.String, nullable=False),
        sa.Column("adopted_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("epochs_by_time", "epochs", ["seen_ms"])
    heavy = sa.text("detail IS NOT NULL")
    op.create_index("epochs_with_detail", "epochs", ["seen_ms"], sqlite_where=heavy, postgresql_where=heavy)
