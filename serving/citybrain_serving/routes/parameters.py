"""A query parameter that an address does not have is refused: a misspelt filter would select the whole city; and so is
one that is given twice where it takes one value, for the first would be dropped unnoticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant

from citybrain_serving.errors import BadSelection


async def only_known(request: Request) -> None:
    """A dependency of routes. Raises :class:`BadSelection` naming what there is, as OGC API Features (17-069r4, section
    7.15.4) asks of a server."""
    if not request.scope["query_string"]:
        return
    known = dict(_parameters(request.scope["route"].dependant))
    given = Counter(name for name, _ in request.query_params.multi_items())
    for name, times in given.items():
        if name not in known:
            there_is = ", ".join(known) or "none"
            raise BadSelection(f"there is no parameter {name[:80]!r} here, only {there_is}", {"parameter": name[:80]})
        if times > 1 and not _takes_several(known[name]):
            raise BadSelection(f"{name} is given {times} times; it takes one value", {"parameter": name})


def _parameters(dependant: Dependant) -> Iterator[tuple[str, Any]]:
    """Names and types."""
    yield from ((field.alias, field.field_info.annotation) for field in dependant.query_params)
    for part in dependant.dependencies:
        yield from _parameters(part)


def _takes_several(annotation: Any) -> bool:
    return any(get_origin(part) is list for part in (annotation, *get_args(annotation)))
