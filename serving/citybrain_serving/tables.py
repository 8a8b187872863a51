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
weather_forecasts = sa.Table(
    "weather_forecasts",
    metadata,
    sa.Column("signal", sa.String(40), primary_key=True),
    sa.Column("time", sa.BigInteger, primary_key=True, comment="that is forecast, seconds since 1970 UTC"),
    sa.Column("issued", sa.BigInteger, primary_key=True, comment="seconds since 1970 UTC"),
    sa.Column("layout", sa.String(64), sa.ForeignKey(layouts.c.digest), nullable=False),
    sa.Column("values", sa.LargeBinary, nullable=False, comment="float32 by node, packed"),
    comment="weather forecasts as they were handed in: one row for each signal, time and issue",
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
forecasts = sa.Table(
    "forecasts",
    metadata,
    sa.Column("task", sa.String(20), primary_key=True),
    sa.Column("issued", sa.BigInteger, primary_key=True, comment="seconds since 1970 UTC"),
    sa.Column("bundle", sa.String(64), primary_key=True, comment="version of the model bundle"),
    sa.Column("computed", sa.BigInteger, nullable=False, comment="seconds since 1970 UTC"),
    sa.Column("source", sa.String(10), nullable=False, comment="model or fallback"),
    sa.Column("about", sa.Text, nullable=False, comment="JSON: task, inputs, reason, nodes replaced"),
    sa.Column("layout", sa.String(64), sa.ForeignKey(layouts.c.digest), nullable=False),
    sa.Column("values", sa.LargeBinary, nullable=False, comment="float32 by node, lead and quantile, packed"),
    sa.Column("observed", sa.LargeBinary, nullable=False, comment="float32 by node at the issue time, packed"),
    sa.Column("observed_age", sa.LargeBinary, comment="its age in steps, float32 by node, packed; null unknown"),
    sa.Column("ends", sa.BigInteger, nullable=False, comment="last time forecast"),
    sa.Column("scored", sa.Boolean, nullable=False, comment="compared with what happened"),
    sa.Index("forecasts_unscored", "scored", "ends"),
    comment="forecasts as they were issued",
)
scores = sa.Table(
    "scores",
    metadata,
    sa.Column("task", sa.String(20), primary_key=True),
    sa.Column("bundle", sa.String(64), primary_key=True),
    sa.Column("source", sa.String(10), primary_key=True),
    sa.Column("day", sa.Date, primary_key=True, comment="of the issue time, UTC"),
    sa.Column("lead_minutes", sa.Integer, primary_key=True),
    sa.Column("part", sa.String(120), primary_key=True, comment="all, owner=…, road_class=…"),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("absolute", sa.Double, nullable=False, comment="sum of |median - outcome|"),
    sa.Column("squared", sa.Double, nullable=False),
    sa.Column("error", sa.Double, nullable=False, comment="sum of median - outcome"),
    sa.Column("pinball", sa.Double, nullable=False, comment="sum of the mean over quantiles"),
    sa.Column("inside", sa.BigInteger, nullable=False, comment="outcomes between the outer quantiles"),
    sa.Column("width", sa.Double, nullable=False, comment="sum of their distances"),
    sa.Column("persistence", sa.Double, nullable=False, comment="sum of |observed at issue - outcome|"),
    sa.Column("persistence_count", sa.BigInteger, nullable=False),
    sa.Column("paired", sa.Double, comment="sum of |median - outcome| where persistence had a value; null unknown"),
    comment="sums of errors, from which measures of quality are made",
)
calibrations = sa.Table(
    "calibrations",
    metadata,
    sa.Column("task", sa.String(20), primary_key=True),
    sa.Column("bundle", sa.String(64), primary_key=True),
    sa.Column("shift", sa.Text, nullable=False, comment="JSON, lead by quantile"),
    sa.Column("updated", sa.BigInteger, nullable=False, comment="issue time of the last forecast learnt from"),
    comment="shifts of quantiles, kept true as outcomes arrive",
)
cases = sa.Table(
    "cases",
    metadata,
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
    sa.Index("cases_open", "state", "task", "node"),
    comment="warnings that somebody deals with",
)
case_notes = sa.Table(
    "case_notes",
    metadata,
    sa.Column("case", sa.BigInteger, sa.ForeignKey(cases.c.number), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False, comment="1, 2, 3, … of the case"),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("action", sa.String(12), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    comment="what was done about a case, by whom",
)
deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("target", sa.String(500), nullable=False),
    sa.Column("body", sa.Text, nullable=False, comment="JSON"),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due", sa.BigInteger, nullable=False, comment="of the next attempt, seconds since 1970 UTC"),
    comment="messages to other systems that have not arrived yet",
)
terms = sa.Table(
    "terms",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="always 1"),
    sa.Column("term", sa.BigInteger, nullable=False, comment="grows each time that a replica begins to compute"),
    comment="which replica computes: one that knows an older term does so no longer",
)
published = sa.Table(
    "published",
    metadata,
    sa.Column("task", sa.String(20), primary_key=True),
    sa.Column("issued", sa.BigInteger, nullable=False, comment="with task and bundle: a row of forecasts"),
    sa.Column("bundle", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, comment="of the forecast's content"),
    comment="what is answered now; replicas that do not compute read it here",
)
published_latest = sa.Table(
    "published_latest",
    metadata,
    sa.Column("task", sa.String(20), sa.ForeignKey(published.c.task), primary_key=True),
    sa.Column("signal", sa.String(40), primary_key=True),
    sa.Column("layout", sa.String(64), sa.ForeignKey(layouts.c.digest), nullable=False),
    sa.Column("values", sa.LargeBinary, nullable=False, comment="float32 by node, packed"),
    sa.Column("ages", sa.LargeBinary, comment="in steps of the task, float32 by node, packed; null unknown"),
    comment="newest values of the signals that a published forecast was made from",
)
lanes = sa.Table(
    "lanes",
    metadata,
    sa.Column("time", sa.BigInteger, primary_key=True, autoincrement=False, comment="seconds since 1970 UTC"),
    sa.Column("node", sa.String(200), primary_key=True),
    sa.Column("signal", sa.String(40), primary_key=True),
    sa.Column("direction", sa.String(20), primary_key=True),
    sa.Column("lane", sa.String(20), primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("lanes", sa.Integer, nullable=False, comment="of the road, as far as the message told"),
    comment="readings of lanes whose road was not told of whole, until the others come",
)
sites = sa.Table(
    "sites",
    metadata,
    sa.Column("node", sa.String(200), primary_key=True),
    sa.Column("version", sa.String(100), nullable=False, comment="of the site, as its publisher counts"),
    sa.Column("told", sa.Text, nullable=False, comment="JSON: lanes, and by index where and of which vehicles"),
    comment="measurement sites, as the newest site table has them",
)
wanted_models = sa.Table(
    "wanted_models",
    metadata,
    sa.Column("task", sa.String(20), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, comment="of the bundle"),
    sa.Column("path", sa.String(400), nullable=False, comment="below bundle_root; empty: of the start command"),
    sa.Column("started", sa.String(64), nullable=False, comment="digest of the bundle of the start command"),
    sa.Column("who", sa.String(200), nullable=False, comment="swapped or rolled back"),
    sa.Column("since", sa.BigInteger, nullable=False, comment="seconds since 1970 UTC"),
    comment="bundles that were swapped in; a task that never was has none",
)
held_models = sa.Table(
    "held_models",
    metadata,
    sa.Column("replica", sa.String(100), primary_key=True),
    sa.Column("task", sa.String(20), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, comment="of the bundle that it answers from"),
    sa.Column("problem", sa.Text, nullable=False, comment="why that is not the one wanted; empty where it is"),
    sa.Column("seen", sa.BigInteger, nullable=False, comment="when it said so, seconds since 1970 UTC"),
    comment="which bundle each replica answers from",
)
scenario_jobs = sa.Table(
    "scenario_jobs",
    metadata,
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
