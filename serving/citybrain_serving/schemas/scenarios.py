"""The shapes of rankings and of the jobs that make them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Hours(BaseModel):
    """Local hours, and the kinds of day that they lie on; `all` for both."""

    begin: str = Field(examples=["07:00"])
    end: str = Field(examples=["09:00"])
    days: Literal["working", "off", "all"]


_WEATHER = (
    "whose weather the air is in: `usual`, of the days and hours that the surrogate holds, also where the base is `now`"
)


class RankingBody(BaseModel):
    """Scenarios, the best first, and the traffic that they are held against."""

    base: Literal["now", "usual"]
    issued: str | None = Field(None, description="of the forecast that `now` is")
    forecast: str | None = Field(None, description="its digest")
    reason: str = Field(description="why it is not the base asked for; empty where it is")
    hours: Hours = Field(description="that are judged, and in which measures hold")
    weather: Literal["usual"] = Field(description=_WEATHER)
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
    hours: Hours | None = Field(None, description="that are judged, and in which measures hold")
    weather: Literal["usual"] = Field("usual", description=_WEATHER)
