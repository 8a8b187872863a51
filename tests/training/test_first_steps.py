"""Where training begins, and what its average of weights remembers of that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from citybrain_datasets.city import City
from citybrain_datasets.signals import Signal
from citybrain_training.batches import Collate
from citybrain_training.config import TrainConfig
from citybrain_training.fitting import fit
from citybrain_training.linear_start import start_linear
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.preparation import prepare

STANDING = {"epochs": 1, "learning_rate": 1e-9, "windows_per_epoch": 64}
"""A training that moves nothing: what it reports is where it began."""


@pytest.mark.parametrize("task", ["congestion", "pm25"])
@pytest.mark.parametrize("members", [1, 2])
def test_training_begins_better_than_from_random_weights(
    task: str, members: int, small_city: City, quick: TrainConfig, tmp_path: Path
) -> None:
    changes = {"horizon": 12, "history": 12, "coarse": [0, 0]} if task == "pm25" else {}
    began = {}
    for linear in (True, False):
        config = quick.merged(
            {"task": changes, "network": {"members": members}, "fit": {**STANDING, "linear_start": linear}}
        )
        preparation = prepare(small_city, task, config)
        began[linear] = fit(preparation, tmp_path / str(linear), progress=False).best_validation_mae
    assert began[True] < 0.9 * began[False]


@pytest.mark.parametrize("task", ["congestion", "pm25"])
def test_no_lead_begins_worse_than_the_blend_it_departs_from(task: str, small_city: City, quick: TrainConfig) -> None:
    preparation = prepare(small_city, task, quick)
    module = ForecastModule(build_network(preparation), preparation).eval()
    assert start_linear(module.network, preparation)
    issues = preparation.split.validate
    arrays, answer = Collate(preparation, issues, training=False)(range(len(issues)))
    with torch.no_grad():
        median = module(arrays)[..., preparation.task.median].numpy()
    scale = preparation.statistics.scalers[preparation.task.target].scale
    anchor, truth = arrays["anchor"].numpy(), scale(answer.numpy())
    blend = (anchor[..., :1] + anchor[..., 1:2] + anchor[..., 2:]) / 3
    whole = np.isfinite(truth).all(axis=-1)
    began, before = (np.abs(said - truth)[whole].mean(axis=0) for said in (scale(median), blend))
    assert (began <= before + 1e-4).all()
    assert (began < before - 1e-2).any()


def test_where_nothing_can_be_solved_the_weights_stay(small_city: City, quick: TrainConfig) -> None:
    speed = small_city.signals["speed"]
    gaps = speed.values.copy()
    gaps[::12] = float("nan")
    gappy = Signal("speed", "road", speed.start, speed.step, gaps)
    city = small_city.replace(signals={**small_city.signals, "speed": gappy})
    preparation = prepare(city, "congestion", quick)
    network = build_network(preparation)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    assert not start_linear(network, preparation)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


def test_a_short_training_does_not_remember_its_first_weights(
    small_city: City, quick: TrainConfig, tmp_path: Path
) -> None:
    reached = {}
    for average in (0.0, 0.9999):
        config = quick.merged({"fit": {"epochs": 4, "average": average, "linear_start": False}})
        preparation = prepare(small_city, "congestion", config)
        reached[average] = fit(preparation, tmp_path / str(average), progress=False).best_validation_mae
    # With a fixed decay the average of some thirty steps would still be the first weights, whose error is twice this.
    assert reached[0.9999] < 1.3 * reached[0.0]
