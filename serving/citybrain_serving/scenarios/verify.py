"""The best scenarios once more, through SUMO: how far off was the surrogate?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from citybrain_datasets.scenarios.actions import compile_actions
from citybrain_datasets.scenarios.air import air_step
from citybrain_datasets.scenarios.dataset import simulate
from citybrain_datasets.scenarios.geography import place_of
from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.outcomes import OUTCOMES, air_outcomes, traffic_outcomes
from citybrain_datasets.scenarios.site import open_site
from citybrain_models.surrogate.bundle import SurrogateBundle
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

    A row an outcome and scenario: what the surrogate said with its interval, what SUMO says as the mean over the
    replications, half the range of those, how far the surrogate was off, and whether its interval held.
    Raises ``SimulationError`` without SUMO.
    """
    bundle = SurrogateBundle.read(work.surrogate)
    site, place = open_site(work.city), place_of(bundle.city)
    steps = {}
    bases = [simulate(site, Scenario(id="base"), r, bundle.window) for r in range(replications)]
    rows = []
    for index, row in enumerate(ranked.slice(0, count).to_pylist()):
        scenario = work.scenarios[row["position"]]
        if scenario.weather not in steps:
            steps[scenario.weather] = air_step(
                site, scenario.weather, bundle.window, base_emission=bundle.usual.emission.T
            )
        step, sectors = steps[scenario.weather], compile_actions(scenario, site.city, bundle.window).sectors
        changes: dict[str, list[float]] = {name: [] for name in OUTCOMES}
        for replication, base in enumerate(bases):
            after = simulate(site, scenario, replication, bundle.window)
            sides = [
                {**traffic_outcomes(t, place)[0], **air_outcomes(step.pm25(t.emission, s), place)[0]}
                for t, s in ((after, sectors), (base, None))
            ]
            for name, values in changes.items():
                values.append(float(sides[0][name] - sides[1][name]))
        rows += [_row(row, name, values) for name, values in changes.items()]
        progress(index + 1)
    return pa.Table.from_pylist(rows)


def verified_path(out: Path) -> Path:
    """Where the comparison of a ranking ``out`` goes."""
    return out.with_name(f"{out.stem}.verified.parquet")


def _row(row: dict[str, object], name: str, simulated: list[float]) -> dict[str, object]:
    said, low, high = (float(row[f"{name}_change{end}"]) for end in ("", "_low", "_high"))  # type: ignore[arg-type]  # numbers, by the schema
    mean = float(np.mean(simulated))
    return {
        "rank": row["rank"],
        "id": row["id"],
        "outcome": name,
        "unit": OUTCOMES[name].unit,
        "surrogate": said,
        "surrogate_low": low,
        "surrogate_high": high,
        "simulated": mean,
        "simulated_half_range": float(np.ptp(simulated) / 2),
        "off_by": said - mean,
        "held": bool(low <= mean <= high),
    }
