"""The store and its audit log, opened as settings say. Apart from the service, for commands that need no more."""

from __future__ import annotations

import sqlalchemy as sa

from citybrain_serving.database import migrate, open_engine
from citybrain_serving.safety.audit import AuditLog, read_secret
from citybrain_serving.safety.settings import SafetySettings
from citybrain_serving.settings import Settings


def open_store(settings: Settings) -> sa.Engine:
    """The store of ``settings``, its schema up to date."""
    engine = open_engine(settings.store)
    migrate(engine)
    return engine


def audit_of(settings: SafetySettings, engine: sa.Engine) -> AuditLog:
    return AuditLog(engine, b"" if settings.audit_key is None else read_secret(settings.audit_key))
