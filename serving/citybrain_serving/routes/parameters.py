"""A query parameter that an address does not have is refused: a misspelt filter would select the whole city."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant

from citybrain_serving.errors import BadSelection


async def only_known(request: Request) -> None:
    """A dependency of routes. Raises :class:`BadSelection` naming what there is, as OGC API Features (17-069r4, section
    7.15.4) asks of a server."""
    if not request.scope["query_string"]:
        return
    known = list(_names(request.scope["route"].dependant))
    unknown = next((name[:80] for name in request.query_params if name not in known), None)
    if unknown is None:
        return
    there_is = ", ".join(known) or "none"
    raise BadSelection(f"there is no parameter {unknown!r} here, only {there_is}", {"parameter": unknown})


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for part in dependant.dependencies:
        yield from _names(part)
