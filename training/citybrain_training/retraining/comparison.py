"""Two forecasters on the same windows: what each gets wrong, summed by day, so that their difference has a bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.features import Window
from citybrain_datasets.task import Task
from citybrain_models.events import Events
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.alignment import source_for
from citybrain_training.events import BATCH, free_speed
from citybrain_training.node_groups import node_groups
from citybrain_training.significance import Difference, paired_difference

ERROR, INSIDE = "error", "inside"


@dataclass
class Comparison:
    """``sums[measure][day] = [challenger's sum, champion's sum, count]``.

    Measures: ``error`` (absolute, of the median), ``inside`` (outcomes between the outer quantiles), ``group …``
    (absolute error of a group of nodes) and ``event …`` (squared error of a probability).
    """

    task: Task
    nodes: int
    sums: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    @property
    def block_days(self) -> int:
        """Days over which errors hang together: the horizon's."""
        return block_days(self.task)

    def add(self, measure: str, days: np.ndarray, challenger: np.ndarray, champion: np.ndarray) -> None:
        """Per-window values ``[batch, …]``, NaN where unknown, under the day of each window ``[batch]``."""
        known = np.isfinite(challenger) & np.isfinite(champion)
        of_measure = self.sums.setdefault(measure, {})
        for day in np.unique(days):
            rows = days == day
            here = known[rows]
            part = [float(x[rows][here].sum(dtype=np.float64)) for x in (challenger, champion)]
            of_measure[str(day)] = of_measure.get(str(day), np.zeros(3)) + np.array([*part, here.sum()])

    def means(self, measure: str) -> tuple[float, float, int]:
        """Mean of the challenger, of the champion, and over how many values."""
        total = np.sum(list(self.sums[measure].values()), axis=0)
        return float(total[0] / max(total[2], 1)), float(total[1] / max(total[2], 1)), int(total[2])

    def difference(self, measure: str) -> Difference:
        """Challenger minus champion, with the bounds of a paired block bootstrap by day."""
        days = {day: sums for day, sums in self.sums[measure].items() if sums[2]}
        ours, theirs = ({day: (s[i], s[2]) for day, s in days.items()} for i in (0, 1))
        return paired_difference(ours, theirs, block=self.block_days)

    def days(self, measure: str) -> int:
        """Days that tell of a measure: :func:`whole_days`."""
        return whole_days(np.array([sums[2] for sums in self.sums.get(measure, {}).values()]))

    def names(self, kind: str) -> list[str]:
        """Measures ``<kind> …`` for which anything was known."""
        return [name for name in self.sums if name.startswith(f"{kind} ") and self.means(name)[2]]


def whole_days(counts: np.ndarray) -> int:
    """How many of some days, of which so many values are known each, count as a day: a sliver before midnight or what
    an outage left does not, only half of what a day usually has."""
    known = counts[counts > 0]
    return int((known >= np.median(known) / 2).sum()) if len(known) else 0


def block_days(task: Task) -> int:
    """Whole days that a forecast reaches, over which its errors hang together."""
    return max(1, -(-task.horizon * task.step // pd.Timedelta(days=1)))


def local_days(issues: pd.DatetimeIndex, timezone: str) -> np.ndarray:
    """The local day of each issue time ``[window]``, as text."""
    return np.asarray(issues.tz_convert(timezone).strftime("%Y-%m-%d"))


def compare(challenger: OnnxForecaster, champion: OnnxForecaster, city: City, issues: pd.DatetimeIndex) -> Comparison:
    """Both bundles on the windows of ``city`` issued at ``issues``, at the nodes that both forecast."""
    task = challenger.task
    table = challenger.bundle.city.nodes[task.node]
    theirs = pd.Index(champion.bundle.city.ids(task.node))
    place = theirs.get_indexer(pd.Index(challenger.bundle.city.ids(task.node)))
    common = np.flatnonzero(place >= 0)
    groups = node_groups(table.iloc[common])
    free = free_speed(challenger.bundle.city) if task.target == "speed" else None
    events = Events(task, None if free is None else free[common])
    comparison = Comparison(task, len(common))
    sources = source_for(challenger.bundle, city), source_for(champion.bundle, city)
    for first in range(0, len(issues), BATCH):
        chosen = issues[first : first + BATCH]
        days = local_days(chosen, city.timezone)
        window = sources[0].window(chosen)
        truth = sources[0].answer(chosen).transpose(0, 2, 1)[:, common]
        said = challenger.forecast(window)[:, common], champion.forecast(sources[1].window(chosen))[:, place[common]]
        here = Window(chosen, {task.target: window.values[task.target][:, :, common]})
        for measure, pair in _measures(task, truth, said, groups, events, here):
            comparison.add(measure, days, *pair)
    return comparison


Pair = tuple[np.ndarray, np.ndarray]


def _measures(
    task: Task, truth: np.ndarray, said: Pair, groups: Mapping[str, np.ndarray], events: Events, window: Window
) -> Iterator[tuple[str, Pair]]:
    error = [np.abs(forecast[..., task.median] - truth) for forecast in said]
    inside = [np.where(np.isnan(truth), np.nan, (f[..., 0] <= truth) & (truth <= f[..., -1])) for f in said]
    yield ERROR, (error[0], error[1])
    yield INSIDE, (inside[0], inside[1])
    for name, rows in groups.items():
        yield f"group {name}", (error[0][:, rows], error[1][:, rows])
    occasions = [events.occasions(window, forecast, truth) for forecast in said]
    for name in occasions[0]:
        squared = [np.where(o[name].known, (o[name].probability - o[name].outcome) ** 2, np.nan) for o in occasions]
        yield f"event {name}", (squared[0], squared[1])
