"""A training that is stopped says so, and goes on where it stopped and nowhere else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import Callback

from citybrain_datasets.city import City
from citybrain_training.config import TrainConfig
from citybrain_training.fitting import fit
from citybrain_training.preparation import prepare


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
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(prepare(small_city, "congestion", quick), tmp_path, callbacks=[_Signal(signal.SIGINT)], progress=False)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning leaves it ignored
