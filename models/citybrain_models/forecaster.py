"""The seam every model stands behind: a window in, quantiles out."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from citybrain_datasets.features import Window
from citybrain_datasets.task import Task


class Forecaster(Protocol):
    """A network, a baseline or a test double."""

    @property
    def task(self) -> Task: ...

    def forecast(self, window: Window) -> np.ndarray:
        """Quantiles float32 ``[batch, node, horizon, quantile]`` in the target's unit, rising along the quantiles."""
        ...
