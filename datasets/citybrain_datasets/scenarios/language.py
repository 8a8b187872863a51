"""The scenario language: what a person may ask, with every unit and default in one place.

A share or a reduction is 0–1. Defaults that come from elsewhere name their source; those marked *assumed* are our
round figures, to be replaced by the user's own.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from citybrain_datasets.scenarios.places import Count, Names, Number, Strict, When, Where

VERSION: Literal[1] = 1
"""Version of the schema; it grows when a document of the old form would be read otherwise."""

Share = Annotated[Number, Field(ge=0, le=1)]
VehicleType = Literal["car", "diesel_car", "electric_car", "van", "truck"]
Purpose = Literal["to_work", "to_home", "errand", "errand_back", "freight", "through"]


class Lever(Strict):
    """What all measures have: a place, a time and, if known, what they cost."""

    where: Where = Where()
    when: When = When()
    cost: Annotated[Number, Field(ge=0, allow_inf_nan=False)] | None = None
    """In the user's currency; a scenario's cost is the sum over its measures, unknown where none has one."""

    @property
    def kept(self) -> bool:
        """False for a rule that nobody keeps, which changes nothing."""
        return True


class Closure(Lever):
    """The segments are closed to all traffic."""

    lever: Literal["closure"]


class LaneClosure(Lever):
    """``lanes`` of each segment are closed, from the right; a segment with no more lanes is closed whole."""

    lever: Literal["lane_closure"]
    lanes: Annotated[Count, Field(ge=1, le=20)] = 1


class SpeedLimit(Lever):
    """A ceiling of ``kmh``, which never raises a limit; or all limits × ``factor``, which may."""

    lever: Literal["speed_limit"]
    kmh: Annotated[Number, Field(ge=5, le=150)] | None = None
    factor: Annotated[Number, Field(ge=0.1, le=2)] | None = None

    @model_validator(mode="after")
    def _one(self) -> SpeedLimit:
        if (self.kmh is None) == (self.factor is None):
            raise ValueError("give kmh or factor, and not both")
        return self


class Demand(Lever):
    """Trips × ``factor`` that begin (``end: destination``: that end, ``either``: one of both) in the place."""

    lever: Literal["demand"]
    factor: Annotated[Number, Field(ge=0, le=3)]
    purposes: Annotated[tuple[Purpose, ...], Field(min_length=1)] | None = None
    end: Literal["origin", "destination", "either"] = "origin"


class OddEven(Lever):
    """Half the private cars, by the last digit of their plates, may not be driven to, from or inside the place.

    ``compliance`` (assumed 0.9) of their trips are not made. Electric cars may be exempt, as in Beijing.
    """

    lever: Literal["odd_even"]
    compliance: Share = 0.9
    exempt_electric: bool = False


class HeavyBan(Lever):
    """Trucks may not use the segments: they drive around, and trips that begin or end there are not made.

    ``compliance`` is a share of the latter; who only passed through drives around unless nobody complies.
    """

    lever: Literal["heavy_ban"]
    vans: bool = False
    """Vans as well."""
    compliance: Share = 0.95
    """Assumed."""

    @property
    def kept(self) -> bool:
        return self.compliance > 0


class LowEmissionZone(Lever):
    """Vehicles of the ``barred`` types may not use the segments.

    Of the trips that begin or end there, the share ``replaced`` (assumed 0.7) is made by an electric vehicle
    instead, the others are not made; who only passed through drives around. ``compliance`` is as in
    :class:`HeavyBan`.
    """

    lever: Literal["low_emission_zone"]
    barred: Annotated[tuple[VehicleType, ...], Field(min_length=1)] = ("diesel_car", "van", "truck")
    replaced: Share = 0.7
    compliance: Share = 0.95
    """Assumed."""

    @property
    def kept(self) -> bool:
        return self.compliance > 0


class ChargeZone(Lever):
    """Driving into the place costs a fee: ``reduction`` of the trips that end there and begin outside are not made.

    Default 0.18: vehicles entering London's zone after 2003.
    """

    lever: Literal["charge_zone"]
    reduction: Share = 0.18
    exempt_electric: bool = False


class ElectricShare(Lever):
    """At least ``share`` of the trips from the place, by vehicles of ``types``, are electric."""

    lever: Literal["electric_share"]
    share: Share
    types: Annotated[tuple[VehicleType, ...], Field(min_length=1)] = ("car", "diesel_car")


class SignalRetiming(Lever):
    """Signals at the end of the segments cost ``reduction`` less time and capacity. Holds all the window long.

    Default 0.138: delay saved by retiming, as published.
    """

    lever: Literal["signal_retiming"]
    reduction: Share = 0.138

    @model_validator(mode="after")
    def _always(self) -> SignalRetiming:
        if self.when != When():
            raise ValueError("signal retiming holds all day; `when` cannot be narrowed")
        return self


class ReroutingAdvice(Lever):
    """At least ``share`` of the drivers who leave from the place choose their way by current travel times."""

    lever: Literal["rerouting_advice"]
    share: Share


class Coal(Lever):
    """压减燃煤: ``reduction`` of what heating and power plants burn in the place."""

    lever: Literal["coal"]
    reduction: Share


class Vehicles(Lever):
    """严格控车: ``reduction`` of exhaust per kilometre on the segments: standards, scrapping, inspection."""

    lever: Literal["vehicles"]
    reduction: Share


class Industry(Lever):
    """调整产业: ``reduction`` of industry's emission in the place."""

    lever: Literal["industry"]
    reduction: Share


