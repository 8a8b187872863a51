"""Dropout drops the share it is told to, keeps the mean, and does nothing outside training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from citybrain_models.nn.dropout import Dropout


@given(st.floats(0, 1, exclude_max=True), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_every_number_is_dropped_or_scaled_up_and_so_is_its_gradient(share: float, shape: list[int]) -> None:
    dropout = Dropout(share)
    values = torch.rand(shape).add_(1).requires_grad_()
    after = dropout(values)
    after.sum().backward()
    scale = 256 / (256 - dropout.dropped)
    assert after.shape == values.shape
    assert torch.all((after == 0) | torch.isclose(after, values * scale))
    assert values.grad is not None
    torch.testing.assert_close(values.grad, (after != 0) * torch.full_like(values, scale))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_the_share_is_kept_and_the_seed_decides_which(share: float) -> None:
    dropout, values = Dropout(share), torch.ones(64, 50, 33)
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(dropout(values))
    assert torch.equal(*drawn)
    assert (drawn[0] == 0).float().mean().item() == pytest.approx(share, abs=0.01)
    assert drawn[0].mean().item() == pytest.approx(1, abs=0.01)
    assert not torch.equal(dropout(values), drawn[0])


def test_nothing_is_dropped_outside_training() -> None:
    values = torch.ones(5, 7)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
