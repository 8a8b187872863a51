"""What the measures of a scenario do on each segment in each slot of time, as numbers a network reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from citybrain_datasets.scenarios import language as say
from citybrain_models.surrogate.network import Base, RoadNetwork

CHANNELS = (
    "lanes_closed",  # share of the lanes, 1 where wholly closed
    "closed",  # 1 where wholly closed
    "limit",  # logarithm of the new speed limit over the old one
    "retiming",  # share by which signals cost less
    "cancelled",  # trips on their usual routes that are not made, part of the capacity; negative where there are more
    "cancelled_share",  # the same as a part of the usual flow
    "cleaner",  # part of the usual exhaust of those trips that is not made or made by an electric vehicle
    "barred",  # vehicles that may not pass here, part of the capacity
    "diverted",  # vehicles that come here because their way is closed or barred, part of the capacity
    "informed",  # share of drivers here who newly choose their way by current travel times
)
EXHAUST = {"car": 0.004, "diesel_car": 0.03, "electric_car": 0.0, "van": 0.05, "truck": 0.12}
"""PM in g/km, round figures of the order of HBEFA 3 for Euro 4. They only weigh one type against another in what the
network is shown; how much is emitted it learns from the simulation."""
USUALLY_INFORMED = 0.7
"""Share of drivers who know current travel times when nothing is done, as the simulation has it."""


@dataclass(frozen=True)
class LeverArrays:
    """``levers`` float32 ``[batch, segment, slot, channel]`` and ``closed`` float32 ``[batch, segment, slot]``, 1
    where the segment is wholly closed for some of the slot."""

    levers: np.ndarray
    closed: np.ndarray


class Levers:
    """Turns scenarios into :class:`LeverArrays` for one network and its usual traffic.

    ``resolve`` finds the segments of a :class:`~citybrain_datasets.scenarios.places.Where`, bool ``[segment]``, and
    raises where it names something unknown.
    """

    def __init__(self, network: RoadNetwork, base: Base, resolve: Callable[[say.Where], np.ndarray]):
        self.network, self.base = network, base
        self.resolve = lru_cache(maxsize=4096)(lambda where: np.asarray(resolve(where), bool))
        self.share = lru_cache(maxsize=4096)(self._share)
        self.ends = lru_cache(maxsize=4096)(self._ends)
        zones = network.route.shape[0]
        self._route = network.route.reshape(zones * zones, -1)
        exhaust = np.array([EXHAUST.get(kind, 0.03) for _, kind in network.classes])
        # Rows: every trip counts one; every trip counts what it emits.
        self._weights = np.stack([np.ones_like(exhaust), exhaust])
        self._usual = np.einsum("wc,cts->wst", self._weights, network.demand)

    def __call__(self, scenarios: Sequence[say.Scenario]) -> LeverArrays:
        segments, slots = self.base.flow.shape
        levers = np.zeros((len(scenarios), segments, slots, len(CHANNELS)), np.float32)
        spared = np.zeros((len(scenarios), 3, slots, len(self._route)))
        for row, scenario in enumerate(scenarios):
            self._measures(scenario, levers[row], spared[row])
        self._follow(levers, spared)
        return LeverArrays(levers, (levers[..., 1] > 0).astype(np.float32))

    def _measures(self, scenario: say.Scenario, out: np.ndarray, spared: np.ndarray) -> None:
        """Fills what stands where the measures stand, and what becomes of the trips between zones."""
        demand = _Demand(self)
        free = self.network.free_speed_kmh[:, None]
        limit = np.ones(out.shape[:2])
        for m in scenario.measures:
            if m.lever in say.AIR_LEVERS:
                continue
            here = self.resolve(m.where)[:, None] * self.share(m.when)[None, :]
            if isinstance(m, say.Closure | say.LaneClosure):
                lanes = self.network.lanes if isinstance(m, say.Closure) else np.float64(m.lanes)
                part = np.minimum(lanes / self.network.lanes, 1.0)[:, None]
                out[..., 0] = np.maximum(out[..., 0], here * part)
                out[..., 1] = np.maximum(out[..., 1], here * (part >= 1))
            elif isinstance(m, say.SpeedLimit):
                new = limit * m.factor if m.kmh is None else np.minimum(limit, (m.kmh or 0) / free)
                limit = limit + here * (new - limit)
            elif isinstance(m, say.SignalRetiming):
                out[..., 3] = 1 - (1 - out[..., 3]) * (1 - here * m.reduction)
            elif isinstance(m, say.HeavyBan | say.LowEmissionZone):
                out[..., 7] += here * demand.barred(m)
            else:
                demand.change(m)
        out[..., 2] = np.log(np.maximum(limit, 1e-3))
        demand.spare(spared)

    def _follow(self, levers: np.ndarray, spared: np.ndarray) -> None:
        """What follows elsewhere: along usual routes, and on the ways around."""
        capacity = self.network.capacity_veh_h[:, None]
        batch, kinds, slots, pairs = spared.shape
        on_road = (spared.reshape(-1, pairs) @ self._route).reshape(batch, kinds, slots, -1).transpose(1, 0, 3, 2)
        usual = np.maximum(self._usual, 1e-9)
        levers[..., 4] = on_road[0] / capacity
        levers[..., 5] = on_road[0] / usual[0]
        levers[..., 6] = on_road[1] / usual[1]
        levers[..., 9] = on_road[2] / usual[0]
        turned_away = np.minimum(levers[..., 1] + levers[..., 7] / np.maximum(self.base.flow, 1.0), 1) * self.base.flow
        levers[..., 7] /= capacity
        diverted = self.network.diversion.T @ turned_away
        levers[..., 8] = diverted / capacity

    def _share(self, when: say.When) -> np.ndarray:
        """Part of each slot that ``when`` covers, 0–1 ``[slot]``, on a working day."""
        minutes = self.base.slot_seconds // 60
        covered = [when.covers(self.base.begin + i, off=False) for i in range(self.base.slots * minutes)]
        return np.reshape(covered, (self.base.slots, minutes)).mean(axis=1)

    def _ends(self, where: say.Where) -> tuple[np.ndarray, np.ndarray]:
        """Share of each zone's trips that begin, and that end, in the place: ``[zone, 1]`` and ``[1, zone]``."""
        mask = self.resolve(where).astype(float)
        return (self.network.starts @ mask)[:, None], (self.network.ends @ mask)[None, :]


