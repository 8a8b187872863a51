"""The best scenarios once more, through SUMO: how far off was the surrogate?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from citybrain_datasets.scenarios.actions import compile_actions
from citybrain_datasets.scenarios.air import AirStep, air_step
from citybrain_datasets.scenarios.dataset import simulate
from citybrain_datasets.scenarios.geography import place_of
from citybrain_datasets.scenarios.language import Scenario, Weather
from citybrain_datasets.scenarios.outcomes import OUTCOMES, air_outcomes, traffic_outcomes
from citybrain_datasets.scenarios.site import open_site
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import Base
from citybrain_models.surrogate.scorer import Scorer
from citybrain_serving.scenarios.engine import Work

REPLICATIONS = 2


def verify(
    work: Work,
    ranked: pa.Table,
    count: int,
    *,
    replications: int = REPLICATIONS,
    progress: Callable[[int], None] = lambda done: None,
) -> pa.Table:
    """Simulates the first ``count`` scenarios of a ranking, each on the same ``replications`` mornings as its base.

    A row an outcome and scenario: what the ranking said, against a usual day; what the surrogate says of the very
    mornings that were simulated, with its interval; what SUMO says of them; half the range of that; how far the
    surrogate was off; and whether its interval held. Means over the mornings. Raises ``SimulationError`` without SUMO.
    """
    bundle, site = SurrogateBundle.read(work.surrogate), open_site(work.city)
    place, seconds = place_of(bundle.city), bundle.usual.slot_seconds
    bases = [simulate(site, Scenario(id="base"), r, bundle.window) for r in range(replications)]
    steps: dict[Weather, AirStep] = {}

    def weather(asked: Weather) -> AirStep:
        if asked not in steps:
            steps[asked] = air_step(site, asked, bundle.window, base_emission=bundle.usual.emission.T)
        return steps[asked]

    mornings = [Base.of(traffic, bundle.network.length_m, seconds) for traffic in bases]
    scorers = [Scorer(bundle, base=morning, weather=weather) for morning in mornings]
    rows = []
    for index, row in enumerate(ranked.slice(0, count).to_pylist()):
        scenario = work.scenarios[row["position"]]
        said = [scorer([scenario]).columns for scorer in scorers]
        step = scorers[0].air.get(scenario.weather) or weather(scenario.weather)
        sectors = compile_actions(scenario, site.city, bundle.window).sectors
        changes: dict[str, list[float]] = {name: [] for name in OUTCOMES}
        for replication, base in enumerate(bases):
            after = simulate(site, scenario, replication, bundle.window)
            sides = [
                {**traffic_outcomes(t, place)[0], **air_outcomes(step.pm25(t.emission, s), place)[0]}
                for t, s in ((after, sectors), (base, None))
            ]
            for name, values in changes.items():
                values.append(float(sides[0][name] - sides[1][name]))
        rows += [_row(row, name, said, values) for name, values in changes.items()]
        progress(index + 1)
    return pa.Table.from_pylist(rows)


def verified_path(out: Path) -> Path:
    """Where the comparison of a ranking ``out`` goes."""
    return out.with_name(f"{out.stem}.verified.parquet")


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
