"""The pictures a person wants to see before trusting a model."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from citybrain_datasets.city import City
from citybrain_datasets.signals import KINDS
from citybrain_datasets.task import Task
from citybrain_datasets.windows import WindowSource
from citybrain_models.forecaster import Forecaster
from citybrain_training.evaluation import forecasts

Table = Mapping[str, Mapping[str, float]]


def error_by_lead(tables: Mapping[str, Table], task: Task) -> Figure:
    """Mean absolute error against lead, one line a model."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, table in tables.items():
        axes.plot(_hours(task), [table[task.lead_label(i)]["mae"] for i in range(task.horizon)], marker=".", label=name)
    axes.set(xlabel="lead, hours", ylabel=f"mean absolute error, {KINDS[task.target].unit}", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def coverage_by_lead(tables: Mapping[str, Table], task: Task) -> Figure:
    """Share of outcomes inside the outer quantiles against lead, beside the share that was promised."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, table in tables.items():
        share = [table[task.lead_label(i)]["coverage"] for i in range(task.horizon)]
        axes.plot(_hours(task), share, marker=".", label=name)
    nominal = task.quantiles[-1] - task.quantiles[0]
    axes.axhline(nominal, color="black", linewidth=0.8, linestyle="--", label=f"promised {nominal:.0%}")
    axes.set(xlabel="lead, hours", ylabel="share of outcomes inside the interval", ylim=(0.5, 1))
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def week_against_truth(
    forecaster: Forecaster, source: WindowSource, issues: pd.DatetimeIndex, ids: list[str]
) -> Figure:
    """A week of the forecast at the longest lead, with its interval, against what was measured, at the three nodes
    with the least missing values among those that vary most."""
    task = source.task
    week = issues[issues >= issues[-1] - pd.Timedelta(days=7)]
    pairs = list(forecasts(forecaster, source, week))
    forecast = np.concatenate([f[:, :, -1] for f, _ in pairs])
    truth = np.concatenate([t[:, :, -1] for _, t in pairs])
    seen = np.isfinite(truth)
    mean = np.where(seen, truth, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    spread = np.where(seen, np.abs(truth - mean), 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    nodes = np.argsort(-np.where(seen.mean(axis=0) > 0.5, spread, -1))[:3]
    figure, rows = plt.subplots(
        len(nodes), 1, figsize=(10, 2.4 * len(nodes)), sharex=True, layout="constrained", squeeze=False
    )
    times = (week + task.horizon * task.step).tz_localize(None)
    for axes, node in zip(rows[:, 0], nodes, strict=True):
        axes.fill_between(times, forecast[:, node, 0], forecast[:, node, -1], alpha=0.25, label="interval")
        axes.plot(
            times,
            forecast[:, node, task.median],
            linewidth=1,
            label=f"forecast {task.lead_label(task.horizon - 1)} ahead",
        )
        axes.plot(times, truth[:, node], color="black", linewidth=0.7, label="measured")
        axes.set_ylabel(f"{ids[node]}\n{KINDS[task.target].unit}")
    rows[0, 0].legend(ncols=3, fontsize="small")
    rows[-1, 0].xaxis.set_major_formatter(mdates.DateFormatter("%d %b"))
    return figure


def error_map(forecaster: Forecaster, source: WindowSource, issues: pd.DatetimeIndex, city: City) -> Figure | None:
    """Mean absolute error at each place, over at most 200 issue times; None where no place is known."""
    task = source.task
    table = city.nodes[task.node]
    if table[["lat", "lon"]].isna().any(axis=None):
        return None
    total, count = np.zeros(len(table)), np.zeros(len(table))
    for forecast, truth in forecasts(forecaster, source, issues[:: max(1, len(issues) // 200)]):
        error = np.abs(forecast[..., task.median] - truth)
        total += np.nansum(error, axis=(0, 2))
        count += np.isfinite(error).sum(axis=(0, 2))
    figure, axes = plt.subplots(figsize=(6, 6), layout="constrained")
    relation = city.edges.get(f"{task.node}-{task.node}")
    if relation is not None:
        for source_id, target_id in zip(relation["source"], relation["target"], strict=True):
            ends = table.loc[[source_id, target_id]]
            axes.plot(ends["lon"], ends["lat"], color="lightgrey", linewidth=0.6, zorder=0)
    dots = axes.scatter(table["lon"], table["lat"], c=total / np.maximum(count, 1), cmap="viridis_r", s=24)
    figure.colorbar(dots, label=f"mean absolute error, {KINDS[task.target].unit}")
    axes.set(xlabel="longitude", ylabel="latitude", title=f"{city.name}{' (synthetic)' * city.synthetic}")
    axes.set_aspect(1 / np.cos(np.deg2rad(float(table["lat"].mean()))))
    return figure


def city_now(city: City, speed: Mapping[str, float], pm25: Mapping[str, float], title: str) -> Figure:
    """One map of both halves of the forecast: roads by speed as a share of free flow, stations by PM2.5 in µg/m³."""
    roads, stations = city.nodes["road"], city.nodes["air"]
    figure, axes = plt.subplots(figsize=(9, 6.5), layout="constrained")
    share = pd.Series(speed).reindex(roads.index) / roads["free_speed_kmh"]
    edges = city.edges["road-road"]
    start, end = (
        roads.loc[edges["source"], ["lon", "lat"]].to_numpy(),
        roads.loc[edges["target"], ["lon", "lat"]].to_numpy(),
    )
    lines = LineCollection(
        list(np.stack([start, end], axis=1)), cmap="RdYlGn", norm=Normalize(0.3, 1.0), linewidths=2.5
    )
    lines.set_array(share.loc[edges["target"]].to_numpy())
    axes.add_collection(lines)
    figure.colorbar(lines, label="speed / free-flow speed", shrink=0.7)
    values = pd.Series(pm25).reindex(stations.index)
    dots = axes.scatter(
        stations["lon"],
        stations["lat"],
        c=values,
        s=220,
        cmap="Purples",
        vmin=0,
        vmax=150,
        edgecolors="black",
        zorder=3,
    )
    figure.colorbar(dots, label="PM2.5, µg/m³", shrink=0.7)
    for place, value in values.items():
        position = (stations.at[place, "lon"], stations.at[place, "lat"])
        axes.annotate(f"{value:.0f}", position, ha="center", va="center", fontsize=7, zorder=4)
    axes.set(title=title, xlabel="longitude", ylabel="latitude")
    axes.set_aspect(1 / np.cos(np.deg2rad(float(stations["lat"].mean()))))
    axes.autoscale_view()
    return figure


def _hours(task: Task) -> np.ndarray:
    return np.arange(1, task.horizon + 1) * task.step_minutes / 60
