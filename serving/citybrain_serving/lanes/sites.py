"""Measurement sites: what a number beside a value means there, and on how many lanes.

Publishers send the table of their sites when it changes, apart from the values that come every minute and name a site
and its version. So it is remembered, for every replica, and explains the values of sites of that version alone: what a
number means may change with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import orjson
import sqlalchemy as sa

from citybrain_serving.database import in_parts, transaction
from citybrain_serving.tables import sites


class Position(NamedTuple):
    """Where on the road something is measured: ``lanes`` by number or use, as far as that is said; ``complete`` where
    they are all there are."""

    lanes: tuple[str, ...] = ()
    complete: bool = False


class Entry(NamedTuple):
    """What is measured under a number: where, and whether of some of the vehicles alone."""

    position: Position = Position()
    single_class: bool = False


class Site(NamedTuple):
    """One site: its ``version``, how many lanes there are, as far as that is said, and what each number means."""

    version: str
    lanes: int | None
    entries: Mapping[str, Entry]


class SiteTable:
    """The sites that were told of, the newest that came of each; of ``places`` alone, the nodes of the city."""

    def __init__(self, engine: sa.Engine, places: Iterable[str]):
        self.engine = engine
        self.places = frozenset(places)

    def remember(self, told: Mapping[str, Site]) -> int:
        """How many of the sites are of this city; they are on disk when this returns.

        Raises :class:`~citybrain_serving.errors.StoreUnavailable`; then none was taken.
        """
        ours = {place: site for place, site in told.items() if place in self.places}
        known = self.known(ours)
        changed = [place for place, site in ours.items() if known.get(place) != site]
        if changed:
            rows = [{"node": place, "version": ours[place].version, "told": _packed(ours[place])} for place in changed]
            with transaction(self.engine, write=True) as connection:
                for chunk in in_parts(changed):
                    connection.execute(sites.delete().where(sites.c.node.in_(chunk)))
                connection.execute(sites.insert(), rows)
        return len(ours)

    def known(self, places: Iterable[str]) -> dict[str, Site]:
        """What is remembered of the sites of ``places``."""
        found = {}
        with transaction(self.engine) as connection:
            for chunk in in_parts(sorted(self.places.intersection(places))):
                for row in connection.execute(sa.select(sites).where(sites.c.node.in_(chunk))):
                    found[row.node] = _unpacked(row.version, row.told)
        return found


def _packed(site: Site) -> str:
    entries = {index: [*entry.position, entry.single_class] for index, entry in site.entries.items()}
    return orjson.dumps({"lanes": site.lanes, "entries": entries}).decode()


def _unpacked(version: str, told: str) -> Site:
    read = orjson.loads(told)
    entries = {
        index: Entry(Position(tuple(lanes), complete), single_class)
        for index, (lanes, complete, single_class) in read["entries"].items()
    }
    return Site(version, read["lanes"], entries)
