"""Weather forecasts that were handed in."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "weather_forecasts",
        sa.Column("signal", sa.String(40), primary_key=True),
        sa.Column("time", sa.BigInteger, primary_key=True, comment="that is forecast, seconds since 1970 UTC"),
        sa.Column("issued", sa.BigInteger, primary_key=True, comment="seconds since 1970 UTC"),
        sa.Column("layout", sa.String(64), sa.ForeignKey("layouts.digest"), nullable=False),
        sa.Column("values", sa.LargeBinary, nullable=False, comment="float32 by node, packed"),
        comment="weather forecasts as they were handed in: one row for each signal, time and issue",
    )


def downgrade() -> None:
    op.drop_table("weather_forecasts")
