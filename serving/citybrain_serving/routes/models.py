"""``/v1/models``: which bundle answers, swapped and rolled back while the service runs. For administrators."""

from __future__ import annotations

from typing import Annotated, Any

import pandas as pd
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from citybrain_models.bundle import Bundle
from citybrain_serving.encoding import utc
from citybrain_serving.errors import UnfitBundle
from citybrain_serving.replicas.appointments import Held
from citybrain_serving.roster import Note
from citybrain_serving.routes.documentation import problems
from citybrain_serving.safety.gate import principal_of
from citybrain_serving.schemas.models import ModelsBody, SwapBody
from citybrain_serving.service import Service

TaskName = Annotated[str, Path(max_length=20)]


class NewBundle(BaseModel):
    """A bundle folder, by its path below the folder that the setting ``bundle_root`` names."""

    model_config = ConfigDict(extra="forbid")
    bundle: str = Field(min_length=1, max_length=400)


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1/models", tags=["models"])
    roster = service.roster

    @routes.get("", summary="Bundles in use", response_model=list[ModelsBody], responses=problems(503))
    def models() -> list[dict[str, Any]]:
        """With the one that a rollback would bring back, the one that is tried in the shadow, and what each replica of
        the store answers from. `problem` says why a bundle is not the one that was swapped in."""
        replicas = service.appointments.replicas()
        return [
            {
                "task": task,
                "bundle": _about(bundle),
                "previous": _about(roster.previous(task)),
                "shadow": _about(service.shadows.models[task].bundle if task in service.shadows.models else None),
                "problem": service.following.problems.get(task),
                "replicas": [_replica(held) for held in replicas.get(task, [])],
            }
            for task, bundle in service.fleet.bundles.items()
        ]

    @routes.post(
        "/{task}/swap",
        summary="Put another bundle to work",
        response_model=SwapBody,
        responses=problems(400, 403, 404, 409, 422, 503),
    )
    def swap(request: Request, task: TaskName, new: NewBundle) -> dict[str, Any]:
        """It is verified, compared with the city and warmed up on the newest window first; nothing changes where any
        of it fails. The forecast published stands until the next cycle, which is started at once. Every replica on the
        same store follows at its next step, and each that starts later by the same command."""
        service.board.known(task)
        bundle = service.read_bundle(task, new.bundle)
        if bundle.task.name != task:
            raise UnfitBundle(f"{new.bundle!r} forecasts {bundle.task.name}, not {task}")
        roster.swap(bundle, _noted(request, service, "swaps bundle", new.bundle))
        return _told(service, task)

    @routes.post(
        "/{task}/rollback",
        summary="Bring back the bundle before",
        response_model=SwapBody,
        responses=problems(403, 404, 409, 422, 503),
    )
    def rollback(request: Request, task: TaskName) -> dict[str, Any]:
        """It was kept warm. A second rollback undoes the first. Every replica follows."""
        service.board.known(task)
        roster.rollback(task, _noted(request, service, "rolls back"))
        return _told(service, task)

    return routes


def _about(bundle: Bundle | None) -> dict[str, Any] | None:
    return None if bundle is None else {"version": bundle.version, "digest": bundle.digest, "trained": bundle.created}


def _replica(held: Held) -> dict[str, Any]:
    seen = pd.Timestamp(held.seen, unit="s", tz="UTC")
    return {"replica": held.replica, "digest": held.digest, "problem": held.problem or None, "seen": utc(seen)}


def _noted(request: Request, service: Service, what: str, path: str | None = None) -> Note:
    """Writes to the audit log which bundle is to take the place of which, and to the store that every replica is to
    follow; on disk before it does."""

    def note(new: Bundle, old: Bundle) -> None:
        name = principal_of(request).name
        request.app.state.ledger.record(name, what, task=new.task.name, bundle=new.digest, replaces=old.digest)
        service.following.want(new, name, path)
        service.leadership.tell_arrived(())  # whoever computes takes a step, and publishes: then the others do

    return note


def _told(service: Service, task: str) -> dict[str, Any]:
    return {
        "task": task,
        "bundle": _about(service.fleet.bundles[task]),
        "previous": _about(service.roster.previous(task)),
    }
