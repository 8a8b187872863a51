"""A forecast whose intervals learn from outcomes in the order in which they arrive, as the service's do."""

from __future__ import annotations

from collections import deque

import numpy as np
import pandas as pd

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.features import Window
from citybrain_datasets.task import Task
from citybrain_datasets.windows import WindowSource
from citybrain_models.calibration import Calibration, parts_of_day
from citybrain_models.onnx_forecaster import OnnxForecaster


class OnlineCalibration:
    """Publishes raw quantiles and learns from each forecast once its whole horizon lies before the issue time."""

    def __init__(self, calibration: Calibration, source: WindowSource, calendar: Calendar):
        self.calibration = calibration
        self.source = source
        self.calendar = calendar
        self.waiting: deque[tuple[pd.Timestamp, np.ndarray, np.ndarray]] = deque()

    def publish(self, issues: pd.DatetimeIndex, raw: np.ndarray) -> np.ndarray:
        """``raw [batch, node, horizon, quantile]`` of ``issues``, which must come in order of time, calibrated by what
        was known at each."""
        published = []
        for issue, quantiles, part in zip(
            issues, raw, parts_of_day(self.source.task, self.calendar, issues), strict=True
        ):
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


class OnlineForecaster:
    """A model with an :class:`OnlineCalibration`. Must be asked in order of time."""

    def __init__(self, model: OnnxForecaster, source: WindowSource):
        self.model = model
        self.learning = OnlineCalibration(model.calibration, source, model.features.calendar)

    @property
    def task(self) -> Task:
        return self.model.task

    def forecast(self, window: Window) -> np.ndarray:
        """Quantiles float32 ``[batch, node, horizon, quantile]``."""
        return self.learning.publish(window.issue, self.model.raw(window))
