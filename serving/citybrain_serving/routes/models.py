"""``/v1/models``: which bundle answers, swapped and rolled back while the service runs. For administrators."""

from __future__ import annotations

from pathlib import Path as Folder
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from citybrain_models.bundle import Bundle, BundleError
from citybrain_serving.errors import Forbidden, UnfitBundle
from citybrain_serving.roster import Note
from citybrain_serving.routes.documentation import problems
from citybrain_serving.safety.bundles import read_allow_list, read_bundle
from citybrain_serving.safety.gate import principal_of
from citybrain_serving.schemas import ModelsBody, SwapBody
from citybrain_serving.service import Service

TaskName = Annotated[str, Path(max_length=20)]


class NewBundle(BaseModel):
    """A bundle folder, by its path below the folder that the setting ``bundle_root`` names."""

    model_config = ConfigDict(extra="forbid")
    bundle: str = Field(min_length=1, max_length=400)


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1/models", tags=["models"])
    roster = service.roster

    @routes.get("", summary="Bundles in use", response_model=list[ModelsBody])
    def models() -> list[dict[str, Any]]:
        """With the one that a rollback would bring back, and the one that is tried in the shadow."""
        return [
            {
                "task": task,
                "bundle": _about(bundle),
                "previous": _about(roster.previous(task)),
                "shadow": _about(service.shadows.models[task].bundle if task in service.shadows.models else None),
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
        of it fails. The forecast published stands until the next cycle, which is started at once."""
        service.board.known(task)
        bundle = _read(service, new.bundle)
        if bundle.task.name != task:
            raise UnfitBundle(f"{new.bundle!r} forecasts {bundle.task.name}, not {task}")
        return _told(service, task, roster.swap(bundle, _noted(request, "swaps bundle")))

    @routes.post(
        "/{task}/rollback",
        summary="Bring back the bundle before",
        response_model=SwapBody,
        responses=problems(403, 404, 409, 422, 503),
    )
    def rollback(request: Request, task: TaskName) -> dict[str, Any]:
        """It was kept warm. A second rollback undoes the first."""
        service.board.known(task)
        return _told(service, task, roster.rollback(task, _noted(request, "rolls back")))

    return routes


def _read(service: Service, name: str) -> Bundle:
    """The bundle called ``name`` below the allowed folder, verified as at the start."""
    settings = service.settings
    if settings.bundle_root is None:
        raise Forbidden("no folder is set (bundle_root) that bundles may be loaded from")
    root = settings.bundle_root.resolve()
    parts = Folder(name).parts
    if "\0" in name or Folder(name).is_absolute() or ".." in parts or not parts:
        raise UnfitBundle("bundle must be a path below the folder of bundles")
    folder = root.joinpath(*parts)
    if folder.parent.resolve() != folder.parent:
        raise UnfitBundle("bundle must be a path without links")
    allowed = None if settings.bundle_digests is None else read_allow_list(settings.bundle_digests)
    try:
        return read_bundle(folder, allowed)
    except BundleError as error:
        raise UnfitBundle(str(error).replace(f"{root}/", "")) from None


def _about(bundle: Bundle | None) -> dict[str, Any] | None:
    return None if bundle is None else {"version": bundle.version, "digest": bundle.digest, "trained": bundle.created}


def _noted(request: Request, what: str) -> Note:
    """Writes to the audit log which bundle is to take the place of which; on disk before it does."""

    def note(new: Bundle, old: Bundle) -> None:
        name = principal_of(request).name
        request.app.state.ledger.record(name, what, task=new.task.name, bundle=new.digest, replaces=old.digest)

    return note


def _told(service: Service, task: str, replaced: Bundle) -> dict[str, Any]:
    return {"task": task, "bundle": _about(service.fleet.bundles[task]), "previous": _about(replaced)}
