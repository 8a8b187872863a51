"""Places without a sensor: nothing of them leaks into what training shows, and none of them has a past."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from citybrain_datasets.city import City
from citybrain_datasets.signals import Signal
from citybrain_training.batches import Collate
from citybrain_training.config import TrainConfig
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.preparation import Preparation, prepare, with_free_speed, without_measured_speed
from citybrain_training.robustness.unseen import silent


@pytest.fixture(scope="module")
def ready(small_city: City, quick: TrainConfig) -> Preparation:
    return prepare(small_city, "congestion", quick.merged({"fit": {"disturbed": 1, "phantoms": 0.25}}))


def batch_with_phantoms(ready: Preparation, seed: int = 0) -> dict[str, torch.Tensor]:
    collate = Collate(ready, ready.split.train, training=True, seed=seed)
    while not (arrays := collate(range(8))[0])["phantom"].any():
        pass
    return arrays


def test_nothing_measured_at_a_phantom_is_shown(ready: Preparation) -> None:
    arrays = batch_with_phantoms(ready)
    phantom = arrays["phantom"]
    wild = {
        name: Signal(name, s.node, s.start, s.step, np.where(phantom.numpy(), np.float32(77), s.values))
        if s.node == "road"
        else s
        for name, s in ready.source.signals.items()
    }
    same = replace(ready, source=type(ready.source)(ready.features, wild))
    again = batch_with_phantoms(same)
    assert torch.equal(again["phantom"], phantom)
    for name in ("x_road", "anchor", "seen_road"):
        torch.testing.assert_close(again[name], arrays[name], msg=name)
    assert (arrays["seen_road"][:, phantom] == 0).all()


def test_nothing_learnt_at_a_phantom_is_told(ready: Preparation) -> None:
    module = ForecastModule(build_network(ready), ready).eval()
    arrays = batch_with_phantoms(ready)
    phantom = arrays["phantom"]
    told, plain = module.inputs(arrays), module.inputs({k: v for k, v in arrays.items() if k != "phantom"})
    assert "phantom" not in told
    assert (told["embedding_road"][phantom] == 0).all()
    assert (told["sensed_road"] == (~phantom).float()).all()
    torch.testing.assert_close(told["static_road"][~phantom], plain["static_road"][~phantom])
    assert (told["static_road"][phantom] != plain["static_road"][phantom]).any()
    placed = told["static_road"][:, :3]
    assert not placed[phantom].any(), "by its coordinates a network knows a place that it was trained on"
    assert placed[~phantom].any()


def test_a_road_that_was_never_measured_borrows_and_has_no_embedding(small_city: City, quick: TrainConfig) -> None:
    unseen = np.arange(6) == 3
    ready = prepare(silent(small_city, "road", unseen), "congestion", quick)
    assert (ready.sensed == ~unseen).all()
    profile = ready.statistics.profiles["speed"].mean
    assert profile[:, unseen].std() > 5, "the rhythm of its neighbours, not a constant"
    near = ready.neighbourhood.lent(profile, unseen, ~unseen)
    np.testing.assert_allclose(profile, near)
    inputs = ForecastModule(build_network(ready), ready).eval().inputs({})
    assert (inputs["embedding_road"][3] == 0).all()
    assert inputs["sensed_road"].tolist() == [1, 1, 1, 0, 1, 1]


def without_a_sensor_at_3(
    city: City, config: TrainConfig, *, exchange: bool
) -> tuple[ForecastModule, dict[str, torch.Tensor]]:
    """A network that hears of others by borrowing, and by ``exchange``, alone; and a window in which all measure."""
    config = config.merged({"network": {"exchange": exchange, "hubs": 0}})
    ready = prepare(silent(city, "road", np.arange(6) == 3), "congestion", config)
    module = ForecastModule(build_network(ready), ready).eval()
    arrays, _ = Collate(ready, ready.split.train, training=False)([0])
    arrays["seen_road"] = torch.from_numpy(ready.sensed).float().unsqueeze(0)
    for layer in (p for n, p in module.named_parameters() if n.endswith(("taken.weight", "head.weight"))):
        torch.nn.init.normal_(layer)
    return module, arrays


@pytest.mark.parametrize("exchange", [True, False])
def test_only_a_silent_road_hears_its_neighbours_where_they_exchange_nothing(
    small_city: City, quick: TrainConfig, exchange: bool
) -> None:
    module, arrays = without_a_sensor_at_3(small_city, quick, exchange=exchange)
    with torch.inference_mode():
        before = module(arrays)
        arrays["x_road"][:, 0] += 1
        moved = (module(arrays) != before).flatten(2).any(dim=2)[0]
    assert moved[0]
    assert moved[3], "without a sensor it hears of the other"
    assert moved[[1, 2, 4, 5]].any() == exchange


def test_a_road_without_a_sensor_hears_what_its_neighbours_measure_and_not_what_they_are(
    small_city: City, quick: TrainConfig
) -> None:
    module, arrays = without_a_sensor_at_3(small_city, quick, exchange=False)
    with torch.inference_mode():
        before = module(arrays)
        module.embeddings["road"] += 1
        moved = (module(arrays) != before).flatten(2).any(dim=2)[0]
    assert moved.tolist() == [True, True, True, False, True, True]


def test_free_speed_comes_from_the_training_part_alone_and_can_be_taken_back(small_city: City) -> None:
    signal = small_city.signals["speed"]
    until = signal.times[len(signal.times) // 2]
    later = np.where((signal.times > until)[:, None], np.float32(200), signal.values)
    changed = Signal("speed", "road", signal.start, signal.step, later)
    faster = small_city.replace(signals={**small_city.signals, "speed": changed})
    filled = with_free_speed(small_city, until)
    roads = filled.nodes["road"]
    again = with_free_speed(faster, until).nodes["road"]
    np.testing.assert_array_equal(again["free_speed_kmh"], roads["free_speed_kmh"])
    assert roads["free_speed_measured"].all()
    hit = np.arange(6) < 2
    kept = without_measured_speed(filled, hit).nodes["road"]["free_speed_kmh"]
    assert kept.isna().tolist() == hit.tolist()
    given = small_city.replace(nodes={**small_city.nodes, "road": roads.assign(free_speed_measured=False)})
    assert without_measured_speed(given).nodes["road"]["free_speed_kmh"].notna().all()
