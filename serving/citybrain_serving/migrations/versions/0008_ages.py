"""How old the observations of a published forecast are; of rows from before that is unknown."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column(
        "forecasts",
        sa.Column("observed_age", sa.LargeBinary, comment="its age in steps, float32 by node, packed; null unknown"),
    )
    op.add_column(
        "published_latest",
        sa.Column("ages", sa.LargeBinary, comment="in steps of the task, float32 by node, packed; null unknown"),
    )


def downgrade() -> None:
    op.drop_column("published_latest", "ages")
    op.drop_column("forecasts", "observed_age")
