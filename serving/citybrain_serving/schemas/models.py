"""The shapes of bundles in use."""

from __future__ import annotations

from pydantic import BaseModel, Field


class VersionBody(BaseModel):
    """A bundle by its digest; `version` is the start of it, as answers name it."""

    version: str
    digest: str
    trained: str


class SwapBody(BaseModel):
    """The bundle that answers from the next cycle on, and the one that a rollback brings back."""

    task: str
    bundle: VersionBody
    previous: VersionBody | None


class ReplicaBody(BaseModel):
    replica: str
    digest: str
    problem: str | None
    seen: str


class ModelsBody(BaseModel):
    """Bundles of one task."""

    task: str
    bundle: VersionBody
    previous: VersionBody | None
    shadow: VersionBody | None
    problem: str | None = Field(description="why it is not the bundle that was swapped in, where it is not")
    replicas: list[ReplicaBody] = Field(description="what each replica answers from; empty for a service alone")
