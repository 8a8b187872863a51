"""Two processes train what one does: the same windows, the same effective batch, the same result but for noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from citybrain_datasets.city import City
from citybrain_training.config import TrainConfig
from citybrain_training.fitting import Fitted, fit
from citybrain_training.preparation import prepare

TWO = {"devices": 2, "strategy": "ddp_spawn"}
"""Two processes on this machine, which talk through gloo; spawned, so that no thread of this one is copied."""


@pytest.fixture(scope="module")
def averaged(quick: TrainConfig) -> TrainConfig:
    return quick.merged({"fit": {"epochs": 3, "average": 0.9}})


@pytest.fixture(scope="module")
def alone(small_city: City, averaged: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Fitted]:
    """The same training with three seeds, in one process each."""
    folder = tmp_path_factory.mktemp("alone")
    return [
        fit(prepare(small_city, "congestion", averaged.merged({"seed": seed})), folder / str(seed), progress=False)
        for seed in (1, 2, 3)
    ]


def test_two_processes_reach_what_one_does_within_the_noise_of_seeds(
    small_city: City, averaged: TrainConfig, alone: list[Fitted], tmp_path: Path
) -> None:
    preparation = prepare(small_city, "congestion", averaged.merged({"trainer": TWO}))
    together = fit(preparation, tmp_path, progress=False)
    assert (together.epochs, together.steps) == (alone[0].epochs, alone[0].steps)
    errors = np.array([fitted.best_validation_mae for fitted in alone])
    noise = max(float(errors.std(ddof=1)), 0.02 * float(errors.mean()))
    assert abs(together.best_validation_mae - errors.mean()) <= 3 * noise


def test_averaging_the_weights_leaves_the_graph_alone(
    small_city: City, averaged: TrainConfig, alone: list[Fitted]
) -> None:
    """Averages of neighbour numbers would be rounded down to another neighbour's."""
    graph = prepare(small_city, "congestion", averaged).graph
    for name, array in graph.items():
        assert torch.equal(getattr(alone[0].module, f"graph_{name}"), torch.from_numpy(array)), name


def test_two_processes_end_together_when_the_time_of_the_first_is_up(
    small_city: City, averaged: TrainConfig, tmp_path: Path
) -> None:
    config = averaged.merged({"fit": {"epochs": 1000, "average": 0.9, "minutes": 0.05}, "trainer": TWO})
    fitted = fit(prepare(small_city, "congestion", config), tmp_path, progress=False)
    assert fitted.epochs < 1000
    assert np.isfinite(fitted.best_validation_mae)
