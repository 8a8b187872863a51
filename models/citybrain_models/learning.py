"""Quantiles that learn from outcomes in the order in which they arrive, in the benchmark and in the service alike."""

from __future__ import annotations

import numpy as np
import pandas as pd

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.task import Task
from citybrain_models.calibration import RATE, Calibration, parts_of_day


class OnlineCalibration:
    """Remembers what was published and learns from each lead as soon as its outcome is there: three hours ahead need
    not wait for three days.

    ``fitted`` stays as training left it; ``learnt`` is what outcomes have moved since.
    """

    def __init__(self, task: Task, calendar: Calendar, fitted: Calibration, learnt: Calibration, *, rate: float = RATE):
        self.task = task
        self.calendar = calendar
        self.fitted = fitted
        self.learnt = learnt
        self.rate = rate
        self._said: dict[pd.Timestamp, np.ndarray] = {}

    @property
    def calibration(self) -> Calibration:
        """The shifts to publish with now."""
        return self.fitted.plus(self.learnt)

    @property
    def remembered(self) -> frozenset[pd.Timestamp]:
        """Issue times of the forecasts whose outcomes are still awaited."""
        return frozenset(self._said)

    def remember(self, issue: pd.Timestamp, published: np.ndarray) -> None:
        """Takes note of calibrated quantiles ``[node, horizon, quantile]`` that went out."""
        self._said[issue] = published

    def learn(self, end: pd.Timestamp, truth: np.ndarray) -> bool:
        """Learns from what was measured over the step that ended at ``end``, ``truth [node]`` with NaN for unknown:
        one lead of every remembered forecast that spoke of it. True where there was one.

        Must be called in order of time. Forecasts without a later step are forgotten.
        """
        task = self.task
        leads = {(end - issue) / task.step: issue for issue in self._said}
        published = np.full((len(truth), task.horizon, len(task.quantiles)), np.nan, np.float32)
        spoke = [(int(lead) - 1, issue) for lead, issue in leads.items() if lead in range(1, task.horizon + 1)]
        for lead, issue in spoke:
            published[:, lead] = self._said[issue][:, lead]
        if spoke:
            part = parts_of_day(task, self.calendar, pd.DatetimeIndex([end - task.step]))[0, :1]
            outcomes = np.repeat(truth[:, None], task.horizon, axis=1)
            self.learnt = self.learnt.updated(published, outcomes, self.rate, part.repeat(task.horizon))
        self._said = {i: said for i, said in self._said.items() if i + task.horizon * task.step > end}
        return bool(spoke)
