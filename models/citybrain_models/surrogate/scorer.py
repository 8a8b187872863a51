"""Scores scenarios by the surrogate: batches through ONNX Runtime, then the outcomes, each with an interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from citybrain_datasets.congestion import SLOWEST
from citybrain_datasets.scenarios.air import AirStep
from citybrain_datasets.scenarios.geography import place_of
from citybrain_datasets.scenarios.language import TRAFFIC_LEVERS, Scenario, Weather
from citybrain_datasets.scenarios.outcomes import OUTCOMES, Traffic, air_outcomes, traffic_outcomes
from citybrain_datasets.simulation.emissions import wear
from citybrain_models.onnx_forecaster import open_session
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.inputs import base_inputs, graph_inputs
from citybrain_models.surrogate.levers import LeverArrays, Levers
from citybrain_models.surrogate.network import Base, SurrogateError

BATCH = 32
"""Scenarios in one call of the network. Fixed: another batch may round differently in the last digit."""
USUAL_WEATHER = Weather(ensemble=8)


@dataclass(frozen=True)
class Scores:
    """What a batch of scenarios comes to. ``columns`` are ``NAME``, ``NAME_change``, ``NAME_change_low`` and ``_high``
    of each of :data:`OUTCOMES`, ``[scenario]``; ``labels`` the worst corridor and district; ``grade`` where the change
    comes from; ``outside`` why a scenario lies beyond what was learnt, empty where it does not."""

    columns: Mapping[str, np.ndarray]
    labels: Mapping[str, list[str]]
    grade: list[str]
    outside: list[str]


@dataclass(frozen=True)
class Changed:
    """Traffic of a batch, each ``[scenario, segment, slot]``: the medians, and ``width``, half the distance of the
    outer quantiles of vehicles and of emission ``[scenario, segment, slot, 2]``."""

    flow: np.ndarray
    vehicles: np.ndarray
    emission: np.ndarray
    width: np.ndarray


class Scorer:
    """``base`` is the traffic that the measures meet, the bundle's usual one if not given. ``air`` are air steps by
    weather, beside the usual weather's that the bundle holds; ``weather`` makes those of others."""

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
        self.levers = Levers(bundle.city, bundle.network, bundle.window)
        self.session = open_session(bundle.model, threads)
        wanted = {node.name for node in self.session.get_inputs()}
        fixed = {n: a[None] for n, a in base_inputs(self.network, self.base).items()} | graph_inputs(self.network)
        self.fixed = {name: array for name, array in fixed.items() if name in wanted}
        self.air: dict[Weather, AirStep] = dict(air or {})
        if bundle.air:
            self.air.setdefault(USUAL_WEATHER, air_of(bundle.air))

    def __call__(self, scenarios: Sequence[Scenario]) -> Scores:
        """Scores any number of scenarios, :data:`BATCH` at a time."""
        parts = [self.score(scenarios[i : i + BATCH]) for i in range(0, len(scenarios), BATCH)]
        return Scores(
            {name: np.concatenate([p.columns[name] for p in parts]) for name in (parts[0].columns if parts else ())},
            {name: [v for p in parts for v in p.labels[name]] for name in (parts[0].labels if parts else ())},
            [grade for p in parts for grade in p.grade],
            [why for p in parts for why in p.outside],
        )

    def score(self, scenarios: Sequence[Scenario]) -> Scores:
        """One batch. Raises :class:`CityError` where a scenario names what the city does not have."""
        said = self.levers(scenarios, self.base.flow)
        changed = self.changed(said)
        values, labels = self._outcomes(changed, said, [s.weather for s in scenarios])
        usual, usual_labels = self._usual([s.weather for s in scenarios])
        # Summing in another order may differ in the last digit; what nothing changes is the base to the last digit.
        still = ~said.levers.any(axis=(1, 2, 3))
        roads = still & np.all(said.exhaust == 1, axis=(1, 2))
        breath = self._sectors_rest(said)
        columns: dict[str, np.ndarray] = {}
        for name in OUTCOMES:
            alike = roads & breath if name in _AIR else (still if name != "emission_kg" else roads)
            value = np.where(alike, usual[name], values[name])
            width = np.where(alike, 0.0, self._width(name, changed))
            columns |= self._columns(name, value, value - usual[name], width)
        for name, ends in labels.items():
            same = np.asarray(still if name == "worst_corridor" else roads & breath)
            labels[name] = [u if s else v for u, v, s in zip(usual_labels[name], ends, same, strict=True)]
        grade = ["surrogate" if set(s.levers) & set(TRAFFIC_LEVERS) else "literature" for s in scenarios]
        return Scores(columns, labels, grade, self.bundle.reach.outside(said.levers))

    def changed(self, said: LeverArrays) -> Changed:
        """Runs the network on one batch of lever arrays."""
        change = self.session.run(None, {"levers": said.levers, "closed": said.closed, **self.fixed})[0]
        middle = self.bundle.quantiles.index(0.5)
        flow, vehicles, emission = (self.base.signals + change[..., middle]).transpose(3, 0, 1, 2)
        width = (change[..., 1:, -1] - change[..., 1:, 0]) / 2
        return Changed(flow, vehicles, np.maximum(emission, 0), width)

    def traffic(self, changed: Changed, exhaust: np.ndarray | None = None) -> Traffic:
        """Traffic ``[scenario, slot, segment]``; ``exhaust`` factors act on what is not worn off tyres and brakes."""
        length = (self.network.length_m / 1000)[:, None]
        pace = np.divide(changed.flow, changed.vehicles, out=np.zeros_like(changed.flow), where=changed.vehicles > 0)
        free = self.network.free_speed_kmh[:, None]
        speed = np.where((changed.flow > 0) & (changed.vehicles > 0), pace * length, free)
        speed = np.clip(speed, SLOWEST, np.maximum(self._fastest, free))
        emission = changed.emission
        if exhaust is not None and (exhaust != 1).any():
            worn = wear(speed, changed.flow * length)
            emission = emission - np.maximum(emission - worn, 0) * (1 - exhaust)
        speed, flow, emission = (a.astype(np.float32).swapaxes(1, 2) for a in (speed, changed.flow, emission))
        return Traffic(speed, flow, emission)

    @cached_property
    def _fastest(self) -> np.ndarray:
        """Nobody drives more than half again as fast as is free, or as was usual: ``[segment, 1]``."""
        return 1.5 * self.network.free_speed_kmh[:, None]

    def _outcomes(
        self, changed: Changed, said: LeverArrays, weathers: Sequence[Weather]
    ) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
        traffic = self.traffic(changed, said.exhaust)
        values, corridor = traffic_outcomes(traffic, self.place)
        labels = {"worst_corridor": [self.place.corridors[i] for i in corridor], "worst_district": [""] * len(corridor)}
        for weather in dict.fromkeys(weathers):
            rows = np.array([i for i, w in enumerate(weathers) if w == weather])
            sectors = {name: factors[rows] for name, factors in said.sectors.items()}
            breathed, district = air_outcomes(self._pm25(weather, traffic.emission[rows], sectors), self.place)
            for name, value in breathed.items():
                values.setdefault(name, np.full(len(weathers), np.nan))[rows] = value
            for row, index in zip(rows, district, strict=True):
                labels["worst_district"][row] = self.place.districts[index]
        return values, labels

    def _usual(self, weathers: Sequence[Weather]) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
        """Outcomes of the base, in each scenario's weather."""
        found = [self._base_outcomes(weather) for weather in weathers]
        values = {name: np.array([v[name] for v, _ in found]) for name in OUTCOMES}
        return values, {name: [labels[name] for _, labels in found] for name in found[0][1]}

    def _base_outcomes(self, weather: Weather) -> tuple[dict[str, float], dict[str, str]]:
        if weather not in self._bases:
            flow, vehicles, emission = self.base.signals.transpose(2, 0, 1)[:, None]
            none = np.zeros((*flow.shape, 2), np.float32)
            nothing = LeverArrays(none, flow, np.ones_like(flow), {})
            values, labels = self._outcomes(Changed(flow, vehicles, emission, none), nothing, [weather])
            self._bases[weather] = (
                {name: float(v[0]) for name, v in values.items()},
                {name: v[0] for name, v in labels.items()},
            )
        return self._bases[weather]

    @cached_property
    def _bases(self) -> dict[Weather, tuple[dict[str, float], dict[str, str]]]:
        return {}

    def _pm25(self, weather: Weather, emission: np.ndarray, sectors: Mapping[str, np.ndarray]) -> np.ndarray:
        """µg/m³ ``[scenario, hour, receptor]``."""
        if weather not in self.air:
            if self._weather is None:
                raise SurrogateError(f"the surrogate holds no weather but the usual; {_told(weather)} needs the city")
            self.air[weather] = self._weather(weather)
        step = self.air[weather]
        pm25 = step.pm25(emission)
        acted = [i for i in range(len(emission)) if any((f[i] != 1).any() for f in sectors.values())]
        for row in acted:
            # The step counts its factors from the warm-up on, which leaves no trace in a window.
            factors = {name: np.r_[[1.0, 1.0], f[row]] for name, f in sectors.items()}
            gone = step.background() - step.background(factors)
            pm25[row] -= gone.reshape(-1, gone.shape[-1])
        return pm25

    @staticmethod
    def _sectors_rest(said: LeverArrays) -> np.ndarray:
        rest = [(factors == 1).all(axis=1) for factors in said.sectors.values()]
        return np.logical_and.reduce(rest) if rest else np.ones(len(said.levers), bool)

    def _width(self, name: str, changed: Changed) -> np.ndarray:
        return width_of(name, changed.width)

    def _columns(self, name: str, value: np.ndarray, change: np.ndarray, width: np.ndarray) -> dict[str, np.ndarray]:
        low, high = self.bundle.margins.get(name, (0.0, 0.0))
        return {
            name: value,
            f"{name}_change": change,
            f"{name}_change_low": np.minimum(change + low * width, change),
            f"{name}_change_high": np.maximum(change + high * width, change),
        }


def _told(weather: Weather) -> str:
    return ", ".join(f"{k} {v}" for k, v in weather.model_dump(mode="json", exclude_none=True).items())


_AIR = ("pm25_stations", "pm25_people", "exceedance_h", "worst_district_pm25")


def width_of(name: str, width: np.ndarray) -> np.ndarray:
    """How unsure the surrogate is of an outcome, up to a factor that calibration finds: the root of the summed squares
    of its own widths ``[scenario, segment, slot, 2]``, of emission for what is emitted and breathed, else of
    vehicles."""
    chosen = width[..., 1] if name in _AIR or name == "emission_kg" else width[..., 0]
    return np.sqrt(np.square(chosen, dtype=float).sum(axis=(1, 2)))


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
    from citybrain_datasets.scenarios.air import Composition

    shares = dict(zip(sorted(Composition.model_fields), map(float, arrays["composition"]), strict=True))
    return AirStep(arrays["matrix"], arrays["regional"], arrays["local"], Composition(**shares))
