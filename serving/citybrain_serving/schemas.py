"""The shapes of answers, for the OpenAPI document. Answers are encoded by hand; tests hold the two
together."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class InputsBody(BaseModel):
    seen: float = Field(description="share of nodes measured at least once in the history", ge=0, le=1)
    newest: str | None = Field(description="newest tick of the target with a reading")
    replaced: int = Field(description="nodes whose forecast was doubted and which the weekly profile answers")
    doubts: dict[str, int] = Field(
        description="those nodes by reason: `impossible` values, or a `leap` from all that was known"
    )
    signals: dict[str, float] = Field(description="share of each input's history that was measured")


class StandardBody(BaseModel):
    id: str
    standard: str
    effective: str | None


class ForecastHead(BaseModel):
    city: str
    synthetic: bool = Field(description="the city is simulated; nothing here was measured")
    task: str
    signal: str
    unit: str
    index: StandardBody | None = Field(description="the index that the values are, None for the signal itself")
    issued: str = Field(description="the newest tick that the forecast knows of, UTC")
    step_minutes: int
    source: Literal["model", "fallback"] = Field(description="'fallback': the weekly profile answered, see reason")
    reason: str = Field(description="why the profile answers, or why the forecast is doubted")
    doubted: bool = Field(description="the model's, published for want of better: outcomes kept falling outside")
    stale: bool = Field(description="the newest observation is too old to rely on")
    bundle: str = Field(description="version of the model bundle")
    inputs: InputsBody
    times: list[str] = Field(description="UTC ends of the intervals forecast")
    quantiles: list[float]


class ForecastBody(ForecastHead):
    """A forecast as columns: row i of every column belongs to ids[i]."""

    ids: list[str]
    observed: list[float | None] = Field(description="newest measured value")
    values: list[list[list[float]]] = Field(description="values[id][time][quantile] in the unit")


class PointBody(BaseModel):
    type: Literal["Point"]
    coordinates: tuple[float, float] = Field(description="longitude, latitude")


class ForecastFeature(BaseModel):
    type: Literal["Feature"]
    id: str
    geometry: PointBody | None
    properties: dict[str, Any] = Field(description="id, names, owner, cell, observed, values[time][quantile]")


class ForecastFeatures(ForecastHead):
    type: Literal["FeatureCollection"]
    numberReturned: int
    features: list[ForecastFeature]


class TaskBody(BaseModel):
    name: str
    node: str
    signal: str
    unit: str
    step_minutes: int
    horizon: int
    quantiles: list[float]
    bundle: str
    trained: str
    metrics: dict[str, Any]
    issued: str | None
    source: Literal["model", "fallback"] | None
    stale: bool | None
    doubted: bool | None


class SignalBody(BaseModel):
    unit: str
    unit_name: str = Field(description="the unit in words, where the language has them")
    node: str
    step_minutes: int
    low: float
    high: float
    title: str


class CityBody(BaseModel):
    """What this service serves."""

    name: str
    title: str
    timezone: str
    country: str | None
    synthetic: bool
    attribution: str
    nodes: dict[str, int] = Field(description="how many nodes of each type")
    signals: dict[str, SignalBody] = Field(description="what observations may be sent, in which unit, how often")
    tasks: dict[str, TaskBody]


class RemarkBody(BaseModel):
    row: int = Field(description="position in the body, from 0", ge=0)
    reason: str
    detail: str


class IngestBody(BaseModel):
    """What became of a body of observations."""

    accepted: int = Field(ge=0)
    repeated: int = Field(description="were there already, with the same value", ge=0)
    late: int = Field(description="among the accepted: older than the newest of their signal", ge=0)
    refused: int = Field(ge=0)
    refused_by_reason: dict[str, int]
    refusals: list[RemarkBody] = Field(description="the first thousand refused rows")
    doubted: int = Field(description="among the accepted: stored, and treated as missing", ge=0)
    doubted_by_reason: dict[str, int]
    doubts: list[RemarkBody] = Field(description="the first thousand doubted rows")


class ReadingBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    signal: str
    time: str = Field(description="end of the interval, ISO 8601 with a zone")
    value: float
    unit: str | None = None


class RowsBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    observations: list[ReadingBody]


class ColumnsBody(BaseModel):
    """Columns of equal length; a plain string holds for every row."""

    model_config = ConfigDict(extra="forbid")

    id: list[str] | str
    signal: list[str] | str
    time: list[str] | str
    value: list[float]
    unit: list[str | None] | str | None = None


class ProblemBody(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class LinkBody(BaseModel):
    rel: str
    type: str
    href: str


class PlaceFeature(BaseModel):
    type: Literal["Feature"]
    id: str
    geometry: PointBody | None
    properties: dict[str, Any] = Field(
        description="what is known of the node, its newest observation, the index asked for"
    )


class PlaceFeatures(BaseModel):
    """A page of nodes, as OGC API Features has it."""

    type: Literal["FeatureCollection"]
    timeStamp: str
    numberMatched: int
    numberReturned: int
    links: list[LinkBody]
    features: list[PlaceFeature]


class CityIndex(BaseModel):
    value: float
    level: int
    name: str


class IndexBody(BaseModel):
    """An index, and the standard that defines it."""

    id: str
    signal: str
    title: str
    now: str = Field(description="what the present value at a place is made from")
    city: CityIndex | None = Field(description="of the whole network now, weighted by vehicle-kilometres")
    standard: str
    standard_title: str
    effective: str | None = Field(description="first day on which the standard holds")
    until: str | None = Field(description="last day, where it was replaced")


class IndexValue(StandardBody):
    value: float | None
    basis: Literal["observed", "hour", "nowcast", "forecast"] = Field(
        description="made from the newest reading, the mean of the last hour, the NowCast of the last twelve hours, or"
        " the next step: its median where nothing was measured, the quantile that an index is"
    )
    level: int | None = None
    name: str | None = None


class HourBody(BaseModel):
    time: str
    values: dict[str, float] = Field(description="by quantile")


class NearBody(BaseModel):
    """The nearest node that is forecast."""

    id: str
    name: str
    distance_m: float
    signal: str
    unit: str
    observed: float | None
    issued: str
    source: Literal["model", "fallback"]
    doubted: bool
    stale: bool
    bundle: str
    indices: list[IndexValue] = Field(description="of the present")
    ahead: list[HourBody]


class AtBody(BaseModel):
    """This place, this hour."""

    city: str
    synthetic: bool
    lat: float
    lon: float
    cell: str
    time: str
    language: str
    road: NearBody | None
    air: NearBody | None
    warnings: list[str]
    advice: list[str]


class IssueBody(BaseModel):
    """A forecast that was issued."""

    task: str
    issued: str
    computed: str
    bundle: str
    source: Literal["model", "fallback"]
    href: str


class QualityRow(BaseModel):
    lead_minutes: int | None = None
    bundle: str | None = None
    source: str | None = None
    day: date | None = None
    group: str | None = None
    count: int = Field(description="outcomes scored")
    mae: float
    rmse: float
    bias: float = Field(description="mean of median minus outcome")
    pinball: float
    coverage: float
    width: float
    persistence_mae: float | None
    skill: float | None


class QualityBody(BaseModel):
    """How forecasts turned out."""

    task: str
    unit: str
    nominal_coverage: float = Field(description="of the outer quantiles")
    first: date = Field(alias="from")
    last: date = Field(alias="to")
    rows: list[QualityRow]


class CauseBody(BaseModel):
    kind: str
    title: str = Field(description="the kind in words")
    inputs: list[dict[str, Any]] = Field(description="observations that the cause is read from")


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
    now: bool = Field(description="the newest observation passes the limit")
    probability: float = Field(description="of the worst step")
    peak: str = Field(description="the worst step")
    onset: str | None = Field(description="first step at which it is likely")
    until: str | None = Field(description="last step at which it is likely")
    lead_minutes: int | None
    observed: float | None
    limit: float
    standard: str
    cost: float
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
    discovered: str
    filed: str | None
    dispatched: str | None
    closed: str | None
    over: str | None = Field(description="since when the trouble has passed, while the case is still open")
    problem: dict[str, Any] = Field(description="as it was found")
    notes: list[NoteBody]


class RankingBody(BaseModel):
    """Scenarios, the best first, and the traffic that they are held against."""

    base: Literal["now", "usual"]
    issued: str | None = Field(None, description="of the forecast that `now` is")
    forecast: str | None = Field(None, description="its digest")
    reason: str = Field(description="why it is not the base asked for; empty where it is")
    scenarios: list[dict[str, Any]] = Field(
        description="rank, score, pareto, id, title, levers, cost; each outcome, its change and the bounds of the"
        " change (90 %); grade, and why a scenario goes beyond what was learnt (outside)"
    )


class JobBody(BaseModel):
    """Scenarios that are scored in the background."""

    id: str
    state: Literal["waiting", "running", "done", "cancelled", "failed"]
    scenarios: int
    scored: int
    problem: str | None = Field(description="why it failed")
    results: str = Field(description="address of the ranking")
    base: Literal["now", "usual"]
    issued: str | None = None
    forecast: str | None = None
    reason: str


class VersionBody(BaseModel):
    """A bundle by its digest; `version` is the start of it, as answers name it."""

    version: str
    digest: str
    trained: str


class SwapBody(BaseModel):
    """The bundle that answers from the next cycle on, and the one that a rollback brings back."""

    task: str
    bundle: VersionBody
    previous: VersionBody


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
