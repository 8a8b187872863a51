"""What measures mean on a network: arrays by step and segment, and rules on trips.

The simulator and a surrogate both start from here, so that a word means the same to both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from citybrain_datasets.city import City
from citybrain_datasets.scenarios import language as lang
from citybrain_datasets.scenarios.places import ClockTime, Strict
from citybrain_datasets.scenarios.resolve import resolve

TYPES = ("car", "diesel_car", "electric_car", "van", "truck", "electric_van", "electric_truck")
"""Vehicle types; the last two appear only through measures."""
ELECTRIC = {"car": "electric_car", "diesel_car": "electric_car", "van": "electric_van", "truck": "electric_truck"}
PRIVATE = ("car", "diesel_car", "electric_car")
SECTORS = ("coal", "industry", "dust", "regional")


class Window(Strict):
    """The hours that are simulated, in steps of a quarter of an hour; before them a warm-up that is not counted."""

    begin: ClockTime = 7 * 60
    end: ClockTime = 9 * 60
    off: bool = False
    """A weekend or public holiday."""

    @property
    def steps(self) -> int:
        """Steps of the window, after the warm-up."""
        return (self.end - self.begin) // STEP_MINUTES

    def starts(self) -> np.ndarray:
        """Minutes after midnight at which each step begins, the warm-up's first: ``[WARM_UP + steps]``."""
        return self.begin + STEP_MINUTES * np.arange(-WARM_UP, self.steps)

    def model_post_init(self, context: object) -> None:
        if self.end <= self.begin or (self.end - self.begin) % 60 or self.begin % 60:
            raise ValueError("a window is whole hours of one day, from begin to a later end")


STEP_MINUTES = 15
WARM_UP = 2
"""Steps of warm-up."""


@dataclass(frozen=True)
class TripRule:
    """Trips of ``types`` and ``purposes`` (all, where None) × ``factor``; of what is left, ``electric`` go electric.

    ``origin`` and ``destination`` are bool ``[segment]``; ``end`` says how a trip must touch them: by its origin, its
    destination, ``either``, or ``entering``, from outside to inside. ``steps`` is bool ``[step]``, of the departure.
    """

    place: np.ndarray
    steps: np.ndarray
    factor: float
    end: str = "origin"
    types: tuple[str, ...] | None = None
    purposes: tuple[str, ...] | None = None
    electric: float = 0.0


@dataclass
class Actions:
    """A scenario on one network. ``[step, segment]`` with the steps of ``Window.starts``, warm-up included.

    ``lanes_closed`` counts from the right, all of them closing the segment; ``limit_kmh``; ``barred`` tells by vehicle
    type who may not enter; ``exhaust`` is a factor on what a vehicle emits per km; ``informed`` and ``electric`` (by
    vehicle type) are the least shares of the trips that leave from there, 0 where nothing is asked. ``signals`` is a
    factor ``[segment]`` on what the signals at its end cost; ``sectors`` factors ``[step]`` on other sources of PM2.5.
    """

    lanes_closed: np.ndarray
    limit_kmh: np.ndarray
    exhaust: np.ndarray
    informed: np.ndarray
    signals: np.ndarray
    barred: dict[str, np.ndarray] = field(default_factory=dict)
    electric: dict[str, np.ndarray] = field(default_factory=dict)
    trips: list[TripRule] = field(default_factory=list)
    sectors: dict[str, np.ndarray] = field(default_factory=dict)

    def closed(self, lanes: np.ndarray) -> np.ndarray:
        """Segments closed whole, bool ``[step, segment]``; ``lanes`` ``[segment]``."""
        return self.lanes_closed >= np.maximum(lanes, 1)


