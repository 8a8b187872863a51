"""Scores scenarios by the surrogate: batches through ONNX Runtime, then the outcomes, each with an interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from citybrain_datasets.scenarios.actions import WARM_UP
from citybrain_datasets.scenarios.air import AirStep, Composition
from citybrain_datasets.scenarios.breathing import Breathing
from citybrain_datasets.scenarios.geography import place_of
from citybrain_datasets.scenarios.language import TRAFFIC_LEVERS, Scenario, Weather
from citybrain_datasets.scenarios.outcomes import OUTCOMES, Traffic, traffic_outcomes
from citybrain_datasets.scenarios.places import clock
from citybrain_models.onnx_forecaster import open_session
from citybrain_models.surrogate.after import After, Changed
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.inputs import base_inputs, graph_inputs
from citybrain_models.surrogate.levers import CHANNELS, LeverArrays, Levers
from citybrain_models.surrogate.network import Base, SurrogateError
from citybrain_models.surrogate.unsure import AIR, units, widths

BATCH = 32
"""Scenarios in one call of the network. Fixed: another batch may round differently in the last digit."""
USUAL_WEATHER = Weather(ensemble=8)
_MOST_WEATHERS = BATCH
"""Weathers remembered, of several megabytes each; fewer than a batch may name would be made again and again."""


@dataclass(frozen=True)
class Scores:
    """What a batch of scenarios comes to. ``columns`` are ``NAME``, ``NAME_change``, ``NAME_change_low`` and ``_high``
    of each of :data:`OUTCOMES`, ``[scenario]``; ``labels`` the worst corridor and district; ``grade`` where the change
    comes from; ``outside`` why a scenario lies beyond what was learnt, by its measures or by the hours that are judged,
    or acts at other hours than these, or where nothing is to act on; empty where none of it is so."""

    columns: Mapping[str, np.ndarray]
    labels: Mapping[str, list[str]]
    grade: list[str]
    outside: list[str]

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        """Several batches as one."""
        return Scores(
            {name: np.concatenate([p.columns[name] for p in parts]) for name in (parts[0].columns if parts else ())},
            {name: [v for p in parts for v in p.labels[name]] for name in (parts[0].labels if parts else ())},
            [grade for p in parts for grade in p.grade],
            [why for p in parts for why in p.outside],
        )


class Scorer:
    """``base`` is the traffic that the measures meet, the bundle's usual one if not given; they hold by its clock.
    ``air`` are air steps by weather, beside the usual weather's that the bundle holds; ``weather`` makes those of
    others."""

    def __init__(
        self,
        bundle: SurrogateBundle,
        *,
        base: Base | None = None,
        air: Mapping[Weather, AirStep] | None = None,
        weather: Callable[[Weather], AirStep] | None = None,
        threads: int = 1,
    ):
        self._weather = weather
        self.bundle = bundle
        self.base = base or bundle.usual
        self.network = bundle.network
        self.place = place_of(bundle.city)
        self.timetable = self.base.timetable or bundle.window.timetable()
        self.levers = Levers(bundle.city, bundle.network, self.timetable)
        self.after = After(self.network, self.base, bundle.quantiles)
        self.session = open_session(bundle.model, threads)
        wanted = {node.name for node in self.session.get_inputs()}
        fixed = {n: a[None] for n, a in base_inputs(self.network, self.base).items()} | graph_inputs(self.network)
        self.fixed = {name: array for name, array in fixed.items() if name in wanted}
        self.air: dict[Weather, AirStep] = dict(air or {})
        if bundle.air:
            self.air.setdefault(USUAL_WEATHER, air_of(bundle.air))
        self._breathing: dict[Weather, Breathing] = {}
        self._usual: dict[Weather, tuple[dict[str, np.ndarray], dict[str, list[str]]]] = {}
        self._units: dict[Weather, dict[str, float]] = {}

    def __call__(self, scenarios: Sequence[Scenario]) -> Scores:
        """Scores any number of scenarios, :data:`BATCH` at a time."""
        batches = (scenarios[first : first + BATCH] for first in range(0, len(scenarios), BATCH))
        return Scores.joined([scores for _, scores in self.stream(batches)])

    def stream(
        self, batches: Iterable[Sequence[Scenario]], overlap: bool = True
    ) -> Iterator[tuple[Sequence[Scenario], Scores]]:
        """Each batch with its scores. The network runs one batch in a thread of its own, while this one makes and
        compiles the next and sums up the one before; without ``overlap`` one after the other, on one core."""
        if not overlap:
            for batch in batches:
                yield batch, self.score(batch)
            return
        ahead: tuple[Sequence[Scenario], LeverArrays, Future[np.ndarray]] | None = None
        with ThreadPoolExecutor(1) as network:
            for batch in batches:
                said = self.levers(batch, self.base.flow)
                behind, ahead = ahead, (batch, said, network.submit(self._run, said))
                if behind is not None:
                    yield behind[0], self._summed(behind[0], behind[1], behind[2].result())
            if ahead is not None:
                yield ahead[0], self._summed(ahead[0], ahead[1], ahead[2].result())

    def score(self, scenarios: Sequence[Scenario]) -> Scores:
        """One batch. Raises :class:`CityError` where a scenario names what the city does not have."""
        said = self.levers(scenarios, self.base.flow)
        return self._summed(scenarios, said, self._run(said))

    def changed(self, said: LeverArrays) -> Changed:
        """Runs the network on one batch of lever arrays."""
        return self.after.changed(self._run(said))

    def traffic(self, changed: Changed, exhaust: np.ndarray | None = None) -> Traffic:
        """Traffic ``[scenario, slot, segment]``, see :meth:`After.traffic`."""
        return self.after.traffic(changed, exhaust)

    def people(self, weather: Weather, traffic: Traffic, sectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """PM2.5 that people breathe in each district, µg/m³ ``[scenario]``; ``sectors`` as in :class:`LeverArrays`."""
        _, by_district = self._air(weather).people(traffic.emission, sectors)
        return dict(zip(self.place.districts, by_district.T, strict=True))

    def _run(self, said: LeverArrays) -> np.ndarray:
        """The change ``[scenario, segment, slot, signal, quantile]``."""
        change: np.ndarray = self.session.run(None, {"levers": said.levers, "closed": said.closed, **self.fixed})[0]
        # Where nothing but engines is another, as many drive as before: nobody emits more, nor wears off less.
        rows = np.flatnonzero(~said.summary[:, _DRIVING].any(axis=1))
        change[rows, ..., _EMISSION, :] = np.clip(change[rows, ..., _EMISSION, :], -self.after.burnt[..., None], 0)
        return change

    def _summed(self, scenarios: Sequence[Scenario], said: LeverArrays, change: np.ndarray) -> Scores:
        changed = self.after.changed(change)
        weathers = [s.weather for s in scenarios]
        values, labels = self._outcomes(self.traffic(changed, said.exhaust), said.sectors, weathers)
        # Summing in another order may differ in the last digit; what nothing changes is the base to the last digit.
        still: np.ndarray = np.asarray(~said.summary.any(axis=1))
        roads: np.ndarray = np.logical_and(still, (said.exhaust == 1).all(axis=(1, 2)))
        breath = roads.copy()
        for factors in said.sectors.values():
            breath &= (factors == 1).all(axis=1)
        unsure = widths(changed.width)
        columns: dict[str, np.ndarray] = {}
        for weather, rows in _alike(weathers):
            usual, usual_labels = self._base(weather)
            unit = self._unit(weather)
            for name in OUTCOMES:
                rest = (breath if name in AIR else roads if name == "emission_kg" else still)[rows]
                value = np.where(rest, usual[name], values[name][rows])
                width = np.where(rest, 0.0, unit[name] * unsure[name][rows])
                for column, found in self._columns(name, value, value - usual[name], width).items():
                    columns.setdefault(column, np.empty(len(scenarios)))[rows] = found
            for name, rest in (("worst_corridor", still), ("worst_district", breath)):
                for row in rows[rest[rows]]:
                    labels[name][row] = usual_labels[name][0]
        # Without a measure it is the base itself, which the surrogate learned.
        grade = ["surrogate" if _TRAFFIC & set(s.levers) or not s.measures else "literature" for s in scenarios]
        # A measure that never holds in these hours is no certain zero: it was not judged when it acts.
        learnt = self.bundle.reach.judge(said.summary)
        reasons = [
            "; ".join(filter(None, (why, "" if rest else self._elsewhen, *self.levers.idle(s))))
            for why, rest, s in zip(learnt, still, scenarios, strict=True)
        ]
        return Scores(columns, labels, grade, reasons)

    @cached_property
    def _elsewhen(self) -> str:
        """Why no word on these hours was learnt, empty where they are the surrogate's own."""
        window, minutes = self.bundle.window, self.timetable.minutes[WARM_UP:]
        if ((minutes >= window.begin) & (minutes < window.end)).all():
            return ""
        return f"hours beyond those learnt, {clock(window.begin)}–{clock(window.end)}"

    def _outcomes(
        self, traffic: Traffic, sectors: Mapping[str, np.ndarray], weathers: Sequence[Weather]
    ) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
        values, corridor = traffic_outcomes(traffic, self.place)
        labels = {"worst_corridor": [self.place.corridors[i] for i in corridor], "worst_district": [""] * len(corridor)}
        for weather, rows in _alike(weathers):
            factors = {name: factor[rows] for name, factor in sectors.items()}
            breathed, district = self._air(weather)(traffic.emission[rows], factors)
            for name, value in breathed.items():
                values.setdefault(name, np.full(len(weathers), np.nan))[rows] = value
            for row, index in zip(rows, district, strict=True):
                labels["worst_district"][row] = self.place.districts[index]
        return values, labels

    def _base(self, weather: Weather) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
        """Outcomes of the base, in a weather; arrays of one."""
        if weather not in self._usual:
            self._usual[weather] = self._outcomes(self.traffic(self.after.unchanged), {}, [weather])
        return self._usual[weather]

    def _unit(self, weather: Weather) -> dict[str, float]:
        """What the surrogate's own width is worth in each outcome."""
        if weather not in self._units:
            carless, _ = self._air(weather)(np.zeros_like(self.base.emission.T[None]), {})
            self._units[weather] = units(self.base, self._base(weather)[0], carless)
        return self._units[weather]

    def _air(self, weather: Weather) -> Breathing:
        found = self._breathing.pop(weather, None) or Breathing(self._step(weather), self.place)
        self._breathing[weather] = found  # the last one asked for stands last
        if len(self._breathing) > _MOST_WEATHERS:
            oldest = next(iter(self._breathing))
            for known in (self._breathing, self._usual, self._units):
                known.pop(oldest, None)
        return found

    def _step(self, weather: Weather) -> AirStep:
        if weather in self.air:
            return self.air[weather]
        if self._weather is None:
            raise SurrogateError(f"the surrogate holds no weather but the usual; that of {weather} needs the city")
        return self._weather(weather)

    def _columns(self, name: str, value: np.ndarray, change: np.ndarray, width: np.ndarray) -> dict[str, np.ndarray]:
        margin = self.bundle.margins[name] * width
        # Nothing that is counted can fall below zero, nor an index rise beyond its scale.
        below, above = np.maximum(value, 0), np.maximum(OUTCOMES[name].highest - value, 0)
        return {
            name: value,
            f"{name}_change": change,
            f"{name}_change_low": change - np.minimum(margin, below),
            f"{name}_change_high": change + np.minimum(margin, above),
        }