class _Demand:
    """The trips of one scenario: what part of each class is made still, between which zones, when."""

    def __init__(self, levers: Levers):
        self.levers = levers
        self.classes = levers.network.classes
        self.kept: np.ndarray | None = None
        self.electric: np.ndarray | None = None
        self.informed: np.ndarray | None = None

    def change(self, m: say.Measure) -> None:
        """Takes up a measure on who drives, and with what."""
        start, end = self.levers.ends(m.where)
        when = self.levers.share(m.when)
        if isinstance(m, say.Demand):
            place = {"origin": start + 0 * end, "destination": end + 0 * start, "either": _either(start, end)}[m.end]
            self._keep(self._of(purposes=m.purposes), place * (1 - m.factor), when)
        elif isinstance(m, say.OddEven):
            types = ("car", "diesel_car") if m.exempt_electric else ("car", "diesel_car", "electric_car")
            self._keep(self._of(types=types), _either(start, end) * 0.5 * m.compliance, when)
        elif isinstance(m, say.ChargeZone):
            types = ("electric_car",) if m.exempt_electric else ()
            self._keep(~self._of(types=types) if types else self._of(), end * (1 - start) * m.reduction, when)
        elif isinstance(m, say.ElectricShare):
            self._electrify(m, start + 0 * end, when)
        elif isinstance(m, say.ReroutingAdvice):
            more = max(0.0, m.share - USUALLY_INFORMED) * (start + 0 * end)
            change = more[..., None] * when
            self.informed = change if self.informed is None else np.maximum(self.informed, change)

    def barred(self, m: say.HeavyBan | say.LowEmissionZone) -> np.ndarray:
        """Vehicles an hour that may not pass, ``[segment, slot]``; their trips to and from the place are given up or
        made by an electric vehicle."""
        if isinstance(m, say.HeavyBan):
            types, replaced = ("truck", "van") if m.vans else ("truck",), 0.0
        else:
            types, replaced = m.barred, m.replaced
        chosen = self._of(types=types)
        ends = _either(*self.levers.ends(m.where)) * m.compliance
        when = self.levers.share(m.when)
        self._keep(chosen, ends * (1 - replaced), when)
        if replaced:
            self._cleaned(chosen, ends * replaced, when)
        return m.compliance * self.levers.network.demand[chosen].sum(axis=0).T

    def spare(self, out: np.ndarray) -> None:
        """Trips an hour not made, exhaust not made and trips newly informed, into ``out [3, slot, zone pair]``."""
        trips = self.levers.network.trips
        if self.kept is not None:
            gone = trips * (1 - self.kept)
            out[:2] += np.einsum("wc,cabt->wtab", self.levers._weights, gone).reshape(2, out.shape[1], -1)
        if self.electric is not None:
            clean = trips * self.electric * (1 if self.kept is None else self.kept)
            out[1] += np.einsum("c,cabt->tab", self.levers._weights[1], clean).reshape(out.shape[1], -1)
        if self.informed is not None:
            out[2] += np.einsum("cabt,abt->tab", trips, self.informed).reshape(out.shape[1], -1)

    def _electrify(self, m: say.ElectricShare, place: np.ndarray, when: np.ndarray) -> None:
        trips = self.levers.network.trips.sum(axis=(1, 2, 3))
        chosen = self._of(types=m.types)
        electric = trips[self._of(types=("electric_car",))].sum()
        now = electric / max(electric + trips[chosen].sum(), 1e-9)
        self._cleaned(chosen, place * max(0.0, (m.share - now) / max(1 - now, 1e-9)), when)

    def _keep(self, chosen: np.ndarray, lost: np.ndarray, when: np.ndarray) -> None:
        if self.kept is None:
            self.kept = np.ones(self.levers.network.trips.shape)
        self.kept[chosen] *= 1 - lost[..., None] * when

    def _cleaned(self, chosen: np.ndarray, part: np.ndarray, when: np.ndarray) -> None:
        if self.electric is None:
            self.electric = np.zeros(self.levers.network.trips.shape)
        self.electric[chosen] = np.maximum(self.electric[chosen], part[..., None] * when)

    def _of(self, purposes: Sequence[str] | None = None, types: Sequence[str] | None = None) -> np.ndarray:
        """Which classes have one of the purposes and one of the types; None takes all."""
        return np.array(
            [(purposes is None or p in purposes) and (types is None or t in types) for p, t in self.classes]
        )


def _either(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return 1 - (1 - start) * (1 - end)
