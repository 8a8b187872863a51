"""Safety, put together from settings and put in front of an application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from fastapi import APIRouter, FastAPI
from prometheus_client import Counter

from citybrain_datasets.errors import installing
from citybrain_models.bundle import Bundle
from citybrain_serving.database import migrate
from citybrain_serving.errors import SafetyError
from citybrain_serving.safety.callers import Callers
from citybrain_serving.safety.gate import Gate
from citybrain_serving.safety.hosts import is_loopback
from citybrain_serving.safety.keys import KeyRing
from citybrain_serving.safety.ledger import Ledger
from citybrain_serving.safety.limits import Buckets, Slots
from citybrain_serving.safety.opening import audit_of, open_store
from citybrain_serving.safety.settings import SafetySettings
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.snapshot import Snapshot
from citybrain_serving.store import SqlStore

if TYPE_CHECKING:
    from citybrain_serving.safety.tokens import Tokens


@dataclass(frozen=True)
class Safety:
    ring: KeyRing
    callers: Callers
    ledger: Ledger

    @staticmethod
    def of(
        settings: SafetySettings,
        engine: sa.Engine,
        snapshot: Callable[[], Snapshot | None],
        failed: Callable[[], None] = lambda: None,
    ) -> Safety:
        """Raises :class:`SafetyError` for settings that cannot be kept to."""
        ring = KeyRing(engine)
        callers = Callers(ring, tokens_of(settings), open_to_public=settings.open_to_public)
        return Safety(ring, callers, Ledger(audit_of(settings, engine), snapshot, settings.audit_seconds, failed))


def install(app: FastAPI, service: Service) -> None:
    """Puts the gate in front of every route of ``app``; the ledger lives as long as ``app`` does."""
    settings = service.settings
    engine = service.store.engine if isinstance(service.store, SqlStore) else _passing_engine()
    failures = Counter(
        "citybrain_audit_failures", "Times the audit log could not be written", registry=service.telemetry.registry
    )
    safety = Safety.of(settings, engine, lambda: service.snapshot, failures.inc)

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        safety.ledger.start()
        try:
            yield
        finally:
            safety.ledger.stop()

    app.include_router(APIRouter(lifespan=lifespan))
    app.state.ledger = safety.ledger

    def followed(new: Bundle, old: Bundle) -> None:
        name = f"replica:{service.appointments.replica}"
        safety.ledger.record(name, "follows", task=new.task.name, bundle=new.digest, replaces=old.digest)

    service.following.recorded = followed
    app.state.free = safety.callers.stranger.permissions  # told in the documentation
    app.add_middleware(
        Gate,
        callers=safety.callers,
        ledger=safety.ledger,
        buckets=Buckets(settings.rate_per_second, settings.rate_burst),
        in_flight=settings.in_flight,
        slots=Slots(settings.at_once),
        seconds=settings.answer_seconds,
        at_hand=service.shortcuts.reply,
    )


def tokens_of(settings: SafetySettings) -> Tokens | None:
    if not settings.oidc_issuer:
        return None
    try:
        from citybrain_serving.safety.tokens import ALGORITHMS, Tokens, key_source
    except ModuleNotFoundError as error:
        raise SafetyError(f"setting oidc_issuer: tokens need {error.name}: {installing('oidc')}") from None
    if not settings.oidc_keys:
        raise SafetyError("setting oidc_keys: the issuer's key set is needed, a file or an https address")
    algorithms = [name.strip() for name in settings.oidc_algorithms.split(",") if name.strip()]
    unknown = [name for name in algorithms if name not in ALGORITHMS]
    if unknown or not algorithms:
        raise SafetyError(f"setting oidc_algorithms: {unknown or 'none'} given; known are {', '.join(ALGORITHMS)}")
    return Tokens(
        settings.oidc_issuer,
        settings.oidc_audience,
        key_source(settings.oidc_keys),
        algorithms,
        settings.oidc_roles_claim,
        settings.oidc_owners_claim,
    )


def check_binding(settings: Settings) -> None:
    """Raises :class:`SafetyError` where the service could be called from beyond this machine and know no caller."""
    if (is_loopback(settings.host) and not settings.allowed_hosts) or settings.oidc_issuer:
        return
    engine = open_store(settings)
    known = KeyRing(engine).any()
    engine.dispose()
    if not known:
        reached = f"allowed_hosts {settings.allowed_hosts}" if is_loopback(settings.host) else f"host {settings.host}"
        raise SafetyError(
            f"{reached}: without keys this service binds to this machine only;"
            " make one with `citybrain keys create` or set oidc_issuer"
        )


def _passing_engine() -> sa.Engine:
    """Keys and audit log of a service whose store is no database: they last as long as the process."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
    migrate(engine)
    return engine
