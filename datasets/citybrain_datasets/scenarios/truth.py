"""What SUMO makes of scenarios: base and measures on the same trips, replicated, cached by content."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.processes import end_with_parent
from citybrain_datasets.scenarios.actions import STEP_MINUTES, WARM_UP, Actions, Window, compile_actions
from citybrain_datasets.scenarios.air import AirAssumptions, AirStep, air_step
from citybrain_datasets.scenarios.checking import no_purposes
from citybrain_datasets.scenarios.files import load_traffic, save_traffic
from citybrain_datasets.scenarios.language import TRAFFIC_LEVERS, Scenario, Weather
from citybrain_datasets.scenarios.mesoscopic import run
from citybrain_datasets.scenarios.outcomes import Traffic
from citybrain_datasets.scenarios.site import Site
from citybrain_datasets.scenarios.trips import apply_to_trips
from citybrain_datasets.scenarios.weather import weather_hours
from citybrain_datasets.simulation.disruptions import rain_factor

MODEL = 3
"""Grows when the same scenario would be simulated otherwise; a part of every cache key."""


@dataclass(frozen=True)
class Truth:
    """One scenario simulated: traffic ``[replication, step, segment]`` and PM2.5 ``[replication, hour, receptor]``,
    hours running over the days of the weather; of the scenario and of its base on the same trips."""

    scenario: Scenario
    traffic: Traffic
    base: Traffic
    pm25: np.ndarray
    base_pm25: np.ndarray


def simulate(site: Site, scenario: Scenario, replication: int, window: Window, *, wet: bool = False) -> Traffic:
    """Traffic of ``scenario`` on the demand of ``replication``: ``[step, segment]`` of ``window``.

    ``wet`` lets the rain of a scenario's weather ``case`` slow it; a base to compare with must then be wet as well.
    """
    actions = compile_actions(scenario, site.city, window)
    if not site.purposes and any(rule.purposes for rule in actions.trips):
        raise CityError([Problem(f"scenario {scenario.id}", no_purposes(site.city))])
    if wet and scenario.weather.case is not None:
        _rain(site, actions, scenario.weather, window)
    trips = apply_to_trips(site.trips(replication, window), actions, site.segments)
    return run(site.network, site.segments, site.city.edges["road-road"], trips, actions)


def run_jobs(jobs: Sequence[Callable[[], None]], workers: int, progress: Callable[[int], None]) -> None:
    """Runs picklable ``jobs``, ``workers`` at the same time; ``progress`` is told how many are done. Broken off, what
    has begun is finished and nothing more begins."""
    if workers <= 1:
        for number, job in enumerate(jobs, start=1):
            job()
            progress(number)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    try:
        for number, future in enumerate(as_completed([pool.submit(job) for job in jobs]), start=1):
            future.result()
            progress(number)
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Simulator:
    """Runs scenarios of one site and window; ``cache`` keeps every simulated window by its content."""

    site: Site
    cache: Path
    window: Window = field(default_factory=Window)
    replications: int = 3
    assumptions: AirAssumptions = field(default_factory=AirAssumptions)

    def run_all(
        self, scenarios: Iterable[Scenario], workers: int = 1, progress: Callable[[int, int], None] = lambda n, of: None
    ) -> None:
        """Simulates whatever ``scenarios`` and their bases need and the cache lacks, ``workers`` at the same time.

        ``progress`` is told how many windows are done and how many there are. Broken off, a second call goes on.
        """
        jobs: dict[Path, tuple[Scenario, int]] = {}
        for scenario in scenarios:
            for each in (scenario, _base_of(scenario)):
                for replication in range(self.replications):
                    jobs.setdefault(self._path(each, replication), (each, replication))
        todo = [partial(self._simulate, *job) for path, job in jobs.items() if not _sound(path)]
        self.cache.mkdir(parents=True, exist_ok=True)
        done = len(jobs) - len(todo)
        progress(done, len(jobs))
        run_jobs(todo, workers, lambda n: progress(done + n, len(jobs)))

    def truth(self, scenario: Scenario) -> Truth:
        """The result of ``scenario``; simulates what is not in the cache."""
        self.run_all([scenario])
        base, traffic = (self.traffic(s) for s in (_base_of(scenario), scenario))
        step = self.air(scenario.weather, base)
        sectors = compile_actions(scenario, self.site.city, self.window).sectors
        return Truth(scenario, traffic, base, step.pm25(traffic.emission, sectors), step.pm25(base.emission))

    def air(self, weather: Weather, base: Traffic) -> AirStep:
        """The air of ``weather``; computed once for each weather and base."""
        key = (self.site.key, weather.model_dump_json(), self.window.model_dump_json(),
               self.assumptions.model_dump_json(), hashlib.sha256(base.emission.tobytes()).hexdigest())  # fmt: skip
        if key not in _AIR:
            if len(_AIR) >= _MOST_AIR:
                _AIR.pop(next(iter(_AIR)))
            mean = base.emission.mean(axis=0)
            _AIR[key] = air_step(self.site, weather, self.window, self.assumptions, mean)
        return _AIR[key]

    def traffic(self, scenario: Scenario) -> Traffic:
        """Of every replication, ``[replication, step, segment]``, from the cache."""
        kept = [load_traffic(self._path(scenario, r))[3] for r in range(self.replications)]
        return Traffic(*(np.stack([getattr(k, n) for k in kept]) for n in ("speed", "flow", "emission")))

    def _path(self, scenario: Scenario, replication: int) -> Path:
        """Named by all that the traffic depends on: neither the id nor a lever on the air alone is part of it, nor a
        rule that nobody keeps."""
        measures = [
            m.model_dump(mode="json", exclude={"cost"})
            for m in scenario.measures
            if m.kept and (m.lever in TRAFFIC_LEVERS or m.lever == "vehicles")
        ]
        case = scenario.weather.case
        content = [MODEL, version("eclipse-sumo"), self.site.key, self.site.informed_share,
                   self.window.model_dump(mode="json"), replication, measures, str(case)]  # fmt: skip
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
        return self.cache / f"{digest}.npz"

    def _simulate(self, scenario: Scenario, replication: int) -> None:
        traffic = simulate(self.site, scenario, replication, self.window, wet=True)
        save_traffic(self._path(scenario, replication), traffic, scenario, replication, self.window)


_AIR: dict[tuple[str, ...], AirStep] = {}
_MOST_AIR = 16


def _rain(site: Site, actions: Actions, weather: Weather, window: Window) -> None:
    """Lowers all limits by the rain of the day that ``weather`` names."""
    hours = weather_hours(site.city, weather, window)
    wet = np.repeat(rain_factor(hours.precipitation[0]), 60 // STEP_MINUTES)
    actions.limit_kmh *= np.r_[np.repeat(wet[:1], WARM_UP), wet][:, None]


def _base_of(scenario: Scenario) -> Scenario:
    return Scenario(id="base", weather=scenario.weather)


def _sound(path: Path) -> bool:
    """Whether a simulated window is there and whole; a damaged one is removed, to be simulated again."""
    if not path.exists():
        return False
    try:
        load_traffic(path)
    except CityError:
        path.unlink()
        return False
    return True
