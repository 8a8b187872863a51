"""A forecast whose intervals learn from outcomes in the order in which they arrive, as the service's do."""

from __future__ import annotations

from collections import deque

import numpy as np
import pandas as pd

from citybrain_datasets.features import Window
from citybrain_datasets.task import Task
from citybrain_datasets.windows import WindowSource
from citybrain_models.onnx_forecaster import OnnxForecaster


class OnlineForecaster:
    """Must be asked in order of time. A forecast is learnt from once its whole horizon lies before the issue time."""

    def __init__(self, model: OnnxForecaster, source: WindowSource):
        self.model = model
        self.source = source
        self.calibration = model.calibration
        self.waiting: deque[tuple[pd.Timestamp, np.ndarray]] = deque()

    @property
    def task(self) -> Task:
        return self.model.task

    def forecast(self, window: Window) -> np.ndarray:
        """Quantiles float32 ``[batch, node, horizon, quantile]``."""
        published = []
        for issue, raw in zip(window.issue, self.model.raw(window), strict=True):
            self._learn(issue)
            published.append(self.calibration.apply(raw[None])[0])
            self.waiting.append((issue, published[-1]))
        return np.stack(published)

    def _learn(self, now: pd.Timestamp) -> None:
        reach = self.task.horizon * self.task.step
        while self.waiting and self.waiting[0][0] + reach <= now:
            issue, published = self.waiting.popleft()
            truth = self.source.answer(pd.DatetimeIndex([issue]))[0].T
            self.calibration = self.calibration.updated(published, truth)
