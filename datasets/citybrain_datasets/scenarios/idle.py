"""Measures that change nothing, however strong they are, and why: told before anybody takes a zero for a finding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from citybrain_datasets.city import City
from citybrain_datasets.errors import Problem
from citybrain_datasets.scenarios.actions import WARM_UP, Timetable, town_metres
from citybrain_datasets.scenarios.checking import variants
from citybrain_datasets.scenarios.language import (
    ChargeZone,
    ElectricShare,
    Measure,
    ReroutingAdvice,
    SectorMeasure,
    SignalRetiming,
)
from citybrain_datasets.scenarios.places import When, Where
from citybrain_datasets.scenarios.reading import MOST_PROBLEMS, Scenarios
from citybrain_datasets.scenarios.resolve import Places

NO_SIGNAL = "signal_retiming changes nothing: no chosen road has a signal at its end"
NO_OUTSIDE = "charge_zone changes nothing: it is every road, and nobody enters it"
NO_TOWN = "{} changes nothing: only motorways are chosen, and no town lies there"
INFORMED = "rerouting_advice changes nothing: a share of {:g} knows the travel times without it"
ELECTRIC = "electric_share changes nothing: as many are electric without it"
ELSEWHEN = "{} acts only outside the hours judged, {}"

_MOST = 10_000


class Reason(NamedTuple):
    """Why a measure changes nothing, and the field that makes it so."""

    field: str
    why: str


class Idle:
    """Why a measure changes nothing in ``city`` in the steps of ``timetable``; None where it may change something.

    ``signalled`` says where a signal stands, bool ``[segment]``; None where nobody knows. ``informed`` is the share of
    drivers who know the travel times anyway, ``electric`` by vehicle type the share that is electric already.
    """

    def __init__(
        self,
        city: City,
        timetable: Timetable,
        *,
        signalled: np.ndarray | None,
        informed: float,
        electric: Mapping[str, float],
    ):
        self.timetable = timetable
        self._places, self._town = Places(city), town_metres(city)
        self._signalled, self._informed, self._electric = signalled, informed, electric
        self._holding: dict[When, bool] = {}
        self._there: dict[tuple[str, Where], str] = {}

    def __call__(self, measure: Measure) -> Reason | None:
        if not self._holds(measure.when):
            return Reason("when", ELSEWHEN.format(measure.lever, self.timetable))
        if isinstance(measure, ReroutingAdvice) and measure.share <= self._informed:
            return Reason("share", INFORMED.format(self._informed))
        if isinstance(measure, ElectricShare) and all(measure.share <= self._electric.get(t, 0) for t in measure.types):
            return Reason("share", ELECTRIC)
        if not isinstance(measure, SignalRetiming | ChargeZone | SectorMeasure):
            return None
        key = (measure.lever, measure.where)
        if key not in self._there:
            if len(self._there) >= _MOST:
                self._there.clear()
            self._there[key] = self._nothing_there(measure)
        return Reason("where", self._there[key]) if self._there[key] else None

    def _nothing_there(self, measure: Measure) -> str:
        place = self._places(measure.where)
        if isinstance(measure, SignalRetiming):
            return "" if self._signalled is None or (place & self._signalled).any() else NO_SIGNAL
        if isinstance(measure, ChargeZone):
            return NO_OUTSIDE if place.all() else ""
        return "" if self._town[place].any() else NO_TOWN.format(measure.lever)

    def _holds(self, when: When) -> bool:
        if when not in self._holding:
            if len(self._holding) >= _MOST:
                self._holding.clear()
            self._holding[when] = bool(self.timetable.covered(when)[WARM_UP:].any())
        return self._holding[when]


def changing_nothing(scenarios: Scenarios, idle: Idle) -> list[Problem]:
    """Each measure that changes nothing, by file, line and field: it is allowed. Places are those of a city that has
    them (``check_places``)."""
    found: dict[tuple[str, int, str], Problem] = {}
    for source, which, scenario in variants(scenarios):
        for number, measure in enumerate(scenario.measures):
            if measure.kept and (reason := idle(measure)):
                told = source.problem(("measures", number, reason.field), f"{reason.why} ({which})")
                found[source.entry.id, number, reason.why] = told
        if len(found) > MOST_PROBLEMS:
            break
    return list(found.values())
