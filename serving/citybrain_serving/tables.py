"""The tables of the store. A change here needs a migration beside it; a test compares the two."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

layouts = sa.Table(
    "layouts",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("ids", sa.LargeBinary, nullable=False),
    comment="node ids in the order in which arrays hold their values",
)
frames = sa.Table(
    "frames",
    metadata,
    sa.Column("signal", sa.String(40), primary_key=True),
    sa.Column("time", sa.BigInteger, primary_key=True, comment="end of the interval, seconds since 1970 UTC"),
    sa.Column("layout", sa.String(64), sa.ForeignKey(layouts.c.digest), nullable=False),
    sa.Column("values", sa.LargeBinary, nullable=False, comment="float32 by node, packed"),
    comment="observations: one row for each signal and tick",
)
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True, comment="public part of the key"),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("role", sa.String(20), nullable=False),
    sa.Column("owners", sa.Text, comment="JSON list; null acts for every owner"),
    sa.Column("hash", sa.String(200), nullable=False, comment="Argon2id of the secret part"),
    sa.Column("created", sa.BigInteger, nullable=False, comment="seconds since 1970 UTC"),
    sa.Column("expires", sa.BigInteger, comment="seconds since 1970 UTC; null never"),
    sa.Column("revoked", sa.BigInteger, comment="seconds since 1970 UTC; null not yet"),
)
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False, comment="1, 2, 3, … without a gap"),
    sa.Column("entry", sa.Text, nullable=False, comment="JSON, canonical"),
    sa.Column("seal", sa.String(64), nullable=False, comment="over the seal before and this entry"),
)
audit_head = sa.Table(
    "audit_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="always 1"),
    sa.Column("number", sa.BigInteger, nullable=False, comment="of the last entry"),
    sa.Column("seal", sa.String(64), nullable=False, comment="of the last entry"),
)
