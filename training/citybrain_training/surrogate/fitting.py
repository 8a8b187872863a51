"""Fit: a surrogate trained by Lightning on the runs of one or several networks."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from citybrain_datasets.records import write_atomically
from citybrain_models.nn.surrogate import SurrogateEnsemble
from citybrain_training.fitting import load_weights
from citybrain_training.interruption import told_as_stopped
from citybrain_training.progress import told_by
from citybrain_training.surrogate.config import SurrogateConfig
from citybrain_training.surrogate.module import Batch, SurrogateModule, build_network
from citybrain_training.surrogate.runs import Study

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


@dataclass(frozen=True)
class FittedSurrogate:
    """A trained module with its best weights, and what the training cost."""

    module: SurrogateModule
    epochs: int
    cpu_seconds: float
    validation_loss: float
    """Loss on the validation runs, that of the segments and of the sums."""

    @property
    def network(self) -> SurrogateEnsemble:
        return self.module.network


class Rows(IterableDataset[Batch]):
    """Batches of the runs of several studies, each batch from one of them."""

    def __init__(self, studies: list[Study], batch: int, seed: int | None = None):
        self.studies = [{n: torch.from_numpy(a) for n, a in study.arrays.items()} for study in studies]
        self.batch, self.random = batch, None if seed is None else np.random.default_rng(seed)

    def __len__(self) -> int:
        return sum(math.ceil(len(s["levers"]) / self.batch) for s in self.studies)

    def __iter__(self) -> Iterator[Batch]:
        batches: list[tuple[int, np.ndarray]] = []
        for number, study in enumerate(self.studies):
            rows = np.arange(len(study["levers"]))
            if self.random is not None:
                self.random.shuffle(rows)
            batches += [(number, rows[i : i + self.batch]) for i in range(0, len(rows), self.batch)]
        if self.random is not None:
            self.random.shuffle(batches)
        for number, rows in batches:
            index = torch.from_numpy(rows)
            yield number, {name: tensor[index] for name, tensor in self.studies[number].items()}


def fit_surrogate(
    train: list[Study],
    validate: list[Study],
    config: SurrogateConfig,
    folder: Path,
    *,
    start: SurrogateEnsemble | None = None,
    logger: Logger | None = None,
    progress: bool = False,
) -> FittedSurrogate:
    """Trains into ``folder``, which receives ``best.ckpt`` and, after every epoch, ``last.ckpt``: called again with the
    same configuration and runs, it goes on from there. ``start`` goes on from a network that is trained already.

    ``validate`` has the same places as ``train``, in the same order.
    """
    torch.set_num_threads(config.threads)
    pl.seed_everything(config.seed, verbose=False)
    module = SurrogateModule(start or build_network(config, train[0]), config, train)
    last = _claim(
        folder, {"config": config.model_dump(mode="json"), "runs": [fingerprint(s) for s in (*train, *validate)]}
    )
    best = ModelCheckpoint(folder, "best", monitor="val_loss", enable_version_counter=False)
    latest = ModelCheckpoint(folder, "last", monitor=None, enable_version_counter=False)  # every epoch, better or not
    callbacks: list[Callback] = [best, latest, told_by(progress, "val_loss")]
    if config.average:
        callbacks.append(EMAWeightAveraging(decay=config.average))
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=config.epochs, max_time=timedelta(minutes=config.minutes),
        gradient_clip_val=1.0, num_sanity_val_steps=0, enable_model_summary=False, enable_progress_bar=progress,
        logger=logger or False, callbacks=callbacks, default_root_dir=folder, log_every_n_steps=10,
    )  # fmt: skip
    with warnings.catch_warnings(), told_as_stopped(trainer):
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", ".*IterableDataset.*__len__.*")
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning's own use of torch
        trainer.fit(
            module,
            DataLoader(Rows(train, config.batch, config.seed), batch_size=None),
            DataLoader(Rows(validate, config.batch), batch_size=None),
            ckpt_path=last if last.exists() else None,
        )
    load_weights(module, Path(best.best_model_path))  # type: ignore[arg-type]  # it needs no more than a module
    module.eval()
    score = float(best.best_model_score) if best.best_model_score is not None else float("nan")
    return FittedSurrogate(module, trainer.current_epoch, module.cpu_seconds, score)


def fingerprint(study: Study) -> str:
    """SHA-256 over the scenarios and their simulated changes."""
    digest = hashlib.sha256(study.site.key.encode())
    for run in study.runs:
        digest.update(run.scenario.model_dump_json().encode())
    digest.update(np.ascontiguousarray(study.arrays["change"], "<f4").tobytes())
    return digest.hexdigest()


def _claim(folder: Path, about: dict[str, object]) -> Path:
    """Where the training's last checkpoint lies; what another training left in ``folder`` is taken away."""
    folder.mkdir(parents=True, exist_ok=True)
    told = json.dumps(about, indent=1, sort_keys=True) + "\n"
    path, last = folder / "training.json", folder / "last.ckpt"
    if not path.exists() or path.read_text(encoding="utf-8") != told:
        for checkpoint in (last, folder / "best.ckpt"):
            checkpoint.unlink(missing_ok=True)
        write_atomically(path, told)
    return last


@torch.inference_mode()
def predict(network: SurrogateEnsemble, study: Study, batch: int = 32) -> np.ndarray:
    """Quantiles of the change for every run of ``study``, ``[run, segment, slot, signal, quantile]``."""
    network.form = "gather"
    graph = {name: torch.from_numpy(array) for name, array in study.graph.items()}
    parts: list[Tensor] = [network.eval()({**graph, **rows}) for _, rows in Rows([study], batch)]
    return torch.cat(parts).numpy()
