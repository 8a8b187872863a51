"""Cases, what was done about them, and messages about them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "cases",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False, comment="1, 2, 3, …"),
        sa.Column("task", sa.String(20), nullable=False),
        sa.Column("node", sa.String(200), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False, comment="who answers for the node (路长); may be empty"),
        sa.Column("cell", sa.String(40), nullable=False, comment="grid cell (网格); may be empty"),
        sa.Column("state", sa.String(12), nullable=False, comment="discovered, filed, dispatched, closed"),
        sa.Column("discovered", sa.BigInteger, nullable=False, comment="seconds since 1970 UTC; so are the others"),
        sa.Column("filed", sa.BigInteger),
        sa.Column("dispatched", sa.BigInteger),
        sa.Column("closed", sa.BigInteger),
        sa.Column("over", sa.BigInteger, comment="when the trouble was last seen to have passed; null while it lasts"),
        sa.Column("problem", sa.Text, nullable=False, comment="JSON, as it was found"),
        comment="warnings that somebody deals with",
    )
    op.create_index("cases_open", "cases", ["state", "task", "node"])
    op.create_table(
        "case_notes",
        sa.Column("case", sa.BigInteger, sa.ForeignKey("cases.number"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False, comment="1, 2, 3, … of the case"),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("action", sa.String(12), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        comment="what was done about a case, by whom",
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("target", sa.String(500), nullable=False),
        sa.Column("body", sa.Text, nullable=False, comment="JSON"),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False, comment="of the next attempt, seconds since 1970 UTC"),
        comment="messages to other systems that have not arrived yet",
    )


def downgrade() -> None:
    op.drop_table("deliveries")
    op.drop_table("case_notes")
    op.drop_index("cases_open", "cases")
    op.drop_table("cases")
