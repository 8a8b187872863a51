"""A road network as the surrogate sees it: places, usual traffic, and who drives where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityBrainError
from citybrain_datasets.geo import great_circle_m
from citybrain_datasets.scenarios.actions import Timetable
from citybrain_datasets.scenarios.outcomes import Traffic
from citybrain_datasets.simulation.emissions import wear

ZONES = 16
"""Into so many zones trips are gathered, by where they begin and end."""
JAM_DENSITY = 150.0
"""Vehicles on a kilometre of lane at most (7 m for each), the unit of what stands on a segment."""
EMISSION_RATE = 0.02
"""PM2.5 of an average vehicle, g/km: only the unit of emissions inside the network."""
NEIGHBOURS = 8
_TRAFFIC = ("flow", "vehicles", "emission")


class SurrogateError(CityBrainError):
    """A network, a scenario or a surrogate that do not go together."""


@dataclass(frozen=True)
class Base:
    """Traffic that measures meet: ``flow`` veh/h, ``vehicles`` on the segment and ``emission`` g/h,
    float32 ``[segment, slot]``. ``worn`` is the part of the emission that comes off tyres and brakes; None where it
    is what mean speed and distance say, which is not so of the mean of several days. ``timetable`` says when it is,
    where it is not in the surrogate's own window."""

    flow: np.ndarray
    vehicles: np.ndarray
    emission: np.ndarray
    slot_seconds: int
    worn: np.ndarray | None = None
    timetable: Timetable | None = None

    @staticmethod
    def of(traffic: Traffic, length_m: np.ndarray, slot_seconds: int) -> Base:
        """From traffic ``[slot, segment]``; vehicles on a segment are flow × length / speed."""
        vehicles = traffic.flow * (length_m / 1000) / np.maximum(traffic.speed, 1e-3)
        worn = wear(traffic.speed, traffic.flow * (length_m / 1000))
        flow, vehicles, emission, worn = (
            a.T.astype(np.float32) for a in (traffic.flow, vehicles, traffic.emission, worn)
        )
        return Base(flow, vehicles, emission, slot_seconds, worn)

    @staticmethod
    def mean(days: Sequence[Base]) -> Base:
        """The mean traffic of several days."""
        names = _TRAFFIC if any(d.worn is None for d in days) else (*_TRAFFIC, "worn")
        means = {name: np.mean([getattr(d, name) for d in days], axis=0) for name in names}
        return Base(slot_seconds=days[0].slot_seconds, **means)

    @property
    def signals(self) -> np.ndarray:
        """``[segment, slot, signal]`` in the order of ``nn.surrogate.SIGNALS``."""
        return np.stack([self.flow, self.vehicles, self.emission], axis=-1)

    @property
    def slots(self) -> int:
        return self.flow.shape[1]


