"""What is exported computes what was trained, whatever is missing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from citybrain_models.nn.citynet import CityNet, MessageKind
from citybrain_models.nn.ensemble import Ensemble
from citybrain_models.nn.inference import InferenceNet

KINDS = (MessageKind("between", "air", "air", windy=True), MessageKind("carried", "road", "air", windy=True))
CALM = MessageKind("calm", "air", "air")
"""Told by the same places as ``between``, by fewer of them and whatever the wind."""
NODES = {"road": 5, "air": 4}
WINDOWS, HORIZON, EMBEDDING, EDGE, NEARBY = 3, 6, 2, 5, 4


def network(seed: int, **options: object) -> CityNet:
    torch.manual_seed(seed)
    arguments: dict = dict(
        target="air", features={"road": 7, "air": 9}, statics={"road": 3, "air": 2}, time_features=5, messages=KINDS,
        edge_channels=EDGE, nearby_channels=NEARBY, horizon=HORIZON, quantiles=(0.05, 0.25, 0.5, 0.9), mean=2.0,
        std=3.0, width=8, embedding=EMBEDDING, hubs=3,
    )  # fmt: skip
    net = CityNet(**{**arguments, **options}).eval()
    for parameter in net.parameters():  # the shortcut starts at zero and would hide a mistake
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def inputs(seen: float = 1.0, sensed: float = 1.0) -> dict[str, Tensor]:
    """Windows in which a share of what could be measured was, at places of which a share have a sensor."""
    torch.manual_seed(0)
    found = {"time": torch.randn(WINDOWS, 5), "wind": torch.randn(WINDOWS, NODES["air"], 2)}
    for node, count in NODES.items():
        found[f"x_{node}"] = torch.randn(WINDOWS, count, {"road": 7, "air": 9}[node])
        found[f"seen_{node}"] = (torch.rand(WINDOWS, count) < seen).float() * torch.rand(WINDOWS, count).ceil()
        found[f"static_{node}"] = torch.randn(count, {"road": 3, "air": 2}[node])
        found[f"embedding_{node}"] = torch.randn(count, EMBEDDING)
    if 0 < seen < 1:
        found["seen_air"] = found["seen_air"] * torch.rand(WINDOWS, NODES["air"])
    found["anchor"] = torch.randn(WINDOWS, NODES["air"], 2 + HORIZON)
    found["sensed_air"] = (torch.rand(NODES["air"]) < sensed).float()
    edges = {"between": ("air", 3), "carried": ("road", 3), "nearby": ("air", 3), "calm": ("air", 2)}
    for name, (sender, neighbours) in edges.items():
        channels = NEARBY if name == "nearby" else EDGE
        found[f"{name}_index"] = torch.randint(NODES[sender], (NODES["air"], neighbours))
        edge = torch.rand(NODES["air"], neighbours, channels)
        edge[..., 0] = (edge[..., 0] < 0.7).float()
        found[f"{name}_edge"] = edge
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hubs": 0, "pull": [0.3] * HORIZON},
        {"nearby_channels": 0, "messages": ()},
        {"messages": (*KINDS, CALM)},
        {"messages": (CALM, *KINDS), "hubs": 0},
    ],
)
@pytest.mark.parametrize(("seen", "sensed"), [(1.0, 1.0), (0.6, 0.5), (0.0, 0.0)])
def test_the_arrangement_changes_the_cost_and_not_the_answer(options: dict, seen: float, sensed: float) -> None:
    given, net = inputs(seen, sensed), network(1, **options)
    with torch.inference_mode():
        expected, found = net(given), InferenceNet(net)(given)
    assert found.shape == (WINDOWS, NODES["air"], HORIZON, 4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_several_members_answer_with_their_mean() -> None:
    given, members = inputs(0.5, 0.8), [network(seed, logarithmic=True, std=0.2) for seed in (1, 2)]
    with torch.inference_mode():
        expected = torch.stack([net(given) for net in members]).mean(0)
        found = InferenceNet(Ensemble(members))(given)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_quantiles_never_cross_however_far_apart() -> None:
    net = network(3)
    with torch.no_grad():
        net.head.weight *= 1_000
    with torch.inference_mode():
        found = InferenceNet(net)(inputs())
    assert torch.isfinite(found).all()
    assert (found.diff(dim=-1) >= 0).all()
