"""The shapes of rankings and of the jobs that make them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


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
