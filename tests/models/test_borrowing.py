"""Borrowing: whole nodes are left alone, strangers hear of those that have something, however messages are passed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from citybrain_models.nn.borrowing import Borrowing
from citybrain_models.nn.exchange import Form

NODES, WIDTH, HORIZON = 6, 8, 4
PLACE = torch.linspace(-1, 1, NODES * WIDTH).reshape(NODES, WIDTH)
"""What of a state tells what the node is."""


@pytest.fixture
def layer() -> Borrowing:
    torch.manual_seed(0)
    layer = Borrowing(WIDTH, 3)
    torch.nn.init.normal_(layer.stranger)
    return layer


def complete(layer: Borrowing, state: Tensor, anchor: Tensor, seen: Tensor, sensed: Tensor, form: Form = "gather"):  # type: ignore[no-untyped-def]  # a pair of tensors
    index = torch.tensor([[j for j in range(NODES) if j != i] for i in range(NODES)])
    edge = torch.rand(NODES, NODES - 1, 3, generator=torch.Generator().manual_seed(1))
    edge[..., 0] = 1
    with torch.inference_mode():
        return layer.complete(state, state - PLACE, anchor, seen, sensed, index, edge, form)


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, NODES, WIDTH), torch.randn(2, NODES, 2 + HORIZON), torch.ones(2, NODES), torch.ones(NODES)


def test_a_node_with_measurements_and_a_sensor_is_left_as_it_is(layer: Borrowing) -> None:
    state, anchor, seen, sensed = inputs()
    after, completed = complete(layer, state, anchor, seen, sensed)
    torch.testing.assert_close(after, state)
    torch.testing.assert_close(completed, anchor)


def test_where_nobody_lacks_anything_every_parameter_still_has_a_gradient(layer: Borrowing) -> None:
    state, anchor, seen, sensed = inputs()
    index = torch.tensor([[(i + 1) % NODES] for i in range(NODES)])
    after, completed = layer.complete(state, state, anchor, seen, sensed, index, torch.ones(NODES, 1, 3), "gather")
    (after.sum() + completed.sum()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())


def test_a_stranger_hears_of_nothing_but_its_neighbours(layer: Borrowing) -> None:
    state, anchor, seen, sensed = inputs()
    sensed[2], seen[:, 2] = 0, 0
    _, before = complete(layer, state, anchor, seen, sensed)
    anchor[:, 2] = 1e3  # what stands in its own place is not looked at
    _, completed = complete(layer, state, anchor, seen, sensed)
    torch.testing.assert_close(completed, before)
    others = anchor[:, [0, 1, 3, 4, 5]]
    assert (completed[:, 2] <= others.amax(dim=1) + 0.01).all()
    assert (completed[:, 2] >= others.amin(dim=1) - 0.01).all()


def test_a_dead_sensor_keeps_its_profile_and_lends_it(layer: Borrowing) -> None:
    state, anchor, seen, sensed = inputs()
    seen[:, 3] = 0
    _, completed = complete(layer, state, anchor, seen, sensed)
    torch.testing.assert_close(completed, anchor)
    sensed[0], seen[:, 0] = 0, 0
    _, before = complete(layer, state, anchor, seen, sensed)
    anchor[:, 3, 2:] += 5
    anchor[:, 3, :2] += 5
    _, after = complete(layer, state, anchor, seen, sensed)
    assert (after[:, 0, 2:] > before[:, 0, 2:]).all()
    # Its last value is nobody's; what is usual counts as a thousandth of a sender of last values.
    torch.testing.assert_close(after[:, 0, :2], before[:, 0, :2], rtol=0, atol=0.01)


def test_without_any_measurement_the_last_value_is_what_is_usual(layer: Borrowing) -> None:
    state, anchor, seen, sensed = inputs()
    seen[:] = 0
    sensed[1] = 0
    _, completed = complete(layer, state, anchor, seen, sensed)
    torch.testing.assert_close(completed[:, 1, 0], completed[:, 1, 2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_every_form_of_passing_messages_gives_the_same(layer: Borrowing, form: Form) -> None:
    state, anchor, seen, sensed = inputs()
    sensed[2], seen[:, 2], seen[0, 4] = 0, 0, 0.3
    for found, expected in zip(
        complete(layer, state, anchor, seen, sensed, form), complete(layer, state, anchor, seen, sensed), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
