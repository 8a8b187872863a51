"""The shape of a forecast, and of those that were issued before."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class WeatherBody(BaseModel):
    """The weather forecasts that a forecast rests on."""

    issued: list[str] = Field(description="when, the newest first; empty: none was at hand, and the model did without")
    age_minutes: int | None = Field(description="of the newest, when the forecast was issued")
    signals: dict[str, float] = Field(description="share of each signal's horizon that they tell")


class TrafficBody(BaseModel):
    """The congestion forecast that a forecast of the air rests on."""

    signal: str
    issued: str | None = Field(description="when; None: none of the model's was at hand, and the air's did without")
    bundle: str = Field(description="version of the model bundle that forecast it; may be empty")
    share: float = Field(description="what it tells of the roads and hours that are read ahead; of the rest the usual")


class InputsBody(BaseModel):
    seen: float = Field(description="share of nodes measured at least once in the history", ge=0, le=1)
    newest: str | None = Field(description="newest tick of the target with a reading")
    replaced: int = Field(description="nodes whose forecast was doubted and which the weekly profile answers")
    doubts: dict[str, int] = Field(
        description="those nodes by reason: `impossible` values, or a `leap` from all that was known"
    )
    signals: dict[str, float] = Field(description="share of each input's history that was measured")
    weather: WeatherBody | None = Field(description="None: the model reads no weather forecast, whatever is handed in")
    traffic: TrafficBody | None = Field(None, description="left out where the model reads no congestion forecast")


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
    observed_at: list[str | None] = Field(
        description="end of the interval in which it was, None where that is not known; of an index that of the newest"
        " reading behind it"
    )
    values: list[list[list[float]]] = Field(description="values[id][time][quantile] in the unit")


class PointBody(BaseModel):
    type: Literal["Point"]
    coordinates: tuple[float, float] = Field(description="longitude, latitude")


class ForecastFeature(BaseModel):
    type: Literal["Feature"]
    id: str
    geometry: PointBody | None
    properties: dict[str, Any] = Field(
        description="id, names, owner, cell, observed, observed_at, values[time][quantile]"
    )


class ForecastFeatures(ForecastHead):
    type: Literal["FeatureCollection"]
    numberReturned: int
    features: list[ForecastFeature]


class IssueBody(BaseModel):
    """A forecast that was issued."""

    task: str
    issued: str
    computed: str
    bundle: str
    source: Literal["model", "fallback"]
    href: str
