"""A forecast whose intervals learn from outcomes while it is tested."""

from __future__ import annotations

import numpy as np

from citybrain_datasets.features import Window
from citybrain_datasets.task import Task
from citybrain_datasets.windows import WindowSource
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_training.online import Replay


class OnlineForecaster:
    """A model whose calibration goes on learning from where its training left it. Must be asked in order of time."""

    def __init__(self, model: OnnxForecaster, source: WindowSource):
        self.model = model
        self.replay = Replay(model.calibration, source, model.bundle.learnt)

    @property
    def task(self) -> Task:
        return self.model.task

    def forecast(self, window: Window) -> np.ndarray:
        """Quantiles float32 ``[batch, node, horizon, quantile]``."""
        return self.replay.publish(window.issue, self.model.raw(window))
