"""The shape of `/v1/quality`."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, Field


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
    persistence_mae: float | None = Field(description="of outcomes whose place had been measured before the issue time")
    skill: float | None = Field(description="1 - MAE/MAE of persistence, both of those outcomes; null where unknown")


class QualityBody(BaseModel):
    """How forecasts turned out."""

    task: str
    unit: str
    nominal_coverage: float = Field(description="of the outer quantiles")
    first: date = Field(alias="from")
    last: date = Field(alias="to")
    rows: list[QualityRow]
