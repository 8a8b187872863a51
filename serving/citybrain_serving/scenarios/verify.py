"""The best scenarios once more, through SUMO: how far off was the surrogate?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from citybrain_datasets.scenarios.actions import compile_actions
from citybrain_datasets.scenarios.air import AirStep, air_step
from citybrain_datasets.scenarios.geography import place_of
from citybrain_datasets.scenarios.language import Scenario, Weather
from citybrain_datasets.scenarios.outcomes import OUTCOMES, Traffic, air_outcomes, traffic_outcomes
from citybrain_datasets.scenarios.site import open_site
from citybrain_datasets.scenarios.truth import Simulator
from citybrain_datasets.simulation.network import sumo_binary
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import Base
from citybrain_models.surrogate.scorer import USUAL_WEATHER, Scorer
from citybrain_serving.scenarios.engine import Work

REPLICATIONS = 2


def check_simulator(city: str) -> None:
    """Raises ``SimulationError`` without SUMO, :class:`CityError` where the city has no trips to simulate."""
    sumo_binary("sumo")
    open_site(city)


def verify(
    work: Work,
    ranked: pa.Table,
    count: int,
    cache: Path,
    *,
    replications: int = REPLICATIONS,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> pa.Table:
    """Simulates the first ``count`` scenarios of a ranking, each on the same ``replications`` mornings as its base.

    Every simulated morning is kept in ``cache``, so that a second call goes on after them; ``workers`` simulate at the
    same time, and ``progress`` is told how many mornings are done and how many there are.

    A row an outcome that the city has and scenario: what the ranking said, against a usual day; what the surrogate says
    of the very mornings that were simulated, with its interval; what SUMO says of them; half the range of that; how far
    the surrogate was off; and whether its interval held. Means over the mornings. Raises ``SimulationError`` without
    SUMO.
    """
    bundle, site = SurrogateBundle.read(work.surrogate), open_site(work.city)
    simulator = Simulator(site, cache, bundle.window, replications)
    rows = ranked.slice(0, count).to_pylist()
    scenarios = [work.scenarios[row["position"]] for row in rows]
    simulator.run_all(map(_dry, scenarios), workers, progress)
    place, seconds = place_of(bundle.city), bundle.usual.slot_seconds
    bases = _each(simulator.traffic(Scenario(id="base")))
    steps: dict[Weather, AirStep] = {}

    def weather(asked: Weather) -> AirStep:
        if asked not in steps:
            steps[asked] = air_step(site, asked, bundle.window, base_emission=bundle.usual.emission.T)
        return steps[asked]

    mornings = [Base.of(traffic, bundle.network.length_m, seconds) for traffic in bases]
    scorers = [Scorer(bundle, base=morning, weather=weather) for morning in mornings]
    found = []
    for row, scenario in zip(rows, scenarios, strict=True):
        said = [scorer([scenario]).columns for scorer in scorers]
        step = scorers[0].air.get(scenario.weather) or weather(scenario.weather)
        sectors = compile_actions(scenario, site.city, bundle.window).sectors
        changes: dict[str, list[float]] = {name: [] for name in OUTCOMES}
        for after, base in zip(_each(simulator.traffic(_dry(scenario))), bases, strict=True):
            sides = [
                {**traffic_outcomes(t, place)[0], **air_outcomes(step.pm25(t.emission, s), place)[0]}
                for t, s in ((after, sectors), (base, None))
            ]
            for name, values in changes.items():
                values.append(float(sides[0][name] - sides[1][name]))
        found += [_row(row, name, said, values) for name, values in changes.items() if np.isfinite(values).all()]
    return pa.Table.from_pylist(found)


def verified_path(out: Path) -> Path:
    """Where the comparison of a ranking ``out`` goes."""
    return out.with_name(f"{out.stem}.verified.parquet")


def _dry(scenario: Scenario) -> Scenario:
    """The surrogate knows weather in the air alone: its traffic is held against that of dry mornings."""
    return scenario.model_copy(update={"weather": USUAL_WEATHER})


def _each(mornings: Traffic) -> list[Traffic]:
    """Traffic ``[replication, step, segment]`` one by one."""
    return [Traffic(*one) for one in zip(mornings.speed, mornings.flow, mornings.emission, strict=True)]


def _row(
    row: Mapping[str, Any], name: str, said: Sequence[Mapping[str, np.ndarray]], simulated: Sequence[float]
) -> dict[str, object]:
    change, low, high = (float(np.mean([s[f"{name}_change{end}"][0] for s in said])) for end in ("", "_low", "_high"))
    mean = float(np.mean(simulated))
    # Where nothing is guessed the interval is a point, which sums in another order may miss by the last digits.
    slack = 1e-4 * abs(mean)
    return {
        "rank": row["rank"],
        "id": row["id"],
        "outcome": name,
        "unit": OUTCOMES[name].unit,
        "ranked": row[f"{name}_change"],
        "surrogate": change,
        "surrogate_low": low,
        "surrogate_high": high,
        "simulated": mean,
        "simulated_half_range": float(np.ptp(simulated) / 2),
        "off_by": change - mean,
        "held": bool(low - slack <= mean <= high + slack),
    }
