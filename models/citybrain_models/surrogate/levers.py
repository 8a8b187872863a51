"""What the measures of a scenario do on each segment in each slot of time, as numbers a network reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from citybrain_datasets.city import City
from citybrain_datasets.scenarios.actions import WARM_UP, Actions, TripRule, Window, compile_actions
from citybrain_datasets.scenarios.language import Scenario
from citybrain_models.surrogate.network import RoadNetwork

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
EXHAUST = {"car": 0.004, "diesel_car": 0.03, "van": 0.05, "truck": 0.12}
"""PM in g/km, round figures of the order of HBEFA 3 for Euro 4. They only weigh one type against another in what the
network is shown; how much is emitted it learns from the simulation."""
USUALLY_INFORMED = 0.7
"""Share of drivers who know current travel times when nothing is done, as the simulation has it."""


@dataclass(frozen=True)
class LeverArrays:
    """``levers`` float32 ``[batch, segment, slot, channel]``; ``closed``, same axes but the last, 1 where the
    segment is wholly closed; and what acts only on what is emitted, not on who drives: ``exhaust`` float32
    ``[batch, segment, slot]`` and ``sectors`` ``[batch, slot]`` by name, factors both."""

    levers: np.ndarray
    closed: np.ndarray
    exhaust: np.ndarray
    sectors: dict[str, np.ndarray]


class Levers:
    """Turns scenarios into :class:`LeverArrays` for one network in ``window``."""

    def __init__(self, city: City, network: RoadNetwork, window: Window):
        self.city, self.network, self.window = city, network, window
        zones = network.route.shape[0]
        self._route = network.route.reshape(zones * zones, -1).astype(np.float32)
        self._trips = network.trips.astype(np.float32)
        self._diversion = network.diversion.T.astype(np.float32)
        self._exhaust = np.array([EXHAUST.get(kind, 0.0) for _, kind in network.classes], np.float32)
        demand = network.demand
        self._by_type = {kind: demand[self._of([kind])].sum(axis=0) for _, kind in network.classes}
        self._flow = np.maximum(demand.sum(axis=0).T, 1e-6)
        self._emitted = np.maximum(np.einsum("c,cts->st", self._exhaust, demand), 1e-9)

    def __call__(self, scenarios: Sequence[Scenario], flow: np.ndarray, off: bool | None = None) -> LeverArrays:
        """``flow`` veh/h ``[segment, slot]`` is the traffic that the measures meet; ``off`` a day off, as the window
        says where it is None. Raises :class:`CityError` where a scenario names what the city does not have."""
        segments, slots = flow.shape
        window = self.window if off is None else self.window.model_copy(update={"off": off})
        levers = np.zeros((len(scenarios), segments, slots, len(CHANNELS)), np.float32)
        spared = np.zeros((len(scenarios), 3, slots, len(self._route)), np.float32)
        every = [compile_actions(scenario, self.city, window) for scenario in scenarios]
        for row, actions in enumerate(every):
            self._here(actions, levers[row], flow)
            self._trips_spared(actions, spared[row])
        self._elsewhere(levers, spared, flow)
        names = every[0].sectors if every else ()
        return LeverArrays(
            levers,
            (levers[..., 1] > 0).astype(np.float32),
            np.array([a.exhaust[WARM_UP:].T for a in every], np.float32).reshape(-1, segments, slots),
            {name: np.array([a.sectors[name][WARM_UP:] for a in every]) for name in names},
        )

    def _here(self, actions: Actions, out: np.ndarray, flow: np.ndarray) -> None:
        """What is so where the measures stand."""
        if actions.lanes_closed.any():
            out[..., 0] = np.minimum(actions.lanes_closed[WARM_UP:] / self.network.lanes, 1).T
            out[..., 1] = actions.closed(self.network.lanes)[WARM_UP:].T
        out[..., 2] = np.log(actions.limit_kmh[WARM_UP:] / self.network.free_speed_kmh).T
        out[..., 3] = 1 - actions.signals[:, None]
        for kind, where in actions.barred.items():
            if kind in self._by_type:
                out[..., 7] += (self._by_type[kind] * where[WARM_UP:]).T / self._flow * flow

    def _trips_spared(self, actions: Actions, out: np.ndarray) -> None:
        """Trips an hour not made, exhaust not emitted, and trips newly informed: ``out [3, slot, zone pair]``."""
        starts = self.network.starts
        if actions.trips or actions.electric:
            kept = np.ones(self._trips.shape, np.float32)
            dirty = np.ones(self._trips.shape, np.float32)
            for rule in actions.trips:
                chosen = self._of(rule.types, rule.purposes)
                share = self._touched(rule)[..., None] * rule.steps[WARM_UP:]
                kept[chosen] *= (1 - share * (1 - rule.factor)).astype(np.float32)
                dirty[chosen] *= (1 - share * rule.electric).astype(np.float32)
            for kind, asked in actions.electric.items():
                more = starts @ np.clip((asked[WARM_UP:] - self._electric(kind)) / (1 - self._electric(kind)), 0, 1).T
                dirty[self._of([kind])] *= (1 - more[:, None, :]).astype(np.float32)
            gone = self._trips * (1 - kept)
            unclean = self._trips * (1 - kept * dirty) * self._exhaust[:, None, None, None]
            out[0] = gone.sum(axis=0).reshape(-1, out.shape[1]).T
            out[1] = unclean.sum(axis=0).reshape(-1, out.shape[1]).T
        if actions.informed.any():
            more = starts @ np.maximum(actions.informed[WARM_UP:] - USUALLY_INFORMED, 0).T
            out[2] = (self._trips.sum(axis=0) * more[:, None, :]).reshape(-1, out.shape[1]).T

    def _elsewhere(self, levers: np.ndarray, spared: np.ndarray, flow: np.ndarray) -> None:
        """What follows along usual routes and on the ways around."""
        load = flow / self.network.capacity_veh_h[:, None]
        on_road = (spared.reshape(-1, spared.shape[-1]) @ self._route).reshape(*spared.shape[:3], -1)
        gone, unclean, informed = on_road.transpose(1, 0, 3, 2)
        levers[..., 5] = gone / self._flow
        levers[..., 4] = levers[..., 5] * load
        levers[..., 6] = unclean / self._emitted
        levers[..., 9] = informed / self._flow
        turned_away = np.minimum(levers[..., 1] * flow + levers[..., 7], flow)
        levers[..., 7] /= self.network.capacity_veh_h[:, None]
        if turned_away.any():
            levers[..., 8] = self._diversion @ turned_away / self.network.capacity_veh_h[:, None]

    def _touched(self, rule: TripRule) -> np.ndarray:
        """Part of the trips from one zone to another that a rule is about, ``[zone, zone]``."""
        start = (self.network.starts @ rule.place)[:, None]
        end = (self.network.ends @ rule.place)[None, :]
        if rule.end == "either":
            return 1 - (1 - start) * (1 - end)
        if rule.end == "entering":
            return (1 - start) * end
        return (start if rule.end == "origin" else end) * np.ones((len(start), end.shape[1]))

    def _electric(self, kind: str) -> float:
        """Share of the trips that are electric already, among those that ``kind`` counts with."""
        if kind not in ("car", "diesel_car"):
            return 0.0
        made = self._trips.sum(axis=(1, 2, 3))
        private = made[self._of(["car", "diesel_car", "electric_car"])].sum()
        return float(made[self._of(["electric_car"])].sum() / private) if private else 0.0

    def _of(self, types: Sequence[str] | None = None, purposes: Sequence[str] | None = None) -> np.ndarray:
        """Which classes have one of the types and one of the purposes; None takes all."""
        return np.array(
            [(types is None or t in types) and (purposes is None or p in purposes) for p, t in self.network.classes]
        )
