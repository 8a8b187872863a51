"""The shape of `/v1/city`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


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
