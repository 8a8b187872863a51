"""Query parameters that several routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from citybrain_serving.selection import Filter


async def _filter(
    ids: Annotated[str | None, Query(min_length=1, description="node ids, separated by commas; all by default")] = None,
    bbox: Annotated[str | None, Query(min_length=7, description="west,south,east,north in degrees")] = None,
    owner: Annotated[str | None, Query(min_length=1, description="who answers for the node (路长), or several")] = None,
    cell: Annotated[str | None, Query(min_length=1, description="grid cell (网格), or several")] = None,
    road_class: Annotated[str | None, Query(alias="class", min_length=1, description="of the road, or several")] = None,
) -> Filter:
    return Filter(ids, bbox, owner, cell, road_class)


Selected = Annotated[Filter, Depends(_filter)]
