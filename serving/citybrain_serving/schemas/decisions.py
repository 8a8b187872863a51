"""The shapes of problems and cases."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class CauseBody(BaseModel):
    kind: str
    title: str = Field(description="the kind in words")
    inputs: list[dict[str, Any]] = Field(
        description="what the cause is read from: `signal`, `id` of where it is measured (`city` for the whole city),"
        " `value`, `unit`, `kind` (`measured`, or `usual` by the weekly profile), `time`; of a neighbour `distance_m`"
    )


class Hotspot(BaseModel):
    """Trouble at one node."""

    task: str
    id: str
    name: str
    name_zh: str
    owner: str
    cell: str
    lat: float | None
    lon: float | None
    now: bool = Field(description="the newest observation passes the limit and is no older than `stale_steps` steps")
    probability: float = Field(description="of the worst step")
    peak: str = Field(description="the worst step")
    onset: str | None = Field(description="first step at which it is likely")
    until: str | None = Field(description="last step at which it is likely")
    lead_minutes: int | None = Field(description="from the issue of the forecast to `onset`; 0 where it is there now")
    observed: float | None
    observed_at: str | None
    limit: float = Field(
        description="what the newest observation is held against: a speed below it is congested, a"
        " concentration above it polluted"
    )
    unit: str = Field(description="of `observed` and `limit`")
    standard: str
    cost: float | None = Field(description="None where it cannot be told, as of a road whose length is unknown")
    cost_unit: str
    cost_unit_name: str = Field(description="the unit in words, where the language has them")
    causes: list[CauseBody]
    issued: str
    bundle: str
    summary: str


class ProblemsBody(BaseModel):
    """Hot spots by task, the costliest first."""

    city: str
    synthetic: bool
    stale: dict[str, bool]
    doubted: dict[str, bool]
    matching: dict[str, int] = Field(description="how many there are, those beyond `limit` included")
    problems: dict[str, list[Hotspot]]


class NoteBody(BaseModel):
    time: str
    who: str
    action: str
    text: str


class CaseBody(BaseModel):
    """A warning that somebody deals with."""

    number: int
    task: str
    id: str
    owner: str
    cell: str
    state: Literal["discovered", "filed", "dispatched", "closed"]
    opened_by: str = Field(description="`citybrain` is the service itself; what somebody opened it does not close")
    discovered: str
    filed: str | None
    dispatched: str | None
    closed: str | None
    over: str | None = Field(description="since when the trouble has passed, while the case is still open")
    seen: bool | None = Field(
        description="whether the newest forecast sees the place: where nothing was measured lately, nobody can say that"
        " the trouble has passed; None of a closed case"
    )
    problem: dict[str, Any] = Field(description="as it was found")
    notes: list[NoteBody]
