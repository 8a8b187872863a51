"""Event forecasts scored on a preparation's test windows, and pictures of how far to trust their probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from citybrain_datasets.city import City
from citybrain_models.events import ONSET, Events, fit_dependence
from citybrain_models.forecaster import Forecaster
from citybrain_training.preparation import Preparation

BATCH = 64


@dataclass(frozen=True)
class EventScores:
    """``tables[event][metric]``, ``reliability[event]`` rows of forecasts, mean probability and share that happened,
    and the ``dependence`` of leads that the validation windows showed."""

    tables: dict[str, dict[str, float]]
    reliability: dict[str, list[list[float]]]
    dependence: float


def score_events(forecaster: Forecaster, preparation: Preparation) -> EventScores:
    """Scores the events of the test windows."""
    dependence = learnt_dependence(forecaster, preparation)
    events = Events(preparation.task, free_speed(preparation.city), dependence)
    source, test = preparation.source, preparation.split.test
    for first in range(0, len(test), BATCH):
        issues = test[first : first + BATCH]
        window = source.window(issues)
        events.add(window, forecaster.forecast(window), source.answer(issues).transpose(0, 2, 1))
    tables = {name: table for name, counts in events.counts.items() if (table := counts.table())}
    return EventScores(tables, {name: events.counts[name].reliability() for name in tables}, dependence)


def free_speed(city: City) -> np.ndarray | None:
    """Free-flow speed of every road in km/h, ``[road]``; None where no road has one."""
    roads = city.nodes.get("road")
    if roads is None or "free_speed_kmh" not in roads:
        return None
    return roads["free_speed_kmh"].to_numpy(float)


def learnt_dependence(forecaster: Forecaster, preparation: Preparation, most: int = 1_000) -> float:
    """How leads go together in a forecaster's errors, θ of :func:`~citybrain_models.events.probability_of_any`:
    learnt from at most ``most`` validation windows, never from the test."""
    issues = preparation.split.validate[:: max(1, len(preparation.split.validate) // most)]
    events, source = Events(preparation.task, free_speed(preparation.city)), preparation.source
    chances, outcomes = [], []
    for first in range(0, len(issues), BATCH):
        chosen = issues[first : first + BATCH]
        window = source.window(chosen)
        truth = source.answer(chosen).transpose(0, 2, 1)
        found = events.occasions(window, forecaster.forecast(window), truth).get(ONSET)
        if found is None or found.leads is None:
            return 0.0
        chances.append(found.leads[found.known])
        outcomes.append(found.outcome[found.known])
    return fit_dependence(np.concatenate(chances), np.concatenate(outcomes))


def draw_reliability(scores: Mapping[str, EventScores]) -> Figure:
    """Forecast probability against the share that happened, one panel an event, one line a model."""
    names = list(dict.fromkeys(name for found in scores.values() for name in found.tables))
    figure, row = plt.subplots(
        1, max(len(names), 1), figsize=(3.4 * max(len(names), 1), 3.6), layout="constrained", squeeze=False
    )
    for axes, name in zip(row[0], names, strict=False):
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.7, linestyle="--")
        for model, found in scores.items():
            rows = np.asarray(found.reliability.get(name, np.zeros((0, 3))))
            axes.plot(rows[:, 1], rows[:, 2], marker=".", label=model)
        axes.set(xlabel="forecast probability", ylabel="share that happened", xlim=(0, 1), ylim=(0, 1))
        axes.set_title(name, fontsize="small")
    if names:
        row[0, 0].legend(fontsize="x-small")
    return figure


def save_reliability(scores: Mapping[str, EventScores], path: Path) -> None:
    """Writes the picture of :func:`draw_reliability`, PNG, SVG or PDF by the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = draw_reliability(scores)
    figure.savefig(path, dpi=110)
    plt.close(figure)