def compile_actions(scenario: lang.Scenario, city: City, window: Window) -> Actions:
    """The meaning of ``scenario`` on ``city`` during ``window``; measures that meet add up in the order given.

    A step counts as covered when its middle is. Raises :class:`CityError` with the place in the scenario of whatever
    the city does not have.
    """
    roads = city.nodes["road"]
    free = roads["free_speed_kmh"].to_numpy(float)
    steps, width = len(window.starts()), len(roads)
    actions = Actions(
        lanes_closed=np.zeros((steps, width), np.int16),
        limit_kmh=np.tile(free, (steps, 1)),
        exhaust=np.ones((steps, width)),
        informed=np.zeros((steps, width)),
        signals=np.ones(width),
        sectors={name: np.ones(steps) for name in SECTORS},
    )
    middles = window.starts() + STEP_MINUTES / 2
    # A sector's emission lies where the town is; motorways between towns have none of it.
    town = np.where(roads.get("road_class", "") == "motorway", 0.0, roads["length_m"].to_numpy(float))
    for number, measure in enumerate(scenario.measures):
        place = resolve(measure.where, city, f"scenario {scenario.id}, measures.{number}.where")
        when = np.array([measure.when.covers(m, window.off) for m in middles])
        share = float(town[place].sum() / town.sum()) if town.sum() > 0 else 1.0
        _MEANING[measure.lever](measure, actions, place, when, share)
    return actions


def _close(m: lang.Closure, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    a.lanes_closed[np.ix_(when, place)] = np.iinfo(np.int16).max


def _close_lanes(m: lang.LaneClosure, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    block = np.ix_(when, place)
    a.lanes_closed[block] = np.maximum(a.lanes_closed[block], m.lanes)


def _limit(m: lang.SpeedLimit, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    block = np.ix_(when, place)
    limit = a.limit_kmh[block]
    a.limit_kmh[block] = np.minimum(limit, m.kmh) if m.kmh is not None else np.maximum(limit * (m.factor or 1), 5)


def _demand(m: lang.Demand, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    a.trips.append(TripRule(place, when, m.factor, m.end, purposes=m.purposes))


def _odd_even(m: lang.OddEven, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    types = tuple(t for t in PRIVATE if not (m.exempt_electric and t == "electric_car"))
    a.trips.append(TripRule(place, when, 1 - 0.5 * m.compliance, "either", types))


def _heavy(m: lang.HeavyBan, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    types = ("truck", "electric_truck", *(("van", "electric_van") if m.vans else ()))
    _bar(a, types, place, when)
    a.trips.append(TripRule(place, when, 1 - m.compliance, "either", types))


def _zone(m: lang.LowEmissionZone, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    _bar(a, m.barred, place, when)
    left = 1 - m.compliance * (1 - m.replaced)
    electric = m.compliance * m.replaced / left if left > 0 else 0.0
    # Permit holders, the share that does not comply, keep their vehicle.
    a.trips.append(TripRule(place, when, left, "either", m.barred, electric=electric))


def _charge(m: lang.ChargeZone, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    types = tuple(t for t in TYPES if not (m.exempt_electric and t.startswith("electric")))
    a.trips.append(TripRule(place, when, 1 - m.reduction, "entering", types))


def _electric(m: lang.ElectricShare, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    for name in m.types:
        asked = a.electric.setdefault(name, np.zeros_like(a.informed))
        asked[np.ix_(when, place)] = np.maximum(asked[np.ix_(when, place)], m.share)


def _retime(m: lang.SignalRetiming, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    a.signals[place] *= 1 - m.reduction


def _advise(m: lang.ReroutingAdvice, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    block = np.ix_(when, place)
    a.informed[block] = np.maximum(a.informed[block], m.share)


def _exhaust(m: lang.Vehicles, a: Actions, place: np.ndarray, when: np.ndarray, share: float) -> None:
    a.exhaust[np.ix_(when, place)] *= 1 - m.reduction


def _sector(
    sector: str,
    m: lang.Coal | lang.Industry | lang.Dust | lang.Regional,
    a: Actions,
    place: np.ndarray,
    when: np.ndarray,
    share: float,
) -> None:
    a.sectors[sector] = a.sectors[sector] * np.where(when, 1 - m.reduction * share, 1.0)


def _bar(a: Actions, types: tuple[str, ...], place: np.ndarray, when: np.ndarray) -> None:
    for name in types:
        a.barred.setdefault(name, np.zeros(a.informed.shape, bool))[np.ix_(when, place)] = True


_MEANING: dict[str, Callable[..., None]] = {
    "closure": _close,
    "lane_closure": _close_lanes,
    "speed_limit": _limit,
    "demand": _demand,
    "odd_even": _odd_even,
    "heavy_ban": _heavy,
    "low_emission_zone": _zone,
    "charge_zone": _charge,
    "electric_share": _electric,
    "signal_retiming": _retime,
    "rerouting_advice": _advise,
    "vehicles": _exhaust,
    **{sector: partial(_sector, sector) for sector in SECTORS},
}
