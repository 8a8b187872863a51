"""The store and its audit log, opened as settings say. Apart from the service, for commands that need no more."""

from __future__ import annotations

import sqlalchemy as sa

from citybrain_serving.database import VERSIONS, migrate, open_engine, transaction
from citybrain_serving.errors import FleetError
from citybrain_serving.safety.audit import AuditLog, read_secret
from citybrain_serving.safety.settings import SafetySettings
from citybrain_serving.settings import Settings


def open_store(settings: Settings, *, new: bool = True) -> sa.Engine:
    """The store of ``settings``, its schema up to date. Raises :class:`FleetError` where it must not be made anew and
    there is none."""
    if not new:
        read_store(settings).dispose()
    engine = open_engine(settings.store)
    migrate(engine)
    return engine


def read_store(settings: Settings) -> sa.Engine:
    """The store of ``settings`` as it is: nothing can be changed in it. Raises :class:`FleetError` where there is
    none."""
    engine = open_engine(settings.store, new=False, reading=True)
    with transaction(engine) as connection:
        if not sa.inspect(connection).has_table(VERSIONS):
            raise FleetError(f"store {engine.url}: the database holds nothing of this service")
    return engine


def audit_of(settings: SafetySettings, engine: sa.Engine) -> AuditLog:
    return AuditLog(engine, b"" if settings.audit_key is None else read_secret(settings.audit_key))
