"""``/v1/problems``: where the city is in trouble or soon will be, the worst first."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from citybrain_serving.chinese import unit_name
from citybrain_serving.languages import CAUSES, Language, preferred_language, summary
from citybrain_serving.problems.finding import Problem
from citybrain_serving.routes.conditional import UNCHANGED, lasting
from citybrain_serving.routes.documentation import problems as errors
from citybrain_serving.routes.selecting import Selected
from citybrain_serving.schemas.decisions import ProblemsBody
from citybrain_serving.selection import Filter
from citybrain_serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["decisions"])

    @routes.get(
        "/problems",
        summary="Hot spots, now and ahead",
        response_model=ProblemsBody,
        responses={**UNCHANGED, **errors(404, 422, 503)},
    )
    def problems(
        request: Request,
        response: Response,
        places: Selected,
        task: Annotated[str | None, Query(description="`congestion` or `pm25`; both by default")] = None,
        probability: Annotated[float, Query(ge=0, le=1, description="the least of those that are not there yet")] = 0.5,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        accept_language: Annotated[str | None, Header()] = None,
    ) -> dict[str, Any]:
        """For each task the costliest first, with probable causes and the observations that they are read from.

        `cost` is what the whole horizon is expected to cost: time lost by everybody, or what is breathed above the
        limit. A probability is that of the worst step; `now` says that the newest observation passes the limit,
        and is not so old (`stale_steps`) that it tells nothing of the present.
        """
        language = preferred_language(accept_language)
        response.headers.update(lasting(service, request, language))
        if task is not None:
            service.board.known(task)
        published = service.board.of(service.snapshot)
        found: dict[str, list[dict[str, Any]]] = {}
        matching: dict[str, int] = {}
        for name, several in service.problems.items():
            if task in (None, name):
                wanted = _rows(service, name, places)
                chosen = [
                    p
                    for p in several
                    if (p.now or p.probability >= probability) and (wanted is None or p.row in wanted)
                ]
                matching[name] = len(chosen)
                found[name] = [_told(service, p, language) for p in chosen[:limit]]
        stale = {name: service.stale(published[name].answers.forecast) for name in found}
        return {
            "city": service.fleet.city.name,
            "synthetic": service.fleet.city.synthetic,
            "stale": stale,
            "doubted": {name: published[name].answers.forecast.doubted for name in found},
            "matching": matching,
            "problems": found,
        }

    return routes


def _rows(service: Service, task: str, places: Filter) -> set[int] | None:
    """Positions selected; none of a task to whose nodes the filter cannot apply, as the class of a road to air."""
    board = service.board.places[service.fleet.bundles[task].task.node]
    if places.road_class is not None and "road_class" not in board.table:
        return set()
    rows = places.rows(board)
    return None if rows is None else set(rows.tolist())


def _told(service: Service, problem: Problem, language: Language) -> dict[str, Any]:
    document = service.describe(problem)
    names = [document["name_zh"], document["name"]]
    name = next((n for n in (names if language == "zh" else names[::-1]) if n), problem.node)
    local = (problem.onset or problem.peak).tz_convert(service.fleet.city.timezone)
    node = service.fleet.bundles[problem.task].task.node
    said = summary(
        node,
        problem.now,
        [cause.kind for cause in problem.causes],
        language,
        name=name,
        time=local.strftime("%m-%d %H:%M"),
        probability=problem.probability,
    )
    causes = [{**cause, "title": CAUSES[cause["kind"]][language]} for cause in document["causes"]]
    return {
        **document,
        "cost_unit_name": unit_name(document["cost_unit"], language),
        "causes": causes,
        "summary": said,
    }
