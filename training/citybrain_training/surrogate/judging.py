"""What a surrogate says beside what the simulator said, outcome by outcome."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from citybrain_datasets.scenarios.actions import compile_actions
from citybrain_datasets.scenarios.air import AirStep
from citybrain_datasets.scenarios.geography import place_of
from citybrain_datasets.scenarios.outcomes import OUTCOMES, air_outcomes, traffic_outcomes
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import Base
from citybrain_models.surrogate.scorer import Scorer, air_of
from citybrain_training.surrogate.runs import Study

ROUNDING = 1e-3
"""Spreads of a change that sums of single precision may differ by: a measure on exhaust alone is told exactly, without
a width, and yet by other sums than the simulator's."""
Judge = Callable[[Study, AirStep], pd.DataFrame]
"""Says the change of each outcome for every run of a study: columns ``NAME``, and ``NAME_low``, ``NAME_high`` if it
knows an interval."""


def truth(study: Study, step: AirStep) -> pd.DataFrame:
    """The simulated change of each outcome, a row for each run, and ``station_I``, of PM2.5 at each station."""
    place = place_of(study.site.city)
    rows = []
    for run in study.runs:
        sectors = compile_actions(run.scenario, study.site.city, run.window).sectors
        sides = []
        for traffic, factors in ((run.traffic, sectors), (run.base, None)):
            pm25 = step.pm25(traffic.emission, factors)
            breathed = air_outcomes(pm25, place)[0]
            stations = {f"station_{i}": v for i, v in enumerate(pm25[:, : len(place.stations)].mean(axis=0))}
            sides.append({**traffic_outcomes(traffic, place)[0], **breathed, **stations})
        after, before = sides
        rows.append({name: float(after[name] - before[name]) for name in after})
    return pd.DataFrame(rows)


def judge(bundle: SurrogateBundle) -> Judge:
    """The surrogate itself, on the base of each run."""

    def say(study: Study, step: AirStep) -> pd.DataFrame:
        frames = []
        for replication in sorted({run.replication for run in study.runs}):
            rows = [i for i, run in enumerate(study.runs) if run.replication == replication]
            frames.append(_of_one_base(bundle, study, rows, step))
        return pd.concat(frames).sort_index()

    return say


def _of_one_base(bundle: SurrogateBundle, study: Study, rows: list[int], step: AirStep) -> pd.DataFrame:
    run = study.runs[rows[0]]
    base = Base.of(run.base, study.network.length_m, study.usual.slot_seconds)
    scenarios = [study.runs[i].scenario for i in rows]
    weathers = {scenario.weather: step for scenario in scenarios}
    scorer = Scorer(bundle, base=base, air=weathers)
    found = scorer(scenarios)
    columns = {}
    for name in OUTCOMES:
        columns[name] = found.columns[f"{name}_change"]
        columns[f"{name}_low"] = found.columns[f"{name}_change_low"]
        columns[f"{name}_high"] = found.columns[f"{name}_change_high"]
    usual = step.pm25(run.base.emission).mean(axis=0)
    said = scorer.levers(scenarios, base.flow)
    emission = scorer.traffic(scorer.changed(said), said.exhaust).emission
    for station in range(len(scorer.place.stations)):
        columns[f"station_{station}"] = step.pm25(emission)[..., station].mean(axis=1) - usual[station]
    return pd.DataFrame(columns, index=rows).assign(outside=found.outside)


def margins(said: pd.DataFrame, true: pd.DataFrame, level: float = 0.9) -> dict[str, float]:
    """How many widths of the surrogate's own hold ``level`` of the errors, for each outcome.

    ``said`` is of a bundle whose margins are 1, so that its bounds are a width away. Split conformal prediction with a
    normalised score (Lei et al. 2018): the score at place ``level`` · (n + 1) of n, on a line between neighbours. What
    has no width, because no measure acts on it, is known without a margin and left out.
    """
    found = {}
    for name in OUTCOMES:
        width = (said[f"{name}_high"] - said[name]).to_numpy()
        error = (true[name] - said[name]).abs().to_numpy()
        known = (width > 0) & np.isfinite(error)
        score = error[known] / width[known]
        found[name] = float(np.quantile(score, level, method="weibull")) if len(score) else 0.0
    return found


def coverage_spread(calibrated: int, tested: int, level: float = 0.9) -> float:
    """Standard deviation, by chance alone, of the measured coverage of intervals that were fitted on ``calibrated``
    scenarios and judged on ``tested`` others.

    What they cover in truth is Beta distributed about ``level`` (Vovk 2012), and of so many tested it is a part.
    """
    return float(np.sqrt(level * (1 - level) * (1 / (calibrated + 2) + 1 / tested)))


def table(said: pd.DataFrame, true: pd.DataFrame) -> dict[str, dict[str, float]]:
    """For each outcome and for ``stations``, PM2.5 at every station of every run: Spearman's rank correlation of the
    change, median absolute error and the same in spreads (standard deviations of the true change), coverage.

    The last digits of a sum depend on its order: what is off by less than :data:`ROUNDING` spreads is not off.
    """
    stations = [c for c in map(str, true) if c.startswith("station_") and c in said]
    result = {}
    for name in OUTCOMES:
        if name in said and true[name].notna().any():
            result[name] = _row(said[name].to_numpy(), true[name].to_numpy())
            if f"{name}_low" in said:
                beyond = np.maximum(said[f"{name}_low"] - true[name], true[name] - said[f"{name}_high"])
                result[name]["coverage"] = float((beyond <= ROUNDING * result[name]["spread"]).mean())
    if stations:
        result["stations"] = _row(said[stations].to_numpy().ravel(), true[stations].to_numpy().ravel())
    return result


def expected(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """Means over the mornings of each scenario, of a frame with a row for each run of ``study``."""
    return frame.select_dtypes("number").groupby(study.scenario).mean()


def halves(study: Study, true: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """The simulator beside itself: means over every other morning of each scenario, and over the rest.

    None where scenarios were not simulated on several mornings.
    """
    turn = pd.Series(study.scenario).groupby(study.scenario).cumcount().to_numpy()
    if not (np.bincount(study.scenario) > 1).all():
        return None
    first, second = (true[turn % 2 == side].groupby(study.scenario[turn % 2 == side]).mean() for side in (0, 1))
    return first, second


def bundle_step(bundle: SurrogateBundle) -> AirStep:
    return air_of(bundle.air)


def _row(said: np.ndarray, true: np.ndarray) -> dict[str, float]:
    error, spread = np.abs(said - true), float(np.std(true))
    ranks = pd.Series(said).corr(pd.Series(true), method="spearman") if np.ptp(said) > 0 and spread > 0 else 0.0
    row = {
        "spearman": float(ranks),
        "median_absolute_error": float(np.median(error)),
        "mean_absolute_error": float(error.mean()),
        "spread": spread,
        "median_error_in_spreads": float(np.median(error) / spread) if spread > 0 else 0.0,
    }
    return {name: value for name, value in row.items() if np.isfinite(value)}
