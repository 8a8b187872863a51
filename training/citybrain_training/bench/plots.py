"""Pictures of a benchmark: error against lead, error against cost, reliability of events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from citybrain_datasets.records import Record
from citybrain_training.peers.registry import OURS


def draw(runs: Sequence[Record], folder: Path) -> list[Path]:
    """Writes ``<case>-<plot>.png`` for every case and returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for case in dict.fromkeys(run["case"] for run in runs):
        of_case = [run for run in runs if run["case"] == case]
        for name, picture in (("lead", _by_lead), ("cost", _by_cost), ("reliability", _reliability)):
            figure = picture(of_case)
            if figure is not None:
                files.append(folder / f"{case}-{name}.png")
                figure.savefig(files[-1], dpi=90)
                plt.close(figure)
    return files


def _grouped(runs: Sequence[Record]) -> dict[str, list[Record]]:
    groups = defaultdict(list)
    for run in runs:
        groups[run["title"]].append(run)
    return dict(sorted(groups.items(), key=lambda item: np.mean([r["scores"]["mean"]["mae"] for r in item[1]])))


def _by_lead(runs: Sequence[Record]) -> Figure:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for title, group in _grouped(runs).items():
        leads = [lead for lead in group[0]["scores"] if lead != "mean"]
        error = np.mean([[run["scores"][lead]["mae"] for lead in leads] for run in group], axis=0)
        wide = 2.5 if group[0]["subject"] == OURS else 1
        axes.plot([_hours(lead) for lead in leads], error, linewidth=wide, label=title)
    axes.set(xlabel="lead, hours", ylabel=f"mean absolute error, {runs[0]['unit']}", title=runs[0]["case"])
    axes.legend(fontsize="x-small", ncols=2)
    axes.grid(alpha=0.3)
    return figure


def _by_cost(runs: Sequence[Record]) -> Figure:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for title, group in _grouped(runs).items():
        seconds = [max(run["cost"]["seconds"], 1e-2) for run in group]
        error = [run["scores"]["mean"]["mae"] for run in group]
        axes.scatter(seconds, error, s=50 if group[0]["subject"] == OURS else 20, label=title)
    clock = "CPU seconds" if runs[0]["device"] == "cpu" else "seconds"
    axes.set(xlabel=f"training, {clock}", xscale="log", title=runs[0]["case"])
    axes.set_ylabel(f"mean absolute error, {runs[0]['unit']}")
    axes.legend(fontsize="x-small", ncols=2)
    axes.grid(alpha=0.3)
    return figure


def _reliability(runs: Sequence[Record]) -> Figure | None:
    events = list(dict.fromkeys(event for run in runs for event, bins in run["reliability"].items() if len(bins) > 1))
    if not events:
        return None
    figure, row = plt.subplots(1, len(events), figsize=(3.4 * len(events), 3.6), layout="constrained", squeeze=False)
    for axes, event in zip(row[0], events, strict=True):
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.7, linestyle="--")
        for title, group in _grouped(runs).items():
            bins = np.array(group[0]["reliability"].get(event, []))
            if len(bins):
                wide = 2 if group[0]["subject"] == OURS else 0.8
                axes.plot(bins[:, 1], bins[:, 2], marker=".", linewidth=wide, label=title)
        axes.set(title=event, xlabel="forecast probability", ylabel="share that happened", xlim=(0, 1), ylim=(0, 1))
        axes.title.set_fontsize("small")
    row[0, 0].legend(fontsize="xx-small")
    return figure


def _hours(lead: str) -> float:
    return float(lead.removesuffix("min")) / 60 if lead.endswith("min") else float(lead.removesuffix("h"))
