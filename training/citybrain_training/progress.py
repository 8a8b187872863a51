"""How far a training is: a bar on a terminal, a line for every epoch where there is none."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, RichProgressBar

log = logging.getLogger(__name__)


def told_by(progress: bool, monitor: str) -> Callback:
    """What tells how far a training is: a bar for ``progress``, else lines in this module's log; ``monitor`` is the
    metric that its epochs are judged by."""
    return RichProgressBar() if progress else EpochLog(monitor)


class EpochLog(Callback):
    """A line in the log for every epoch that was validated. A training that is resumed knows its least error."""

    def __init__(self, monitor: str):
        self.monitor = monitor
        self._least = float("inf")

    def state_dict(self) -> dict[str, Any]:
        return {"least": self._least}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._least = state_dict["least"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found = trainer.callback_metrics.get(self.monitor)
        if found is None or trainer.sanity_checking or not trainer.is_global_zero:
            return
        error = float(found)
        better, self._least = error < self._least, min(error, self._least)
        spent = getattr(pl_module, "time_spent", 0.0)
        log.info(
            "epoch %d of at most %s%s: %s %.4g%s",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            f", {min(spent, 1):.0%} of the time" if spent else "",
            self.monitor,
            error,
            ", the least so far" if better else "",
        )
