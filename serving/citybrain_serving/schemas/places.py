"""The shapes of roads and stations, of a place, and of indices."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from citybrain_serving.schemas.forecasts import PointBody, StandardBody


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
        " the next step: its median where nothing was measured lately, the quantile that an index is"
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
    observed_at: str | None = Field(description="end of the interval in which it was")
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