class Dust(Lever):
    """强化管理: ``reduction`` of dust from sites and roads in the place by covering, sweeping and inspection."""

    lever: Literal["dust"]
    reduction: Share


class Regional(Lever):
    """联防联控: ``reduction`` of what is blown in, through measures of the neighbours."""

    lever: Literal["regional"]
    reduction: Share

    @model_validator(mode="after")
    def _outside(self) -> Regional:
        if not self.where.whole_city:
            raise ValueError("what is blown in reaches the whole city; `where` cannot be narrowed")
        return self


SectorMeasure = Coal | Industry | Dust | Regional
"""Those that reduce what other sources than traffic emit."""

Measure = Annotated[
    Closure | LaneClosure | SpeedLimit | Demand | OddEven | HeavyBan | LowEmissionZone | ChargeZone | ElectricShare
    | SignalRetiming | ReroutingAdvice | Coal | Vehicles | Industry | Dust | Regional,
    Field(discriminator="lever"),
]  # fmt: skip

TRAFFIC_LEVERS = ("closure", "lane_closure", "speed_limit", "demand", "odd_even", "heavy_ban", "low_emission_zone",
                  "charge_zone", "electric_share", "signal_retiming", "rerouting_advice")  # fmt: skip
AIR_LEVERS = ("coal", "vehicles", "industry", "dust", "regional")
"""Levers that leave the traffic as it is."""


USUAL_DAYS = 8
"""Days of the ensemble that a scenario is judged in if it names no weather; all there are, where there are fewer."""


class Weather(Strict):
    """The weather a scenario is judged in; one of three, of the city's own record.

    ``case`` is a local day; ``season`` every day of it on record; ``ensemble`` so many days drawn with ``seed``.
    Rain slows traffic in a ``case`` alone; over many days traffic is simulated once, dry, and the air each day.
    """

    case: date | None = None
    season: Literal["winter", "spring", "summer", "autumn"] | None = None
    ensemble: Annotated[Count, Field(ge=1, le=1000)] | None = None
    seed: Annotated[Count, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one(self) -> Weather:
        if sum(v is not None for v in (self.case, self.season, self.ensemble)) != 1:
            raise ValueError("give one of case, season and ensemble")
        return self

    def __str__(self) -> str:
        if self.ensemble is not None:
            return f"{self.ensemble} days, seed {self.seed}"
        return self.season or str(self.case)


class Scenario(Strict):
    """Measures taken together, in one weather. No measure at all is the base itself."""

    version: Literal[1] = VERSION
    id: Annotated[str, Field(pattern=r"^[^\s$][^\n$]*$", max_length=200)]
    title: str = ""
    measures: tuple[Measure, ...] = ()
    weather: Weather = Weather(ensemble=USUAL_DAYS)

    @property
    def cost(self) -> float | None:
        """Sum of the costs given, or None where none is: nobody knows then what it costs."""
        given = [m.cost for m in self.measures if m.cost is not None]
        return sum(given) if given else None

    @property
    def levers(self) -> tuple[str, ...]:
        return tuple(m.lever for m in self.measures)


__all__ = ["AIR_LEVERS", "TRAFFIC_LEVERS", "VERSION", "Measure", "Names", "Scenario", "Weather", "When", "Where"]
