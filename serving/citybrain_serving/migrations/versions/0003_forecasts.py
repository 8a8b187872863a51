"""Forecasts kept, how they turned out, and what was learnt from it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "forecasts",
        sa.Column("task", sa.String(20), primary_key=True),
        sa.Column("issued", sa.BigInteger, primary_key=True, comment="seconds since 1970 UTC"),
        sa.Column("bundle", sa.String(64), primary_key=True, comment="version of the model bundle"),
        sa.Column("computed", sa.BigInteger, nullable=False, comment="seconds since 1970 UTC"),
        sa.Column("source", sa.String(10), nullable=False, comment="model or fallback"),
        sa.Column("about", sa.Text, nullable=False, comment="JSON: task, inputs, reason, nodes replaced"),
        sa.Column("layout", sa.String(64), sa.ForeignKey("layouts.digest"), nullable=False),
        sa.Column("values", sa.LargeBinary, nullable=False, comment="float32 by node, lead and quantile, packed"),
        sa.Column("observed", sa.LargeBinary, nullable=False, comment="float32 by node at the issue time, packed"),
        sa.Column("ends", sa.BigInteger, nullable=False, comment="last time forecast"),
        sa.Column("scored", sa.Boolean, nullable=False, comment="compared with what happened"),
        comment="forecasts as they were issued",
    )
    op.create_index("forecasts_unscored", "forecasts", ["scored", "ends"])
    op.create_table(
        "scores",
        sa.Column("task", sa.String(20), primary_key=True),
        sa.Column("bundle", sa.String(64), primary_key=True),
        sa.Column("source", sa.String(10), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True, comment="of the issue time, UTC"),
        sa.Column("lead_minutes", sa.Integer, primary_key=True),
        sa.Column("part", sa.String(120), primary_key=True, comment="all, owner=…, road_class=…"),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("absolute", sa.Double, nullable=False, comment="sum of |median - outcome|"),
        sa.Column("squared", sa.Double, nullable=False),
        sa.Column("error", sa.Double, nullable=False, comment="sum of median - outcome"),
        sa.Column("pinball", sa.Double, nullable=False, comment="sum of the mean over quantiles"),
        sa.Column("inside", sa.BigInteger, nullable=False, comment="outcomes between the outer quantiles"),
        sa.Column("width", sa.Double, nullable=False, comment="sum of their distances"),
        sa.Column("persistence", sa.Double, nullable=False, comment="sum of |observed at issue - outcome|"),
        sa.Column("persistence_count", sa.BigInteger, nullable=False),
        comment="sums of errors, from which measures of quality are made",
    )
    op.create_table(
        "calibrations",
        sa.Column("task", sa.String(20), primary_key=True),
        sa.Column("bundle", sa.String(64), primary_key=True),
        sa.Column("shift", sa.Text, nullable=False, comment="JSON, lead by quantile"),
        sa.Column("updated", sa.BigInteger, nullable=False, comment="issue time of the last forecast learnt from"),
        comment="shifts of quantiles, kept true as outcomes arrive",
    )


def downgrade() -> None:
    op.drop_table("calibrations")
    op.drop_table("scores")
    op.drop_index("forecasts_unscored", "forecasts")
    op.drop_table("forecasts")
