"""Who drives, and by what: trips that measures take away, clean, bar or inform, and what that is on usual routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from citybrain_datasets.scenarios.actions import ELECTRIC, WARM_UP, Actions, TripRule
from citybrain_models.surrogate.network import RoadNetwork, SurrogateError

EXHAUST = {"car": 0.002, "diesel_car": 0.0, "van": 0.0, "truck": 0.04}
"""PM in g/km of SUMO's HBEFA 3 classes for Euro 4 at a steady 30 km/h, as ``emissionsDrivingCycle`` tells it: a
mesoscopic vehicle does not accelerate, and at a steady pace these diesel cars and vans emit none. They only weigh one
type against another in what the network is shown; how much is emitted it learns from the simulation."""
USUALLY_INFORMED = 0.7
"""Share of drivers who know current travel times when nothing is done, as the simulation has it."""
_PRIVATE = ("car", "diesel_car", "electric_car")
_MOST, _MOST_IMAGES = 4096, 1024

Rule = tuple[np.ndarray, np.ndarray, np.ndarray | float, np.ndarray | float]
"""The classes it is about as they are, and those that it is about once they are electric, bool ``[class]``; parts of
their trips still made, and of those not electric by it, float32 ``[slot, zone pair]``."""

Shares = dict[str, np.ndarray]
"""By type of vehicle, the part of its trips that goes electric for a share that is asked for, float32
``[slot, zone pair]``."""


class Spared:
    """Trips of one network, by class of vehicle and purpose, ``[slot, zone pair]``."""

    def __init__(self, network: RoadNetwork):
        zones, demand = network.route.shape[0], network.demand
        self.network = network
        self._zones = zones
        self._chosen: dict[tuple[object, object], np.ndarray] = {}
        self._reach: dict[tuple[bytes, str], np.ndarray] = {}
        self._images: dict[tuple[object, ...], np.ndarray] = {}
        self._groups: dict[bytes, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
        self._route = network.route.reshape(zones * zones, -1).astype(np.float32)
        self._trips = network.trips.astype(np.float32).reshape(len(network.classes), zones * zones, -1).swapaxes(1, 2)
        exhaust = np.array([EXHAUST.get(kind, 0.0) for _, kind in network.classes], np.float32)
        self._dirt = self._trips * exhaust[:, None, None]
        self._flow = np.maximum(demand.sum(axis=0), 1e-6).astype(np.float32)
        self._emitted: np.ndarray = np.maximum(np.einsum("c,cts->ts", exhaust, demand), 1e-9).astype(np.float32)
        self.electric_already = {kind: self._electric(kind) for _, kind in network.classes}

    def turned_away(self, actions: Actions) -> np.ndarray | None:
        """Through traffic that may not pass where vehicle types are barred, ``[4, slot, segment]``; None where all may.

        Of the usual flow: the vehicles found here, and their exhaust (g/km, per vehicle of the usual flow); then both
        once more, each vehicle counted once however many barred segments lie on its way. Who starts or ends in such a
        place has a permit or is told by a rule on trips.
        """
        electric = self._going_electric(actions) if actions.barred else {}
        together: dict[bytes, list[str]] = {}
        for kind, where in actions.barred.items():
            together.setdefault(where[WARM_UP:].tobytes(), []).append(kind)
        found = None
        for kinds in together.values():
            where = actions.barred[kinds[0]][WARM_UP:]
            for place in np.unique(where[where.any(axis=1)], axis=0):
                if found is None:
                    found = np.zeros((4, *self._flow.shape), np.float32)
                at = (where == place).all(axis=1)
                found[:, at] += self._through(place, tuple(kinds), electric)[:, at]
        return found

    @property
    def exhaust(self) -> np.ndarray:
        """What a vehicle of the usual flow emits on average, g/km ``[slot, segment]``."""
        return self._emitted / self._flow

    def on_roads(self, every: Sequence[Actions]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """By channel, the scenarios concerned and their numbers ``[row, slot, segment]``: trips not made, as a part of
        the usual flow; their exhaust, of the usual exhaust; trips newly informed, of the usual flow."""
        alone = {row: a.trips[0] for row, a in enumerate(every) if _simple(a)}
        if alone:
            share = np.array([self._image(rule) for rule in alone.values()])
            strength = np.array([(1 - rule.factor) * rule.steps[WARM_UP:] for rule in alone.values()], np.float32)
            share *= strength[:, None, :, None]
            yield "cancelled_share", np.array(list(alone)), share[:, 0]
            yield "cleaner", np.array(list(alone)), share[:, 1]
        rules = {row: a for row, a in enumerate(every) if row not in alone and (a.trips or a.electric)}
        told = {row: more for row, a in enumerate(every) if (more := self._informed(a)) is not None}
        spared = [self._not_made(self._rules(a), self._going_electric(a)) for a in rules.values()]
        parts = [*(gone for gone, _ in spared), *(dirt for _, dirt in spared), *told.values()]
        if not parts:
            return
        on_road = self._loaded(np.stack(parts))
        count, rows = len(rules), np.array(list(rules), int)
        if count:
            yield "cancelled_share", rows, on_road[:count] / self._flow
            yield "cleaner", rows, on_road[count : 2 * count] / self._emitted
        if told:
            yield "informed", np.array(list(told), int), on_road[2 * count :] / self._flow

    def _loaded(self, trips: np.ndarray) -> np.ndarray:
        """``[row, slot, zone pair]`` on usual routes, ``[row, slot, segment]``."""
        return (trips.reshape(-1, trips.shape[-1]) @ self._route).reshape(*trips.shape[:2], -1)

    def _through(self, place: np.ndarray, types: tuple[str, ...], electric: Shares) -> np.ndarray:
        """:meth:`turned_away` where ``place``, bool ``[segment]``, is barred for ``types`` all the time. Of those that
        go ``electric`` nobody is turned away where their electric like may pass."""
        let_in = {kind: part for kind, part in electric.items() if kind in types and ELECTRIC[kind] not in types}
        key = ("through", place.tobytes(), types)
        if let_in or key not in self._images:
            starts, ends = (_inside(spread, place) for spread in (self.network.starts, self.network.ends))
            stays_out = np.outer(1 - starts, 1 - ends).reshape(-1)
            met = self._route[:, place]
            # A trip that meets several of the segments is turned away before the first.
            once = met.max(axis=1) / np.maximum(met.sum(axis=1), 1e-9)
            barred = self._of(types)
            both = np.stack([self._trips[barred].sum(axis=0), self._dirt[barred].sum(axis=0)])
            for kind, part in let_in.items():
                mine = self._of((kind,))
                both -= part * np.stack([self._trips[mine].sum(axis=0), self._dirt[mine].sum(axis=0)])
            both *= stays_out.astype(np.float32)
            here = self._loaded(np.concatenate([both, both * once])) * place
            image = (here / self._flow).astype(np.float32)
            if let_in:
                return image
            self._make_room()
            self._images[key] = image
        return self._images[key]

    def _make_room(self) -> None:
        if len(self._images) >= _MOST_IMAGES:
            self._images.clear()

    def _image(self, rule: TripRule) -> np.ndarray:
        """What a rule would take away if it took all, of the usual flow and of its exhaust, ``[2, slot, segment]``: a
        sweep asks for the same places again and again, at other strengths."""
        key = (rule.place.tobytes(), rule.end, rule.types, rule.purposes)
        if key not in self._images:
            self._make_room()
            chosen, touched = self._of(rule.types, rule.purposes), self._touched(rule)
            both = np.stack([self._trips[chosen].sum(axis=0), self._dirt[chosen].sum(axis=0)]) * touched
            self._images[key] = self._loaded(both) / np.stack([self._flow, self._emitted])
        return self._images[key]

    def _rules(self, actions: Actions) -> list[Rule]:
        """What acts on trips, as factors."""
        found: list[Rule] = list(self._plates([rule for rule in actions.trips if rule.plates]))
        for rule in actions.trips:
            if rule.plates:
                continue
            share = rule.steps[WARM_UP:, None] * self._touched(rule)
            clean = 1 - share * np.float32(rule.electric) if rule.electric else 1.0
            about = self._of(rule.types, rule.purposes), self._of_electric(rule.types, rule.purposes)
            found.append((*about, 1 - share * np.float32(1 - rule.factor), clean))
        return found

    def _going_electric(self, actions: Actions) -> Shares:
        """What goes electric for the shares that are asked for."""
        found = {}
        for kind, asked in actions.electric.items():
            have = self.electric_already.get(kind, 0.0)
            found[kind] = self._from_origins(np.clip((asked[WARM_UP:] - have) / max(1 - have, 1e-9), 0, 1))
        return found

    def _plates(self, rules: Sequence[TripRule]) -> Iterator[Rule]:
        """Rules on plates, which bar the same cars: of those that touch a trip the strictest counts."""
        about: dict[tuple[int, ...], list[str]] = {}
        kinds_here = dict.fromkeys(kind for _, kind in self.network.classes)
        for kind in dict.fromkeys([*kinds_here, *(ELECTRIC[kind] for kind in kinds_here if kind in ELECTRIC)]):
            mine = tuple(i for i, rule in enumerate(rules) if rule.types is None or kind in rule.types)
            about.setdefault(mine, []).append(kind)
        for mine, kinds in about.items():
            if mine:
                both = self._of(tuple(kinds)), self._of_electric(tuple(kinds))
                yield *both, 1 - self._strictest([rules[i] for i in mine]), 1.0

    def _strictest(self, rules: Sequence[TripRule]) -> np.ndarray:
        """Part of the trips not made by the strictest of ``rules`` that touches each, ``[slot, zone pair]``."""
        holds = np.array([rule.steps[WARM_UP:] for rule in rules])
        gone = np.zeros((holds.shape[1], self._zones**2), np.float32)
        strictly = sorted(range(len(rules)), key=lambda i: rules[i].factor)
        for together in np.unique(holds[:, holds.any(axis=0)], axis=1).T:
            place, part = np.zeros_like(rules[0].place), np.zeros(gone.shape[1], np.float32)
            acting = [i for i in strictly if together[i]]
            # Of the trips that the strictest so far touch, each adds what it takes away beyond the next.
            for i, milder in zip(acting, [rules[i].factor for i in acting[1:]] + [1.0], strict=True):
                place = place | rules[i].place
                part += np.float32(milder - rules[i].factor) * self._touched(replace(rules[i], place=place))
            gone[(holds == together[:, None]).all(axis=0)] = part
        return gone

    def _not_made(self, rules: Sequence[Rule], electric: Shares) -> tuple[np.ndarray, np.ndarray]:
        """Trips an hour not made, and exhaust not emitted, ``[slot, zone pair]``."""
        gone, dirt = np.zeros((2, *self._trips.shape[1:]), np.float32)
        shares, count = list(electric.values()), len(rules)
        as_they_are = [about for about, *_ in rules]
        once_electric = [about if electric else np.zeros_like(about) for _, about, *_ in rules]
        # Classes that the same rules and shares are about need not be told apart.
        told = np.stack([*as_they_are, *once_electric, *(self._of((kind,)) for kind in electric)])
        for touching, trips, exhaust in self._grouped(told):
            kept: np.ndarray | float = 1.0
            kept_electric: np.ndarray | float = 1.0
            clean: np.ndarray | float = 1.0
            part: np.ndarray | float = 0.0
            for number in touching:
                if number < count:
                    kept, clean = kept * rules[number][2], clean * rules[number][3]
                elif number < 2 * count:
                    kept_electric = kept_electric * rules[number - count][2]
                else:
                    part = shares[number - 2 * count]
            gone += trips * (1 - kept - part * (kept_electric - kept))
            dirt += exhaust * (1 - (1 - part) * kept * clean)
        return gone, dirt

    def _grouped(self, chosen: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For ``chosen [rule, class]``: each combination of rules, the trips of its classes, and their exhaust."""
        key = chosen.tobytes()
        if key not in self._groups:
            if len(self._groups) >= _MOST:
                self._groups.clear()
            kinds, member = np.unique(chosen, axis=1, return_inverse=True)
            self._groups[key] = [
                (np.flatnonzero(kind), self._trips[member == i].sum(axis=0), self._dirt[member == i].sum(axis=0))
                for i, kind in enumerate(kinds.T)
                if kind.any()
            ]
        return self._groups[key]

    def _informed(self, actions: Actions) -> np.ndarray | None:
        """Trips an hour newly informed, ``[slot, zone pair]``; None where there are none."""
        if not actions.informed.any():
            return None
        return self._trips.sum(axis=0) * self._from_origins(
            np.maximum(actions.informed[WARM_UP:] - USUALLY_INFORMED, 0)
        )

    def _from_origins(self, share: np.ndarray) -> np.ndarray:
        """Shares of the trips from each segment ``[slot, segment]`` as those of zone pairs, ``[slot, zone pair]``."""
        return np.repeat(share @ self.network.starts.T, self._zones, axis=1).astype(np.float32)

    def _touched(self, rule: TripRule) -> np.ndarray:
        """Part of the trips from one zone to another that a rule is about, float32 ``[zone pair]``."""
        key = (rule.place.tobytes(), rule.end)
        if key not in self._reach:
            if len(self._reach) >= _MOST:
                self._reach.clear()
            start = _inside(self.network.starts, rule.place)[:, None]
            end = _inside(self.network.ends, rule.place)[None, :]
            both = np.ones((len(start), end.shape[1]))
            part = {
                "either": 1 - (1 - start) * (1 - end),
                "entering": (1 - start) * end,
                "origin": start * both,
                "destination": end * both,
            }[rule.end]
            self._reach[key] = part.reshape(-1).astype(np.float32)
        return self._reach[key]

    def _electric(self, kind: str) -> float:
        """Share of the trips that are electric already, among those that ``kind`` counts with."""
        if kind not in ("car", "diesel_car"):
            return 0.0
        made = self._trips.sum(axis=(1, 2))
        private = made[self._of(_PRIVATE)].sum()
        return float(made[self._of(("electric_car",))].sum() / private) if private else 0.0

    def _of_electric(self, types: Sequence[str] | None, purposes: Sequence[str] | None = None) -> np.ndarray:
        """Which classes are of one of the types once they have gone electric; see :meth:`_of`."""
        if types is None:
            return self._of(None, purposes)
        return self._of(tuple(kind for kind, electric in ELECTRIC.items() if electric in types), purposes)

    def _of(self, types: Sequence[str] | None = None, purposes: Sequence[str] | None = None) -> np.ndarray:
        """Which classes have one of the types and one of the purposes; None takes all."""
        key = (types, purposes)
        if key not in self._chosen:
            if purposes is not None and not self.network.purposes:
                raise SurrogateError("why people travel is not known here: a measure cannot be for some purposes")
            self._chosen[key] = np.array(
                [(types is None or t in types) and (purposes is None or p in purposes) for p, t in self.network.classes]
            )
        return self._chosen[key]


def _inside(spread: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Part of each zone's trips that start or end in ``place``, of ``spread [zone, segment]``: ``[zone]``.

    All is 1 to the last bit: shares in single precision do not add up to it, and nobody enters a whole city.
    """
    part: np.ndarray = spread @ place
    return np.where((part > 0) & ~(spread[:, ~place] > 0).any(axis=1), part.dtype.type(1), part)


def _simple(actions: Actions) -> bool:
    """Whether one rule acts on trips, by taking them away or making more, so that its strength is but a factor."""
    return len(actions.trips) == 1 and not actions.electric and actions.trips[0].electric == 0
