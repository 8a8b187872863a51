"""Quantiles that learn from outcomes in the order in which they arrive, as the service's do."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import pandas as pd

from citybrain_datasets.windows import WindowSource
from citybrain_models.calibration import Calibration, parts_of_day

RATE = 0.01
"""How far an outcome moves a shift where nothing else is said, as in the service."""


@dataclass
class _Published:
    issue: pd.Timestamp
    quantiles: np.ndarray
    part: np.ndarray
    learnt: int = 0
    """Leads that have been learnt from."""


class OnlineCalibration:
    """Publishes raw quantiles and learns from each forecast once its whole horizon lies before the issue time.

    ``at_once`` learns from each lead as soon as it has ended: three hours ahead need not wait for three days.
    """

    def __init__(self, calibration: Calibration, source: WindowSource, *, rate: float = RATE, at_once: bool = False):
        self.calibration = calibration
        self.source = source
        self.rate = rate
        self.at_once = at_once
        self.waiting: deque[_Published] = deque()

    def publish(self, issues: pd.DatetimeIndex, raw: np.ndarray) -> np.ndarray:
        """``raw [batch, node, horizon, quantile]`` of ``issues``, which must come in order of time, calibrated by what
        was known at each."""
        published = []
        parts = parts_of_day(self.source.task, self.source.features.calendar, issues)
        for issue, quantiles, part in zip(issues, raw, parts, strict=True):
            self._learn(issue)
            published.append(self.calibration.apply(quantiles[None], part[None])[0])
            self.waiting.append(_Published(issue, published[-1], part))
        return np.stack(published)

    def _learn(self, now: pd.Timestamp) -> None:
        task = self.source.task
        for said in self.waiting:
            ended = min(int((now - said.issue) // task.step), task.horizon)
            if ended > said.learnt and (self.at_once or ended == task.horizon):
                truth = self.source.answer(pd.DatetimeIndex([said.issue]))[0].T.copy()
                truth[:, : said.learnt] = truth[:, ended:] = np.nan
                self.calibration = self.calibration.updated(said.quantiles, truth, self.rate, said.part)
                said.learnt = ended
        while self.waiting and self.waiting[0].learnt == task.horizon:
            self.waiting.popleft()
