"""Roles, what each may do, and on whose segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from citybrain_serving.errors import Forbidden


class Role(StrEnum):
    PUBLIC = "public"
    VIEWER = "viewer"
    INGEST = "ingest"
    OPERATOR = "operator"
    ADMIN = "admin"


class Permission(StrEnum):
    PROBE = "probe"
    """Is the service alive and ready."""
    LOOK = "look"
    """What is meant for everyone: the city, forecasts, the documentation."""
    READ = "read"
    """Everything that is read: problems, cases, quality, history, metrics."""
    INFER = "infer"
    """Run a network on inputs of one's own, or a scenario."""
    INGEST = "ingest"
    """Send observations."""
    DECIDE = "decide"
    """File, dispatch and close cases."""
    ADMINISTER = "administer"
    """Swap models, and whatever the table of rules does not name."""


_PUBLIC = frozenset({Permission.PROBE, Permission.LOOK})
_VIEWER = _PUBLIC | {Permission.READ, Permission.INFER}

GRANTS: dict[Role, frozenset[Permission]] = {
    Role.PUBLIC: _PUBLIC,
    Role.VIEWER: _VIEWER,
    Role.INGEST: _PUBLIC | {Permission.INGEST},
    Role.OPERATOR: _VIEWER | {Permission.DECIDE},
    Role.ADMIN: frozenset(Permission),
}
"""The permission table. A sensor gateway's key (``ingest``) sends readings and sees no more than the public."""


@dataclass(frozen=True)
class Principal:
    """Whoever makes a request. ``owners`` None acts for every owner, else for the segments of those alone."""

    name: str
    permissions: frozenset[Permission]
    owners: frozenset[str] | None = None
    known: bool = True
    """Whether it proved who it is; False for the public."""

    @staticmethod
    def of(name: str, roles: Iterable[Role], owners: Iterable[str] | None = None) -> Principal:
        granted = frozenset[Permission]().union(*(GRANTS[role] for role in roles))
        return Principal(name, granted, None if owners is None else frozenset(owners))

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def acts_for(self, owner: str | None) -> bool:
        """Whether things of ``owner`` are this principal's; what nobody owns is only for the unscoped."""
        return self.owners is None or (owner is not None and owner in self.owners)

    def require_owner(self, owner: str | None, what: str) -> None:
        """Raises :class:`Forbidden` where ``what`` belongs to somebody else."""
        if not self.acts_for(owner):
            raise Forbidden(f"{what} is not yours to act on")


LOCAL = Principal.of("local", [Role.ADMIN])
"""A caller on this machine while no key exists: whoever can start the service may use all of it."""

NOBODY = Principal("public", frozenset({Permission.PROBE}), frozenset(), known=False)
ANYONE = Principal("public", GRANTS[Role.PUBLIC], frozenset(), known=False)
"""A caller without a key, where the service is closed to the public and where it is open."""
