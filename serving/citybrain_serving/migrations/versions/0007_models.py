"""Which model is wanted of every replica, and which one each answers from."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "wanted_models",
        sa.Column("task", sa.String(20), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, comment="of the bundle"),
        sa.Column("path", sa.String(400), nullable=False, comment="below bundle_root; empty: of the start command"),
        sa.Column("started", sa.String(64), nullable=False, comment="digest of the bundle of the start command"),
        sa.Column("who", sa.String(200), nullable=False, comment="swapped or rolled back"),
        sa.Column("since", sa.BigInteger, nullable=False, comment="seconds since 1970 UTC"),
        comment="bundles that were swapped in; a task that never was has none",
    )
    op.create_table(
        "held_models",
        sa.Column("replica", sa.String(100), primary_key=True),
        sa.Column("task", sa.String(20), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, comment="of the bundle that it answers from"),
        sa.Column("problem", sa.Text, nullable=False, comment="why that is not the one wanted; empty where it is"),
        sa.Column("seen", sa.BigInteger, nullable=False, comment="when it said so, seconds since 1970 UTC"),
        comment="which bundle each replica answers from",
    )


def downgrade() -> None:
    op.drop_table("held_models")
    op.drop_table("wanted_models")