def _alike(weathers: Sequence[Weather]) -> list[tuple[Weather, np.ndarray]]:
    """The weathers of a batch, each with the positions of its scenarios."""
    found: dict[Weather, list[int]] = {}
    for row, weather in enumerate(weathers):
        found.setdefault(weather, []).append(row)
    return [(weather, np.array(rows)) for weather, rows in found.items()]


_TRAFFIC = frozenset(TRAFFIC_LEVERS)
_EMISSION = 2
"""Of the signals that the network tells the change of."""
_DRIVING = np.array([name != "cleaner" for _ in range(3) for name in CHANNELS])
"""Numbers of a :func:`~citybrain_models.surrogate.levers.summary` that say who drives, and not what is burnt."""


def air_arrays(step: AirStep) -> dict[str, np.ndarray]:
    """An air step as a bundle keeps it."""
    shares = step.composition.model_dump()
    return {
        "matrix": step.matrix.astype(np.float32),
        "regional": step.regional.astype(np.float32),
        "local": step.local.astype(np.float32),
        "composition": np.array([shares[name] for name in sorted(shares)]),
    }


def air_of(arrays: Mapping[str, np.ndarray]) -> AirStep:
    """The inverse of :func:`air_arrays`."""
    shares = dict(zip(sorted(Composition.model_fields), map(float, arrays["composition"]), strict=True))
    return AirStep(arrays["matrix"], arrays["regional"], arrays["local"], Composition(**shares))
