"""The model's errors where persistence had a value, to compare the two of the same outcomes; of rows from before that
is known only where persistence always had one."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    comment = "sum of |median - outcome| where persistence had a value; null unknown"
    op.add_column("scores", sa.Column("paired", sa.Double, comment=comment))
    op.execute('UPDATE scores SET paired = absolute WHERE "count" = persistence_count')


def downgrade() -> None:
    op.drop_column("scores", "paired")
