"""A moving average of the weights, which is what is validated and kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Exponential moving average of the parameters alone.

    Lightning's own averages buffers as well: of the graph's neighbour lists, whole numbers, the average of ``i`` and
    ``i`` may be rounded down to ``i − 1``. It also cannot be sent to a spawned process, as this one can.
    """

    def __init__(self, decay: float):
        super().__init__(use_buffers=False, multi_avg_fn=_Decay(decay))


class _Decay:
    """``average ← decay · average + (1 − decay) · weights``."""

    def __init__(self, decay: float):
        self.decay = decay

    @torch.no_grad()
    def __call__(self, average: Sequence[Tensor], weights: Sequence[Tensor], _: Tensor | int) -> None:
        torch._foreach_lerp_(list(average), list(weights), 1 - self.decay)
