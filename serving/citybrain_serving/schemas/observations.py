"""The shapes of readings, and of what became of them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class RemarkBody(BaseModel):
    row: int = Field(description="position in the body, from 0", ge=0)
    reason: str
    detail: str


class IngestBody(BaseModel):
    """What became of a body of observations."""

    accepted: int = Field(ge=0)
    repeated: int = Field(description="were there already, with the same value", ge=0)
    waiting: int = Field(description="of lanes, on disk until the others of their road come", ge=0)
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