@dataclass(frozen=True)
class RoadNetwork:
    """Arrays ``[segment]`` and more. ``route [zone, zone, segment]`` is the part of the trips from one zone to another
    that use a segment; ``trips [class, zone, zone, slot]`` their number an hour; ``starts`` and ``ends``
    ``[zone, segment]`` how a zone's trips spread over its segments; ``classes`` are (purpose, vehicle type) pairs.
    ``sharing``, ``diversion`` and ``turning`` are those of :func:`routes.relations`. ``signalled`` tells at which ends
    a traffic light stands, bool ``[segment]``; None where nobody knows, as of surrogates from before it was kept."""

    ids: tuple[str, ...]
    length_m: np.ndarray
    lanes: np.ndarray
    free_speed_kmh: np.ndarray
    capacity_veh_h: np.ndarray
    connections: np.ndarray
    """int64 ``[connection, 2]``, along the traffic."""
    route: np.ndarray
    trips: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    classes: tuple[tuple[str, str], ...]
    sharing: np.ndarray
    diversion: np.ndarray
    turning: np.ndarray
    signalled: np.ndarray | None = None

    @property
    def storage(self) -> np.ndarray:
        """Vehicles that fit on each segment."""
        return np.maximum(self.length_m / 1000 * self.lanes * JAM_DENSITY, 1.0)

    @property
    def purposes(self) -> bool:
        """Whether it is known why people travel."""
        return any(purpose for purpose, _ in self.classes)

    @cached_property
    def units(self) -> np.ndarray:
        """What each signal is measured by, ``[segment, signal]``."""
        emission = np.maximum(self.capacity_veh_h * self.length_m / 1000 * EMISSION_RATE, 1e-3)
        return np.stack([self.capacity_veh_h, self.storage, emission], axis=-1)

    @cached_property
    def demand(self) -> np.ndarray:
        """Flow of each class on usual routes, veh/h ``[class, slot, segment]``."""
        return np.einsum("cabt,abs->cts", self.trips, self.route)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by name, floats as float32; ``ids`` and ``classes`` are text."""
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        found = {n: np.asarray(value) for n, value in given.items()}
        return {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in found.items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> RoadNetwork:
        needed = (f.name for f in fields(RoadNetwork) if f.name in arrays or f.default is MISSING)
        found = {name: arrays[name] for name in needed}
        ids = tuple(str(i) for i in found.pop("ids"))
        classes = tuple((str(p), str(v)) for p, v in found.pop("classes"))
        return RoadNetwork(ids=ids, classes=classes, **found)


def describe(
    city: City,
    trips: pd.DataFrame,
    base: Base,
    *,
    signalled: np.ndarray | None = None,
    days: int = 1,
    zones: int = ZONES,
    draws: int = 3,
) -> RoadNetwork:
    """What the surrogate reads of ``city``, whose drivers make ``trips`` on ``days`` days when nothing is done.

    ``trips`` has ``depart`` (seconds after the begin of the window), ``origin``, ``destination`` (segment ids),
    ``type`` and ``purpose``; ``base`` is the traffic they make; ``signalled`` is as the network keeps it. Takes seconds
    to minutes, once for a network. Needs SciPy.
    """
    from citybrain_models.surrogate.routes import Streets, grow, load, perceived, relations

    roads = city.nodes["road"]
    ids = pd.Index(city.ids("road"))
    edges = city.edges["road-road"]
    ends = np.c_[ids.get_indexer(pd.Index(edges["source"])), ids.get_indexer(pd.Index(edges["target"]))]
    length, free = (roads[c].to_numpy(float) for c in ("length_m", "free_speed_kmh"))
    origin, destination = (ids.get_indexer(pd.Index(trips[c].astype(str))) for c in ("origin", "destination"))
    if min(origin.min(initial=0), destination.min(initial=0)) < 0:
        raise SurrogateError(f"trips begin or end on segments that {city.name!r} does not have")
    zone = _zones(roads, np.bincount(origin, minlength=len(ids)) + np.bincount(destination, minlength=len(ids)), zones)
    count = int(zone.max()) + 1
    classes = sorted(set(zip(trips["purpose"], trips["type"], strict=True)))
    of_class = {c: i for i, c in enumerate(classes)}
    slot = np.clip(trips["depart"].to_numpy() // base.slot_seconds, 0, base.slots - 1).astype(int)
    number = np.array([of_class[c] for c in zip(trips["purpose"], trips["type"], strict=True)])
    made = np.zeros((len(classes), count, count, base.slots))
    np.add.at(made, (number, zone[origin], zone[destination], slot), 3600 / base.slot_seconds / days)
    pairs = np.zeros((len(ids), len(ids)))
    np.add.at(pairs, (origin, destination), 1.0 / days)

    usual = base.vehicles.sum(axis=1) / np.maximum(base.flow.sum(axis=1), 1e-9) * 3600
    seconds = np.where(base.flow.sum(axis=1) > 0, usual, length / free * 3.6)
    streets = Streets(ends, seconds)
    by_zone = np.zeros((count, count, len(ids)))
    member = np.eye(count)[zone]
    for seen in perceived(streets, draws):
        flow = load(grow(seen, np.arange(len(ids))), pairs[..., None] * member[None])
        by_zone += np.einsum("osz,oy->yzs", flow, member) / draws
    between = np.einsum("od,oy,dz->yz", pairs, member, member)
    sharing, diversion, turning = relations(streets, pairs, draws)
    return RoadNetwork(
        ids=tuple(ids),
        length_m=length,
        lanes=roads["lanes"].to_numpy(float),
        free_speed_kmh=free,
        capacity_veh_h=roads["capacity_veh_h"].to_numpy(float),
        connections=ends,
        route=by_zone / np.where(between > 0, between, np.inf)[..., None],
        trips=made,
        starts=_spread(member, np.bincount(origin, minlength=len(ids))),
        ends=_spread(member, np.bincount(destination, minlength=len(ids))),
        classes=tuple(classes),
        sharing=sharing,
        diversion=diversion,
        turning=turning,
        signalled=signalled,
    )


def _zones(roads: pd.DataFrame, weight: np.ndarray, wanted: int) -> np.ndarray:
    """Zone of each segment: the next of ``wanted`` centres, each the busiest place far from those before it."""
    lat, lon = roads["lat"].to_numpy(float), roads["lon"].to_numpy(float)
    centre = int(np.argmax(weight))
    nearest = np.zeros(len(roads), int)
    gap = great_circle_m(lat, lon, lat[centre], lon[centre])
    for number in range(1, min(wanted, len(roads))):
        centre = int(np.argmax(gap * np.sqrt(weight)))
        away = great_circle_m(lat, lon, lat[centre], lon[centre])
        nearest = np.where(away < gap, number, nearest)
        gap = np.minimum(gap, away)
    return np.unique(nearest, return_inverse=True)[1]


def _spread(member: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Share of each segment in its zone's trips, ``[zone, segment]``."""
    total = member.T @ weight
    return member.T * weight / np.where(total > 0, total, np.inf)[:, None]
