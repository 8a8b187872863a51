"""Readings of lanes that wait for the others of their road."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "lanes",
        sa.Column("time", sa.BigInteger, primary_key=True, autoincrement=False, comment="seconds since 1970 UTC"),
        sa.Column("node", sa.String(200), primary_key=True),
        sa.Column("signal", sa.String(40), primary_key=True),
        sa.Column("direction", sa.String(20), primary_key=True),
        sa.Column("lane", sa.String(20), primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("lanes", sa.Integer, nullable=False, comment="of the road, as far as the message told"),
        comment="readings of lanes whose road was not told of whole, until the others come",
    )


def downgrade() -> None:
    op.drop_table("lanes")
