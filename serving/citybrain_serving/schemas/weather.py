"""The shapes of weather forecasts that are handed in, and of what became of them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from citybrain_serving.schemas.observations import ColumnsBody, ReadingBody, RemarkBody

ISSUED = "when the forecast was issued, ISO 8601 with a zone"


class WeatherRowsBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    issued: str = Field(description=ISSUED)
    forecasts: list[ReadingBody]


class WeatherColumnsBody(ColumnsBody):
    """Columns of equal length; a plain string holds for every row."""

    issued: str = Field(description=ISSUED)


class WeatherIngestBody(BaseModel):
    """What became of a weather forecast."""

    issued: str
    accepted: int = Field(ge=0)
    repeated: int = Field(description="were there already, with the same value", ge=0)
    refused: int = Field(ge=0)
    refused_by_reason: dict[str, int]
    refusals: list[RemarkBody] = Field(description="the first thousand refused rows")
    read_by: dict[str, list[str]] = Field(
        description="by signal, the forecasts whose model reads it ahead; none: it is kept, and changes nothing"
    )
