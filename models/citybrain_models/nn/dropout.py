"""Dropout at the price of a random byte a number."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Sets a share of the numbers to zero in training and scales the others up, as :class:`torch.nn.Dropout` does.

    Which ones is drawn a byte each, eight at a time: torch's own draw on a CPU is a noticeable part of a training step
    of :class:`~citybrain_models.nn.citynet.CityNet`. The share is rounded to a 256th.
    """

    def __init__(self, share: float):
        super().__init__()
        self.dropped = min(round(256 * share), 255)
        """Of 256 numbers."""

    def forward(self, values: Tensor) -> Tensor:
        """``values`` of any shape → the same shape."""
        if not self.training or not self.dropped:
            return values
        draws = torch.empty(-(-values.numel() // 8), dtype=torch.int64, device=values.device)
        draws.random_(torch.iinfo(torch.int64).min, None)
        kept = draws.view(torch.uint8)[: values.numel()].view(values.shape) >= self.dropped
        # Bytes become numbers faster than truth values do.
        return values * kept.view(torch.uint8).to(values.dtype).mul_(256 / (256 - self.dropped))

    def extra_repr(self) -> str:
        return f"{self.dropped}/256"
