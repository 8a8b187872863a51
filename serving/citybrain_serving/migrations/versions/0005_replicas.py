"""Which replica computes, and what it published last."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    terms = op.create_table(
        "terms",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="always 1"),
        sa.Column("term", sa.BigInteger, nullable=False, comment="grows each time that a replica begins to compute"),
        comment="which replica computes: one that knows an older term does so no longer",
    )
    op.bulk_insert(terms, [{"id": 1, "term": 0}])
    op.create_table(
        "published",
        sa.Column("task", sa.String(20), primary_key=True),
        sa.Column("issued", sa.BigInteger, nullable=False, comment="with task and bundle: a row of forecasts"),
        sa.Column("bundle", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, comment="of the forecast's content"),
        comment="what is answered now; replicas that do not compute read it here",
    )
    op.create_table(
        "published_latest",
        sa.Column("task", sa.String(20), sa.ForeignKey("published.task"), primary_key=True),
        sa.Column("signal", sa.String(40), primary_key=True),
        sa.Column("layout", sa.String(64), sa.ForeignKey("layouts.digest"), nullable=False),
        sa.Column("values", sa.LargeBinary, nullable=False, comment="float32 by node, packed"),
        comment="newest values of the signals that a published forecast was made from",
    )


def downgrade() -> None:
    op.drop_table("published_latest")
    op.drop_table("published")
    op.drop_table("terms")
