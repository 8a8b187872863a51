"""The model card: what a bundle is, what it was trained on, how well it does and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from citybrain_datasets.signals import KINDS
from citybrain_training.config import ExportConfig
from citybrain_training.fitting import Fitted
from citybrain_training.preparation import Preparation
from citybrain_training.traffic_ahead import TrafficAhead


def model_card(
    preparation: Preparation,
    fitted: Fitted,
    tables: Mapping[str, Mapping[str, Mapping[str, float]]],
    precision: Mapping[str, Any] | None = None,
) -> str:
    """Markdown. ``tables`` are the test scores by model, this one's first; ``precision`` is what was found of another
    precision than float32, where one was asked for."""
    task, city, split = preparation.task, preparation.city, preparation.split
    unit = KINDS[task.target].unit
    ahead = (*task.known_future, *(task.context_ahead or ())[:1])
    leads = [
        task.lead_label(i) for i in sorted({task.horizon // 4 - 1, task.horizon // 2 - 1, task.horizon - 1}) if i >= 0
    ]
    lines = [
        f"# {city.title or city.name}: {task.name}",
        "",
        *(["**The city is synthetic. Its figures say nothing about a real one.**", ""] if city.synthetic else []),
        f"Quantiles {', '.join(f'{q:g}' for q in task.quantiles)} of {KINDS[task.target].title} ({unit}) at "
        f"{len(city.ids(task.node))} {task.node} nodes, {task.horizon} steps of {task.step_minutes} min ahead.",
        "",
        "## Data",
        f"- Source: {city.attribution or 'not stated'}",
        f"- Issue times: train {_span(split.train)}, validation {_span(split.validate)}, test {_span(split.test)}",
        f"- Inputs: {', '.join((task.target, *task.inputs, *task.context))}; nothing later than the issue time"
        + (f", except forecasts of {', '.join(ahead)}" if ahead else ""),
        *([_foresight(preparation)] if task.known_future else []),
        *([_traffic_ahead(preparation.source)] if isinstance(preparation.source, TrafficAhead) else []),
        "",
        "## Model",
        f"CityNet, {fitted.parameters:,} parameters, {fitted.epochs} epochs, {fitted.cpu_seconds / 60:.1f} CPU "
        f"minutes, seed {preparation.config.seed}.",
        *([_precision(precision, preparation.config.export)] if precision else []),
        "",
        f"## Scores on the test windows ({unit})",
        "| model | " + " | ".join(f"MAE {lead}" for lead in leads) + " | MAE mean | coverage | width |",
        "|---" * (len(leads) + 4) + "|",
    ]
    nominal = task.quantiles[-1] - task.quantiles[0]
    for name, table in tables.items():
        cells = [f"{table[lead]['mae']:.3f}" for lead in leads]
        mean = table["mean"]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {mean['mae']:.3f} | {mean['coverage']:.1%} | {mean['width']:.2f} |"
        )
    lines += [
        "",
        f"Coverage is the share of outcomes inside the outer quantiles, which promise {nominal:.0%}.",
        "",
        "## Limits",
        "- Fitted to observations, not causal: it says what is likely, not what a measure would do.",
        "- Learned embeddings belong to the listed nodes; a sensor it has not seen is forecast without one.",
        "- Conformal calibration holds for months like the validation months; the service adapts it online.",
    ]
    return "\n".join(lines) + "\n"


def _precision(found: Mapping[str, Any], asked: ExportConfig) -> str:
    cost = f"on validation windows {asked.precision} costs {100 * found['cost']:+.2f} % of error or pinball loss"
    return f"Served in {found['served']}: {cost}, of which {100 * asked.most_cost:.2g} % are allowed."


def _foresight(preparation: Preparation) -> str:
    first, last = preparation.config.fit.weather_error
    return (
        "- Weather ahead: what was measured then, in training and calibration with errors of "
        f"{first:g} (first lead) to {last:g} (last) of its standard deviation and withheld from "
        f"{preparation.config.fit.weather_withheld:.0%} of the training windows; scored as perfect forecasts"
    )


def _traffic_ahead(source: TrafficAhead) -> str:
    return (
        f"- Traffic ahead: {source.name}, {source.steps} steps; in training what was measured then, made as uncertain "
        f"as a forecast that explains {source.skill[0]:.0%} (first step) to {source.skill[-1]:.0%} (last) of how it "
        "departs from the weekly profile; calibrated and scored with such a forecast, made from the window alone"
    )


def _span(times: pd.DatetimeIndex) -> str:
    return f"{times[0]:%Y-%m-%d %H:%M} to {times[-1]:%Y-%m-%d %H:%M} UTC ({len(times)})"
