"""Scenario jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "scenario_jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False, comment="whose it is"),
        sa.Column("state", sa.String(10), nullable=False, comment="waiting, running, done, cancelled, failed"),
        sa.Column("created", sa.BigInteger, nullable=False, comment="seconds since 1970 UTC"),
        sa.Column("asked", sa.Text, nullable=False, comment="JSON, the body of the request"),
        sa.Column("about", sa.Text, nullable=False, comment="JSON, on what base"),
        sa.Column("traffic", sa.LargeBinary, nullable=False, comment="the base: float32 by signal, segment, slot"),
        sa.Column("surrogate", sa.String(64), nullable=False, comment="digest of the bundle"),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("scored", sa.Integer, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("worker", sa.String(32), comment="process that works on it"),
        sa.Column("beat", sa.BigInteger, nullable=False, comment="its last sign of life, seconds since 1970 UTC"),
        sa.Column("result", sa.LargeBinary, comment="the ranking, Parquet"),
        comment="scenarios that are scored in the background",
    )


def downgrade() -> None:
    op.drop_table("scenario_jobs")
