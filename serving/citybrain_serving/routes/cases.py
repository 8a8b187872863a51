"""``/v1/cases``: warnings that somebody deals with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pandas as pd
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from citybrain_serving.cases.casebook import OPEN, Case, State, Wanted
from citybrain_serving.cases.documents import case_document
from citybrain_serving.database import TEXT
from citybrain_serving.errors import NotNow
from citybrain_serving.languages import asked_language, spoken
from citybrain_serving.negotiation import next_page
from citybrain_serving.routes.documentation import problems
from citybrain_serving.safety.gate import principal_of
from citybrain_serving.schemas.decisions import CaseBody
from citybrain_serving.service import Service

Number = Annotated[int, Path(ge=1, le=2**62)]


class NewCase(BaseModel):
    """A place that somebody has seen to be in trouble."""

    model_config = ConfigDict(extra="forbid")
    task: str = Field(max_length=20)
    id: str = Field(max_length=200, description="of the road segment or air station")
    note: str = Field("", max_length=4_000, pattern=TEXT)


class Step(BaseModel):
    """What is done about a case."""

    model_config = ConfigDict(extra="forbid")
    action: Literal["file", "dispatch", "close", "note"]
    note: str = Field("", max_length=4_000, pattern=TEXT)
    expected: State | None = Field(None, description="refused where the case is in another state by now")


CASE_LINKS = {
    name: {"operationRef": f"#/paths/~1v1~1cases~1{{number}}{rest}", "parameters": {"number": "$response.body#/number"}}
    for name, rest in (("case", "/get"), ("step", "~1steps/post"))
}


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1/cases", tags=["decisions"], dependencies=[Depends(_say_language)])
    book = service.casebook

    def told(case: Case) -> dict[str, Any]:
        seen = None if case.state == "closed" else service.sees(case.task, case.node)
        return {**case_document(case, asked_language()), "seen": seen}

    @routes.get("", summary="Cases, the newest first", response_model=list[CaseBody], responses=problems(404, 422, 503))
    def cases(
        request: Request,
        response: Response,
        state: Annotated[State | Literal["open"] | None, Query(description="`open` is every state but closed")] = None,
        task: Annotated[str | None, Query(max_length=20, description="`congestion` or `pm25`; both by default")] = None,
        owner: Annotated[str | None, Query(max_length=200, pattern=TEXT)] = None,
        cell: Annotated[str | None, Query(max_length=40, pattern=TEXT)] = None,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    ) -> list[dict[str, Any]]:
        """Without their notes; a `Link` leads to the next page. Whoever acts for certain owners sees the cases of those
        alone."""
        if task is not None:
            service.board.known(task)
        states = OPEN if state == "open" else None if state is None else (state,)
        wanted = Wanted(states, task, owner, cell, principal_of(request).owners)
        found = book.find(wanted, limit + 1, offset)
        if len(found) > limit:
            response.headers["Link"] = next_page(request, offset + limit)
        return [told(case) for case in found[:limit]]

    @routes.get(
        "/{number}", summary="One case with its notes", response_model=CaseBody, responses=problems(403, 404, 422, 503)
    )
    def case(request: Request, number: Number) -> dict[str, Any]:
        return told(_mine(request, book.get(number)))

    @routes.post(
        "",
        summary="Open a case",
        status_code=201,
        response_model=CaseBody,
        responses={201: {"links": CASE_LINKS}, **problems(400, 403, 404, 409, 422, 503)},
    )
    def open_case(request: Request, new: NewCase) -> dict[str, Any]:
        """For what somebody has seen; what the forecast sees opens cases by itself."""
        service.board.known(new.task)
        places = service.board.places[service.fleet.bundles[new.task].task.node]
        (row,) = places.rows([new.id])
        owner = places.text("owner")[row]
        who = principal_of(request)
        who.require_owner(owner, f"{places.node} node {new.id!r}")
        found = next((p for p in service.problems.get(new.task, []) if p.node == new.id), None)
        cell = places.text("cell")[row]
        seen = {column: places.text(column)[row] for column in ("name", "name_zh")}
        about = {"task": new.task, "id": new.id, "owner": owner, "cell": cell, **seen}
        problem = service.describe(found) if found else about
        _record(request, "opens case", task=new.task, id=new.id)
        opened = book.open(problem, _now(), who.name, new.note)
        if opened is None:
            raise NotNow(f"a case of {new.task} at {new.id!r} is open already")
        return told(opened)

    @routes.post(
        "/{number}/steps",
        summary="File, dispatch, close or note",
        response_model=CaseBody,
        responses=problems(400, 403, 404, 409, 422, 503),
    )
    def act(request: Request, number: Number, step: Step) -> dict[str, Any]:
        """discovered → filed → dispatched → closed. A step that the state does not allow is refused with 409."""
        case = _mine(request, book.get(number))
        about = {"case": number, "task": case.task, "id": case.node, "state": case.state}
        _record(request, "takes step", action=step.action, **about)
        who = principal_of(request).name
        return told(book.act(number, step.action, who, step.note, _now(), step.expected))

    return routes


def _say_language(response: Response) -> None:
    response.headers.update(spoken(asked_language()))


def _mine(request: Request, case: Case) -> Case:
    principal_of(request).require_owner(case.owner, f"case {case.number}")
    return case


def _record(request: Request, what: str, **details: Any) -> None:
    """Writes to the audit log what is decided, before it is done."""
    request.app.state.ledger.record(principal_of(request).name, what, **details)


def _now() -> pd.Timestamp:
    """When a person acts is told by the clock on the wall, also in a replay."""
    return pd.Timestamp.now("UTC")
