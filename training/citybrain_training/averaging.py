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
    """``average ← decay · average + (1 − decay) · weights``.

    The decay rises to its own value as ``(1 + n) / (10 + n)`` over the first ``n`` steps: with a fixed one, the first,
    random weights would still weigh a tenth after 460 steps at 0.995.
    """

    def __init__(self, decay: float):
        self.decay = decay

    @torch.no_grad()
    def __call__(self, average: Sequence[Tensor], weights: Sequence[Tensor], steps: Tensor | int) -> None:
        decay = min(self.decay, (1 + float(steps)) / (10 + float(steps)))
        torch._foreach_lerp_(list(average), list(weights), 1 - decay)
