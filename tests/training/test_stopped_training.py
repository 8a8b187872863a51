"""A training that is stopped, or cannot go on, says so; it goes on where it stopped and nowhere else."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import Callback

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityBrainError
from citybrain_training.config import TrainConfig
from citybrain_training.fitting import fit
from citybrain_training.preparation import prepare
from citybrain_training.weights import WeightsError


class _Signal(Callback):
    """Sends this process a signal in the midst of an epoch."""

    def __init__(self, which: signal.Signals, epoch: int = 0):
        self.which = which
        self.epoch = epoch

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), self.which)


def test_a_training_that_is_told_to_end_does_not_end_as_one_that_succeeded(
    small_city: City, quick: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        fit(prepare(small_city, "congestion", quick), tmp_path, callbacks=[_Signal(signal.SIGTERM)], progress=False)
    assert ended.value.code == 128 + signal.SIGTERM


def test_ctrl_c_is_told_as_such(small_city: City, quick: TrainConfig, tmp_path: Path) -> None:
    # What runs in the background of a shell is started with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(prepare(small_city, "congestion", quick), tmp_path, callbacks=[_Signal(signal.SIGINT)], progress=False)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning leaves it ignored


def test_a_stopped_training_leaves_nothing_of_an_earlier_one_to_go_on_from(
    small_city: City, quick: TrainConfig, tmp_path: Path
) -> None:
    preparation = prepare(small_city, "congestion", quick.merged({"fit": {"epochs": 1}}))
    fit(preparation, tmp_path, progress=False)
    with pytest.raises(SystemExit):
        fit(preparation, tmp_path, callbacks=[_Signal(signal.SIGTERM)], progress=False)
    assert not list(tmp_path.glob("*.ckpt"))


def test_what_belongs_to_another_network_is_not_gone_on_with(
    small_city: City, quick: TrainConfig, tmp_path: Path
) -> None:
    fit(prepare(small_city, "congestion", quick.merged({"fit": {"epochs": 1}})), tmp_path, progress=False)
    wider = prepare(small_city, "congestion", quick.merged({"network": {"width": 24}}))
    with pytest.raises(WeightsError, match=r"last\.ckpt: belongs to another network"):
        fit(wider, tmp_path, resume=True, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainer": {"acelerator": "gpu"}}, "trainer: .*acelerator"),
        ({"trainer": {"precision": "17"}}, "trainer: Precision '17' is invalid"),
        ({"trainer": {"callbacks": []}}, "trainer: .*callbacks"),
        ({"trainer": {"fast_dev_run": True}}, "no epoch was trained and validated"),
        ({"trainer": {"max_steps": 3}}, "no epoch was trained and validated"),
        ({"trainer": {"limit_val_batches": 0}}, "no epoch was trained and validated"),
        ({"fit": {"learning_rate": 1e9, "epochs": 1}}, "the validation error is no number"),
    ],
)
def test_a_training_that_cannot_end_well_says_why(
    small_city: City, quick: TrainConfig, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CityBrainError, match=message):
        fit(prepare(small_city, "congestion", quick.merged(change)), tmp_path, progress=False)


def test_an_epoch_of_fewer_windows_than_a_batch_makes_a_step(
    small_city: City, quick: TrainConfig, tmp_path: Path
) -> None:
    few = quick.merged({"fit": {"epochs": 1, "windows_per_epoch": 16}})
    assert fit(prepare(small_city, "congestion", few), tmp_path, progress=False).steps == 1


def test_what_draws_no_bar_has_a_line_for_each_epoch(
    small_city: City, quick: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    preparation = prepare(small_city, "congestion", quick.merged({"fit": {"epochs": 2}}))
    with caplog.at_level("INFO", "citybrain_training.progress"):
        fitted = fit(preparation, tmp_path, progress=False)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("epoch 1 of at most 2: val_mae ")
    assert first.endswith(", the least so far")
    assert second.startswith("epoch 2 of at most 2: val_mae ")
    least = min(float(line.split("val_mae ")[1].split(",")[0]) for line in (first, second))
    assert least == pytest.approx(fitted.best_validation_mae, rel=1e-3)
    caplog.clear()
    longer = prepare(small_city, "congestion", quick.merged({"fit": {"epochs": 3}}))
    with caplog.at_level("INFO", "citybrain_training.progress"):
        fit(longer, tmp_path, resume=True, progress=False)
    (third,) = (record.getMessage() for record in caplog.records)
    assert third.startswith("epoch 3 of at most 3: val_mae ")
    better = float(third.split("val_mae ")[1].split(",")[0]) < least
    assert third.endswith(", the least so far") == better, "a training that is resumed knows its least error"
