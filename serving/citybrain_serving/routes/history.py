"""``/v1/forecasts/{task}/history`` and ``/v1/quality``: what was forecast, and how it turned out."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Any, Literal

import pandas as pd
from fastapi import APIRouter, Query, Request, Response
from pydantic import BeforeValidator

from citybrain_serving.database import TEXT
from citybrain_serving.encoding import utc
from citybrain_serving.errors import BadSelection
from citybrain_serving.negotiation import next_page
from citybrain_serving.quality import ALL
from citybrain_serving.routes.documentation import problems
from citybrain_serving.routes.times import Moment, instant
from citybrain_serving.schemas.forecasts import IssueBody
from citybrain_serving.schemas.quality import QualityBody
from citybrain_serving.service import Service

SPAN = timedelta(days=7)
LONGEST_SPAN = timedelta(days=3 * 366)


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["forecasts"])

    @routes.get(
        "/forecasts/{task}/history",
        summary="Forecasts that were issued",
        response_model=list[IssueBody],
        responses=problems(404, 422, 503),
    )
    def history(
        request: Request,
        response: Response,
        task: str,
        first: Annotated[Moment | None, Query(alias="from", description="a day before `to` by default")] = None,
        last: Annotated[Moment | None, Query(alias="to", description="now by default")] = None,
        limit: Annotated[int, Query(ge=1, le=2_000)] = 300,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    ) -> list[dict[str, Any]]:
        """The newest first; a `Link` leads to the next page. Each is read in full at its `href`, with the filters of
        the newest forecast."""
        service.board.known(task)
        end = instant(last, "to") if last else _now(service)
        begin = instant(first, "from") if first else end - pd.Timedelta(days=1)
        if begin > end:
            raise BadSelection(f"from {utc(begin)} is later than to {utc(end)}", {"parameter": "from"})
        found = service.history.list(task, begin, end, limit + 1, offset)
        if len(found) > limit:
            # A page holds the bounds fast: forecasts that are issued meanwhile would push the older ones along.
            bounds = {"from": begin.isoformat(), "to": end.isoformat()}
            response.headers["Link"] = next_page(request, offset + limit, bounds)
        return [
            {
                "task": issue.task,
                "issued": utc(issue.issued),
                "computed": utc(issue.computed),
                "bundle": issue.bundle,
                "source": issue.source,
                "href": f"/v1/forecasts/{task}?issued={utc(issue.issued)}",
            }
            for issue in found[:limit]
        ]

    @routes.get(
        "/quality", summary="How forecasts turned out", response_model=QualityBody, responses=problems(404, 422, 503)
    )
    def quality(
        task: Annotated[str, Query(description="`congestion` or `pm25`")],
        first: Annotated[date | None, Query(alias="from", description="first day, UTC; a week by default")] = None,
        last: Annotated[date | None, Query(alias="to", description="last day, UTC; today by default")] = None,
        part: Annotated[
            str, Query(alias="group", max_length=120, pattern=TEXT, description="`all`, `owner=…`, `road_class=…`")
        ] = ALL,
        by: Annotated[
            list[Literal["lead_minutes", "bundle", "source", "day", "group"]] | None,
            BeforeValidator(_apart),
            Query(description="what makes a row; the lead by default"),
        ] = None,
    ) -> dict[str, Any]:
        """Errors in the unit of the signal, pooled over everything scored: a sum over a count, never a mean of means.

        A forecast is scored once its last step was measured. `coverage` is the share of outcomes between the outer
        quantiles, `skill` 1 − MAE/MAE of persistence over the same outcomes: those of places that had been measured in
        the history before the issue time, which `mae` goes beyond.
        """
        service.board.known(task)
        end = last or _now(service).date()
        begin = first or max(end, date.min + SPAN) - SPAN
        if not timedelta(0) <= end - begin <= LONGEST_SPAN:
            raise BadSelection(f"from {begin} to {end} is no span of at most {LONGEST_SPAN.days} days")
        names = ["part" if name == "group" else name for name in dict.fromkeys(by or ["lead_minutes"])]
        every = "" if "part" in names else part
        rows = service.quality.table(task, begin, end, every, names)
        definition = service.fleet.bundles[task].task
        return {
            "task": task,
            "unit": service.fleet.channels[definition.target].kind.unit,
            "nominal_coverage": round(definition.quantiles[-1] - definition.quantiles[0], 6),
            "from": begin,
            "to": end,
            "rows": [{"group" if name == "part" else name: value for name, value in row.items()} for row in rows],
        }

    return routes


def _apart(given: Any) -> Any:
    """Members of a list that commas separate, as in every other list of a query."""
    return [name for one in given for name in str(one).split(",")] if isinstance(given, list) else given


def _now(service: Service) -> pd.Timestamp:
    now = service.clock.now()
    return pd.Timestamp.now("UTC") if now is None else now
