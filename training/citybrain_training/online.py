"""Quantiles that learn from outcomes in the order in which they arrive, as the service's do."""

from __future__ import annotations

from collections import deque

import numpy as np
import pandas as pd

from citybrain_datasets.windows import WindowSource
from citybrain_models.calibration import Calibration, parts_of_day


class OnlineCalibration:
    """Publishes raw quantiles and learns from each forecast once its whole horizon lies before the issue time."""

    def __init__(self, calibration: Calibration, source: WindowSource):
        self.calibration = calibration
        self.source = source
        self.waiting: deque[tuple[pd.Timestamp, np.ndarray, np.ndarray]] = deque()

    def publish(self, issues: pd.DatetimeIndex, raw: np.ndarray) -> np.ndarray:
        """``raw [batch, node, horizon, quantile]`` of ``issues``, which must come in order of time, calibrated by what
        was known at each."""
        published = []
        parts = parts_of_day(self.source.task, self.source.features.calendar, issues)
        for issue, quantiles, part in zip(issues, raw, parts, strict=True):
            self._learn(issue)
            published.append(self.calibration.apply(quantiles[None], part[None])[0])
            self.waiting.append((issue, published[-1], part))
        return np.stack(published)

    def _learn(self, now: pd.Timestamp) -> None:
        reach = self.source.task.horizon * self.source.task.step
        while self.waiting and self.waiting[0][0] + reach <= now:
            issue, published, part = self.waiting.popleft()
            truth = self.source.answer(pd.DatetimeIndex([issue]))[0].T
            self.calibration = self.calibration.updated(published, truth, part=part)
