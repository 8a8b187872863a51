"""API keys, and the audit log with what keeps it append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

APPEND_ONLY = {
    "sqlite": (
        "CREATE TRIGGER IF NOT EXISTS audit_keeps_{verb} BEFORE {verb} ON audit"
        " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
        "CREATE OR REPLACE TRIGGER audit_keeps_{verb} BEFORE {verb} ON audit"
        " FOR EACH ROW EXECUTE FUNCTION audit_is_append_only()",
    ),
}
"""Against slips; whoever may drop a trigger is caught by the chain."""


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), primary_key=True, comment="public part of the key"),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("owners", sa.Text, comment="JSON list; null acts for every owner"),
        sa.Column("hash", sa.String(200), nullable=False, comment="Argon2id of the secret part"),
        sa.Column("created", sa.BigInteger, nullable=False, comment="seconds since 1970 UTC"),
        sa.Column("expires", sa.BigInteger, comment="seconds since 1970 UTC; null never"),
        sa.Column("revoked", sa.BigInteger, comment="seconds since 1970 UTC; null not yet"),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False, comment="1, 2, 3, … without a gap"),
        sa.Column("entry", sa.Text, nullable=False, comment="JSON, canonical"),
        sa.Column("seal", sa.String(64), nullable=False, comment="over the seal before and this entry"),
    )
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="always 1"),
        sa.Column("number", sa.BigInteger, nullable=False, comment="of the last entry"),
        sa.Column("seal", sa.String(64), nullable=False, comment="of the last entry"),
    )
    for statement in APPEND_ONLY.get(op.get_bind().dialect.name, ()):
        for verb in ("UPDATE", "DELETE"):
            op.execute(statement.format(verb=verb))


def downgrade() -> None:
    for table in ("audit_head", "audit", "api_keys"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_is_append_only")
