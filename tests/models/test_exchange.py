"""Message passing: three forms, one sum, and dead senders that drop out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain_models.nn.exchange import Exchange, Hubs


def _case(seed: int, batch: int, senders: int, receivers: int, neighbours: int, windy: bool):  # type: ignore[no-untyped-def]  # a tuple of tensors
    random = np.random.default_rng(seed)
    index = torch.from_numpy(random.integers(0, senders, (receivers, neighbours)))
    edge = torch.from_numpy(random.normal(size=(receivers, neighbours, 6)).astype(np.float32))
    edge[..., 0] = torch.from_numpy((random.random((receivers, neighbours)) < 0.7).astype(np.float32))
    value = torch.from_numpy(random.normal(size=(batch, senders, 8)).astype(np.float32))
    trust = torch.from_numpy(random.random((batch, senders)).astype(np.float32))
    wind = torch.from_numpy(random.normal(size=(batch, receivers, 2)).astype(np.float32)) if windy else None
    torch.manual_seed(seed)
    return Exchange(8, 6, windy=windy), value, trust, index, edge, wind


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 3),
    senders=st.integers(1, 12),
    receivers=st.integers(1, 12),
    neighbours=st.integers(1, 5),
    windy=st.booleans(),
)
def test_the_three_forms_compute_the_same(
    seed: int, batch: int, senders: int, receivers: int, neighbours: int, windy: bool
) -> None:
    layer, *arguments = _case(seed, batch, senders, receivers, neighbours, windy)
    with torch.inference_mode():
        gathered, dense, sparse = (layer(*arguments, form=form) for form in ("gather", "dense", "sparse"))
    torch.testing.assert_close(dense, gathered, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sparse, gathered, rtol=1e-4, atol=1e-5)


def test_a_sender_without_data_changes_nothing() -> None:
    layer, value, _, index, edge, _ = _case(1, 2, 6, 5, 3, windy=False)
    trust = torch.ones(2, 6)
    trust[:, 2] = 0
    with torch.inference_mode():
        before = layer(value, trust, index, edge)
        value[:, 2] = 1e6
        torch.testing.assert_close(layer(value, trust, index, edge), before)


def test_absent_edges_carry_nothing() -> None:
    layer, value, trust, index, edge, _ = _case(2, 1, 4, 3, 2, windy=False)
    edge[..., 0] = 0
    with torch.inference_mode():
        assert layer(value, trust, index, edge).abs().max() == 0


@pytest.mark.parametrize("nodes", [1, 7])
def test_hubs_do_not_care_about_the_order_of_nodes(nodes: int) -> None:
    torch.manual_seed(0)
    hubs, value, trust = Hubs(8, 3), torch.randn(2, nodes, 8), torch.rand(2, nodes)
    order = torch.randperm(nodes)
    with torch.inference_mode():
        torch.testing.assert_close(hubs(value[:, order], trust[:, order]), hubs(value, trust)[:, order])
