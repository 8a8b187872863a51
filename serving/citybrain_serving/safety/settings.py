"""What a person may set about safety. Part of :class:`~citybrain_serving.settings.Settings`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field


class SafetySettings(BaseModel):
    """Callers, limits and the audit log."""

    open_to_public: bool = False
    """Whether callers without a key may look at the city and its forecasts."""
    oidc_issuer: str = ""
    """Of the OpenID Connect provider whose tokens are taken; empty takes none."""
    oidc_audience: str = "citybrain"
    oidc_keys: str = ""
    """The provider's JSON Web Key Set: a file or an https address."""
    oidc_algorithms: str = "RS256,PS256,ES256,EdDSA"
    """Signatures that are taken, separated by commas."""
    oidc_roles_claim: str = "roles"
    oidc_owners_claim: str = "owners"
    """Where a token says its roles and owners; dots lead inwards (``realm_access.roles``)."""

    allowed_hosts: str = ""
    """Names that ``Host`` may have beside those of this machine, separated by commas: those that a proxy in front
    passes on. Where only this machine may call no other is taken; elsewhere every name is, unless some are set."""

    rate_per_second: float = Field(100, gt=0)
    """Requests of one caller, on average; a caller on this machine without keys is not bounded."""
    rate_burst: float = Field(500, ge=1)
    in_flight: int = Field(256, ge=1)
    """Requests under way, of all callers; beyond them the answer is 503. Probes always get through."""
    at_once: int = Field(4, ge=1)
    """Requests worked on at the same time, their bodies being read; others wait a moment, then the answer is 503.
    Inference has a queue of its own (``infer_queue_rows``)."""
    answer_seconds: float = Field(30, gt=0)
    """How long a request may take from its first byte in to its first byte out."""

    audit_key: Path | None = None
    """A file with a secret of at least 32 bytes that keys the seals of the audit log."""
    audit_seconds: float = Field(10, gt=0)
    """How often what was asked is written to the audit log; decisions are written at once."""
    bundle_digests: Path | None = None
    """A file of SHA-256 digests; no other bundle is served."""
    bundle_root: Path | None = None
    """The folder that an administrator may load bundles from while the service runs; unset loads none."""
