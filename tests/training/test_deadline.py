"""A training that is given a time takes that time, with its whole schedule in it. The clock here is the test's."""

from __future__ import annotations

import itertools
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from citybrain_datasets.city import City
from citybrain_training import deadline
from citybrain_training.config import TrainConfig
from citybrain_training.fitting import fit
from citybrain_training.preparation import prepare

STEPS = 256 // 32
"""Of an epoch."""


class Rates(Callback):
    """The learning rate at every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at it takes a second."""
    monkeypatch.setattr(deadline.time, "process_time", lambda ticks=itertools.count(): float(next(ticks)))


def steps(folder: Path) -> int:
    return torch.load(folder / "last.ckpt", weights_only=True)["global_step"]


@pytest.mark.usefixtures("clock")
def test_a_training_ends_with_its_time_and_so_does_its_schedule(
    small_city: City, quick: TrainConfig, tmp_path: Path
) -> None:
    rates = Rates()
    config = quick.merged({"fit": {"epochs": 50, "minutes": 0.5}})
    fitted = fit(prepare(small_city, "congestion", config), tmp_path, callbacks=[rates], progress=False)
    assert STEPS < fitted.steps < 30
    assert fitted.steps % STEPS, "it may end within an epoch"
    assert fitted.best_validation_mae < float("inf")
    peak = rates.seen.index(max(rates.seen))
    assert rates.seen[peak:] == sorted(rates.seen[peak:], reverse=True)
    assert rates.seen[-1] < 0.05 * max(rates.seen)


@pytest.mark.usefixtures("clock")
def test_epochs_that_end_first_end_the_training(small_city: City, quick: TrainConfig, tmp_path: Path) -> None:
    config = quick.merged({"fit": {"epochs": 2, "minutes": 60}})
    assert fit(prepare(small_city, "congestion", config), tmp_path, progress=False).steps == 2 * STEPS


@pytest.mark.usefixtures("clock")
def test_a_resumed_training_has_only_the_rest_of_its_time(small_city: City, quick: TrainConfig, tmp_path: Path) -> None:
    def training(epochs: int, folder: Path, *, resume: bool = False) -> int:
        config = quick.merged({"fit": {"epochs": epochs, "minutes": 0.5}})
        return fit(prepare(small_city, "congestion", config), folder, progress=False, resume=resume).steps

    whole = training(50, tmp_path / "whole")
    training(1, tmp_path / "parts")
    assert steps(tmp_path / "parts") == STEPS
    assert training(50, tmp_path / "parts", resume=True) == pytest.approx(whole, abs=3)
