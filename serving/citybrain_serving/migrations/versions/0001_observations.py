"""Observations in frames."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "layouts",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("ids", sa.LargeBinary, nullable=False),
        comment="node ids in the order in which arrays hold their values",
    )
    op.create_table(
        "frames",
        sa.Column("signal", sa.String(40), primary_key=True),
        sa.Column("time", sa.BigInteger, primary_key=True, comment="end of the interval, seconds since 1970 UTC"),
        sa.Column("layout", sa.String(64), sa.ForeignKey("layouts.digest"), nullable=False),
        sa.Column("values", sa.LargeBinary, nullable=False, comment="float32 by node, packed"),
        comment="observations: one row for each signal and tick",
    )


def downgrade() -> None:
    op.drop_table("frames")
    op.drop_table("layouts")
