"""A training that takes a given time, whatever the machine makes of it."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from citybrain_training.module import ForecastModule


class Deadline(Callback):
    """Ends a training once it has taken ``seconds``, with a last validation after them.

    The learning rate falls with the share of them that is spent, so that a slow machine makes fewer steps of a whole
    schedule instead of a part of a longer one. On a CPU what counts is the time that the process computed, which is not
    what others took from it; on an accelerator the time on the clock. Of several processes the first one's counts, for
    all of them. A training that is resumed goes on counting.
    """

    def __init__(self, seconds: float, *, cpu: bool):
        self.seconds = seconds
        self._clock = time.process_time if cpu else time.perf_counter
        self._began = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._began = self._clock()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self._tell(trainer, pl_module) >= 1:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self._clock() - self._began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._began = self._clock() - state_dict["spent"]

    def _tell(self, trainer: pl.Trainer, module: pl.LightningModule) -> float:
        assert isinstance(module, ForecastModule)
        module.time_spent = trainer.strategy.broadcast((self._clock() - self._began) / self.seconds)
        return module.time_spent
