"""The shapes of rankings and of the jobs that make them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Hours(BaseModel):
    """Local hours, and the kinds of day that they lie on; `all` for both."""

    begin: str = Field(examples=["07:00"])
    end: str = Field(examples=["09:00"])
    days: Literal["working", "off", "all"]


_WEATHER = "in which what traffic emits is dispersed: `usual`, of the days and hours that the surrogate holds"


class Air(BaseModel):
    """The PM2.5 that the outcomes of the air are held against."""

    base: Literal["now", "usual"] = Field(
        description="`now` is the forecast for the stations; `usual` that of the days that the surrogate holds"
    )
    issued: str | None = Field(None, description="of the forecast that `now` is")
    forecast: str | None = Field(None, description="its digest")
    source: Literal["model", "fallback"] | None = Field(None, description="`fallback` is the weekly profile")
    stale: bool | None = Field(None, description="the observations behind it are too old")
    reason: str = Field(description="why it is `usual` though the traffic's base is `now`; else empty")


class RankingBody(BaseModel):
    """Scenarios, the best first, and the traffic that they are held against."""

    base: Literal["now", "usual"]
    issued: str | None = Field(None, description="of the forecast that `now` is")
    forecast: str | None = Field(None, description="its digest")
    source: Literal["model", "fallback"] | None = Field(None, description="`fallback` is the weekly profile")
    stale: bool | None = Field(None, description="the observations behind it are too old")
    reason: str = Field(description="why it is not the base asked for; empty where it is")
    air: Air
    hours: Hours = Field(description="that are judged, and in which measures hold")
    weather: Literal["usual"] = Field(description=_WEATHER)
    scenarios: list[dict[str, Any]] = Field(
        description="rank, score and its bounds, whether these reach the first one's (maybe_best), pareto, id, title,"
        " levers, measures (in the scenario language, as JSON), weather, cost; each outcome, its change and the bounds"
        " of the change (90 %); grade, and why a scenario goes beyond what was learnt or changes nothing (outside)"
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
    source: Literal["model", "fallback"] | None = None
    stale: bool | None = None
    reason: str
    air: Air | None = None
    hours: Hours | None = Field(None, description="that are judged, and in which measures hold")
    weather: Literal["usual"] = Field("usual", description=_WEATHER)
