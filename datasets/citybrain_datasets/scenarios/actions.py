"""What measures mean on a network: arrays by step and segment, and rules on trips.

The simulator and a surrogate both start from here, so that a word means the same to both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import ValidationError

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_datasets.scenarios import language as lang
from citybrain_datasets.scenarios.places import DAY_MINUTES, ClockTime, Strict, When, Where, clock
from citybrain_datasets.scenarios.resolve import Places

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

    def timetable(self) -> Timetable:
        starts = self.starts()
        return Timetable(starts + STEP_MINUTES // 2, np.full(len(starts), self.off))

    def model_post_init(self, context: object) -> None:
        if self.end <= self.begin or (self.end - self.begin) % 60 or self.begin % 60:
            raise ValueError("a window is whole hours of one day, from begin to a later end")


def read_window(command: str, usual: Window, begin: str | None, end: str | None, off: bool = False) -> Window:
    """The window that a command was given, ``usual`` where it was not; :class:`ConfigError` where it is none."""
    given = {"begin": begin or usual.begin, "end": end or usual.end, "off": off or usual.off}
    try:
        return Window.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{command}: {error.errors()[0]['msg']}") from error


STEP_MINUTES = 15
WARM_UP = 2
"""Steps of warm-up."""


@dataclass(frozen=True)
class Timetable:
    """What the clock on the wall says in the middle of each step, the warm-up's first: ``minutes`` after midnight,
    and whether the day is ``off``, a weekend or public holiday; both ``[step]``."""

    minutes: np.ndarray
    off: np.ndarray

    @staticmethod
    def at(begin: pd.Timestamp, steps: int, calendar: Calendar) -> Timetable:
        """So many ``steps`` from ``begin``, in UTC, on, and the warm-up before them."""
        middles = (np.arange(-WARM_UP, steps) + 0.5) * STEP_MINUTES
        local = calendar.of(begin + pd.to_timedelta(middles, "min"))
        return Timetable(local.minute_of_day, (local.weekday >= 5) | local.holiday)

    def covered(self, when: When) -> np.ndarray:
        """In which steps ``when`` holds, bool ``[step]``: those whose middle it covers."""
        return np.array([when.covers(int(m), bool(off)) for m, off in zip(self.minutes, self.off, strict=True)])

    @property
    def begin(self) -> int:
        """Minutes after midnight at which the steps begin, the warm-up left out."""
        return int(self.minutes[WARM_UP] - STEP_MINUTES // 2) % DAY_MINUTES

    @property
    def end(self) -> int:
        """Minutes after midnight at which they end."""
        return int(self.minutes[-1] + (STEP_MINUTES - STEP_MINUTES // 2) - 1) % DAY_MINUTES + 1

    @property
    def days(self) -> Literal["working", "off", "all"]:
        """Kinds of day they lie on, as :class:`When` has them."""
        off = self.off[WARM_UP:]
        return "off" if off.all() else "all" if off.any() else "working"

    def __str__(self) -> str:
        kind = {"working": " of a working day", "off": " of a day off", "all": ""}[self.days]
        return f"{clock(self.begin)}–{clock(self.end)}{kind}"


@dataclass(frozen=True)
class TripRule:
    """Trips of ``types`` and ``purposes`` (all, where None) × ``factor``; of what is left, ``electric`` go electric.

    ``origin`` and ``destination`` are bool ``[segment]``; ``end`` says how a trip must touch them: by its origin, its
    destination, ``either``, or ``entering``, from outside to inside. ``steps`` is bool ``[step]``, of the departure.
    ``plates`` bar the same half of the cars wherever they hold: of several that touch a trip the strictest counts.
    """

    place: np.ndarray
    steps: np.ndarray
    factor: float
    end: str = "origin"
    types: tuple[str, ...] | None = None
    purposes: tuple[str, ...] | None = None
    electric: float = 0.0
    plates: bool = False


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

    def row(self, number: int) -> Actions:
        """One scenario of a batch, as views of its arrays."""
        return Actions(
            self.lanes_closed[number],
            self.limit_kmh[number],
            self.exhaust[number],
            self.informed[number],
            self.signals[number],
            sectors={name: factors[number] for name, factors in self.sectors.items()},
        )


@dataclass(frozen=True)
class Span:
    """Where and when a measure holds: ``place`` bool ``[segment]``, ``steps`` bool ``[step]``, ``block`` both as an
    index of ``[step, segment]``."""

    place: np.ndarray
    steps: np.ndarray
    block: tuple[np.ndarray, ...]


class Compiler:
    """The meaning of scenarios on ``city`` in the steps of ``timetable``; measures that meet add up in the order given.

    A step counts as covered when its middle is. Places and times are looked up once, however many scenarios name them.
    """

    def __init__(self, city: City, timetable: Timetable):
        roads = city.nodes["road"]
        self._places = Places(city)
        self._spans: dict[tuple[Where, When], Span] = {}
        self._timetable = timetable
        self._free = roads["free_speed_kmh"].to_numpy(float)
        self._town = town_metres(city)

    def __call__(self, scenario: lang.Scenario) -> Actions:
        """Raises :class:`CityError` with the place in the scenario of whatever the city does not have."""
        return self.batch([scenario])[1][0]

    def batch(self, scenarios: Sequence[lang.Scenario]) -> tuple[Actions, list[Actions]]:
        """Many scenarios: the arrays of all, with the axis ``[scenario]`` in front, and each as a view of those.

        What holds lists and not arrays (``barred``, ``electric``, ``trips``) is with the single ones alone.
        """
        shape = (len(scenarios), len(self._timetable.minutes), len(self._free))
        together = Actions(
            lanes_closed=np.zeros(shape, np.int16),
            limit_kmh=np.tile(self._free, (*shape[:2], 1)),
            exhaust=np.ones(shape),
            informed=np.zeros(shape),
            signals=np.ones((shape[0], shape[2])),
            sectors={name: np.ones(shape[:2]) for name in SECTORS},
        )
        every = [together.row(number) for number in range(len(scenarios))]
        for scenario, actions in zip(scenarios, every, strict=True):
            reduced: dict[str, list[tuple[Span, float]]] = {}
            for number, measure in enumerate(scenario.measures):
                span = self._span(scenario, number)
                if isinstance(measure, lang.SectorMeasure):
                    reduced.setdefault(measure.lever, []).append((span, measure.reduction))
                elif measure.kept:
                    _MEANING[measure.lever](measure, actions, span)
            for sector, reductions in reduced.items():
                actions.sectors[sector][:] = self._left(reductions)
        return together, every

    def _left(self, reductions: Sequence[tuple[Span, float]]) -> np.ndarray:
        """What reductions leave of a sector, ``[step]``: on each street one after another, and a street counts by its
        part of the town."""
        gone = np.zeros((len(self._timetable.minutes), len(self._free)))
        for span, reduction in reductions:
            gone[span.block] += reduction * (1 - gone[span.block])
        return np.clip(1 - (gone * self._town).sum(axis=1) / self._town.sum(), 0, 1)

    def _span(self, scenario: lang.Scenario, number: int) -> Span:
        measure = scenario.measures[number]
        key = (measure.where, measure.when)
        found = self._spans.get(key)
        if found is None:
            if len(self._spans) >= _MOST_SPANS:
                self._spans.clear()
            place = self._places(measure.where, f"scenario {scenario.id}, measures.{number}.where")
            steps = self._timetable.covered(measure.when)
            found = self._spans[key] = Span(place, steps, np.ix_(steps, place))
        return found


_MOST_SPANS = 10_000


def town_metres(city: City) -> np.ndarray:
    """Metres of street ``[segment]`` by which what other sources than traffic emit is spread: it lies where the town
    is, and motorways between towns have none of it."""
    roads = city.nodes["road"]
    length = roads["length_m"].to_numpy(float)
    town = np.where(roads.get("road_class", "") == "motorway", 0.0, length)
    return town if town.any() else length


def compile_actions(scenario: lang.Scenario, city: City, window: Window) -> Actions:
    """The meaning of one scenario, as :class:`Compiler` has it."""
    return Compiler(city, window.timetable())(scenario)


def _close(m: lang.Closure, a: Actions, at: Span) -> None:
    a.lanes_closed[at.block] = np.iinfo(np.int16).max


def _close_lanes(m: lang.LaneClosure, a: Actions, at: Span) -> None:
    a.lanes_closed[at.block] = np.maximum(a.lanes_closed[at.block], m.lanes)


def _limit(m: lang.SpeedLimit, a: Actions, at: Span) -> None:
    limit = a.limit_kmh[at.block]
    a.limit_kmh[at.block] = np.minimum(limit, m.kmh) if m.kmh is not None else np.maximum(limit * (m.factor or 1), 5)


def _demand(m: lang.Demand, a: Actions, at: Span) -> None:
    a.trips.append(TripRule(at.place, at.steps, m.factor, m.end, purposes=m.purposes))


def _odd_even(m: lang.OddEven, a: Actions, at: Span) -> None:
    types = tuple(t for t in PRIVATE if not (m.exempt_electric and t == "electric_car"))
    a.trips.append(TripRule(at.place, at.steps, 1 - 0.5 * m.compliance, "either", types, plates=True))


def _heavy(m: lang.HeavyBan, a: Actions, at: Span) -> None:
    types = ("truck", "electric_truck", *(("van", "electric_van") if m.vans else ()))
    _bar(a, types, at)
    a.trips.append(TripRule(at.place, at.steps, 1 - m.compliance, "either", types))


def _zone(m: lang.LowEmissionZone, a: Actions, at: Span) -> None:
    _bar(a, m.barred, at)
    left = 1 - m.compliance * (1 - m.replaced)
    electric = m.compliance * m.replaced / left if left > 0 else 0.0
    # Permit holders, the share that does not comply, keep their vehicle.
    a.trips.append(TripRule(at.place, at.steps, left, "either", m.barred, electric=electric))


def _charge(m: lang.ChargeZone, a: Actions, at: Span) -> None:
    types = tuple(t for t in TYPES if not (m.exempt_electric and t.startswith("electric")))
    a.trips.append(TripRule(at.place, at.steps, 1 - m.reduction, "entering", types))


def _electric(m: lang.ElectricShare, a: Actions, at: Span) -> None:
    for name in m.types:
        asked = a.electric.setdefault(name, np.zeros_like(a.informed))
        asked[at.block] = np.maximum(asked[at.block], m.share)


def _retime(m: lang.SignalRetiming, a: Actions, at: Span) -> None:
    a.signals[at.place] *= 1 - m.reduction


def _advise(m: lang.ReroutingAdvice, a: Actions, at: Span) -> None:
    a.informed[at.block] = np.maximum(a.informed[at.block], m.share)


def _exhaust(m: lang.Vehicles, a: Actions, at: Span) -> None:
    a.exhaust[at.block] *= 1 - m.reduction


def _bar(a: Actions, types: tuple[str, ...], at: Span) -> None:
    for name in types:
        a.barred.setdefault(name, np.zeros(a.informed.shape, bool))[at.block] = True


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
}
