"""What the indexes of DATEX II sites mean."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "sites",
        sa.Column("node", sa.String(200), primary_key=True),
        sa.Column("version", sa.String(100), nullable=False, comment="of the site, as its publisher counts"),
        sa.Column("told", sa.Text, nullable=False, comment="JSON: lanes, and by index where and of which vehicles"),
        comment="measurement sites, as the newest site table has them",
    )


def downgrade() -> None:
    op.drop_table("sites")
