"""The surrogate's network: what it can never say, whatever it was taught."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here")
nn = pytest.importorskip("citybrain_models.nn.surrogate", reason="torch-geometric is not installed here")

SEGMENTS, SLOTS, LEVERS = 9, 4, 10
QUANTILES = (0.05, 0.5, 0.95)


@pytest.fixture(scope="module", params=[1, 3], ids=["one network", "the mean of three"])
def network(request):
    torch.manual_seed(1)
    return nn.SurrogateEnsemble(member() for _ in range(request.param)).eval()


def member():
    made = nn.SurrogateNet(
        context=6, levers=LEVERS, slots=SLOTS, edge_channels=5, relations=4, quantiles=QUANTILES, width=16, blocks=2
    )
    torch.nn.init.normal_(made.direct.weight)
    torch.nn.init.normal_(made.direct.bias)
    return made


def inputs(batch: int = 3, segments: int = SEGMENTS, seed: int = 0) -> dict:
    draw = np.random.default_rng(seed)
    arrays = {
        "levers": draw.normal(size=(batch, segments, SLOTS, LEVERS)),
        "closed": (draw.random((batch, segments, SLOTS)) < 0.3).astype(float),
        "context": draw.normal(size=(1, segments, 6)),
        "base": draw.uniform(0, 5, (1, segments, SLOTS, 3)),
        "unit": draw.uniform(1, 10, (1, segments, SLOTS, 3)),
        "relation": draw.normal(size=(4, segments, segments)) / 3,
    }
    for name in ("downstream", "upstream"):
        arrays[f"{name}_edge"] = np.abs(draw.normal(size=(segments, 3, 5)))
    made = {name: torch.from_numpy(np.float32(array)) for name, array in arrays.items()}
    for name in ("downstream", "upstream"):
        made[f"{name}_index"] = torch.from_numpy(draw.integers(0, segments, (segments, 3)))
    return made


@torch.no_grad()
def test_no_measures_change_nothing_exactly(network):
    given = inputs()
    given["levers"][1] = 0
    said = network(given)
    assert (said[1] == 0).all()
    assert (said[0] != 0).any()


@torch.no_grad()
@pytest.mark.parametrize("seed", range(5))
def test_a_closed_segment_never_gains_flow_and_nothing_falls_below_zero(network, seed):
    given = inputs(seed=seed)
    said = network(given)
    flow = said[..., 0, :]
    assert (flow[given["closed"] == 1] <= 0).all()
    assert (flow[given["closed"] == 0] > 0).any()
    assert (given["base"].unsqueeze(-1) + said >= 0).all()


@torch.no_grad()
def test_quantiles_rise(network):
    said = network(inputs())
    assert (said[..., 1:] >= said[..., :-1]).all()


@torch.no_grad()
def test_a_scenario_does_not_depend_on_those_beside_it(network):
    given = inputs(batch=4)
    alone = {**given, "levers": given["levers"][2:3], "closed": given["closed"][2:3]}
    torch.testing.assert_close(network(given)[2:3], network(alone), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_order_of_the_segments_means_nothing(network):
    given, order = inputs(), torch.randperm(SEGMENTS)
    place = torch.empty_like(order)
    place[order] = torch.arange(SEGMENTS)
    mixed = {
        name: tensor[:, order] if name in ("levers", "closed", "context", "base", "unit") else tensor[order]
        for name, tensor in given.items()
        if name != "relation"
    }
    mixed["relation"] = given["relation"][:, order][:, :, order]
    for name in ("downstream", "upstream"):
        mixed[f"{name}_index"] = place[mixed[f"{name}_index"]]
    torch.testing.assert_close(network(mixed), network(given)[:, order], rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("segments", [4, 30])
def test_it_takes_another_road_network(network, segments):
    assert network(inputs(segments=segments)).shape == (3, segments, SLOTS, 3, 3)


@torch.no_grad()
def test_the_forms_of_message_passing_agree(network):
    given, said = inputs(), []
    for form in ("gather", "dense", "sparse"):
        network.form = form
        said.append(network(given))
    network.form = "gather"
    torch.testing.assert_close(said[0], said[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(said[0], said[2], rtol=1e-3, atol=1e-4)
