"""The Lightning wrapper of a :class:`SurrogateEnsemble`: its loss and its optimiser."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from citybrain_datasets.scenarios.air import air_step
from citybrain_datasets.scenarios.geography import place_of
from citybrain_models.nn.exchange import Form
from citybrain_models.nn.surrogate import SIGNALS, SurrogateEnsemble, SurrogateNet
from citybrain_models.surrogate.inputs import EDGE_CHANNELS, RELATIONS
from citybrain_models.surrogate.levers import CHANNELS
from citybrain_models.surrogate.scorer import USUAL_WEATHER
from citybrain_training.module import warm_cosine
from citybrain_training.surrogate.config import SurrogateConfig
from citybrain_training.surrogate.runs import Study

Batch = tuple[int, dict[str, Tensor]]
"""Which study, and rows of its arrays."""


def build_network(config: SurrogateConfig, study: Study) -> SurrogateEnsemble:
    """Fresh networks, their outputs scaled by the changes of ``study``."""
    return SurrogateEnsemble(_member(config, study) for _ in range(config.members))


def _member(config: SurrogateConfig, study: Study) -> SurrogateNet:
    relative = study.arrays["change"] / study.arrays["unit"]
    return SurrogateNet(
        context=study.arrays["context"].shape[-1],
        levers=len(CHANNELS),
        slots=study.arrays["levers"].shape[2],
        edge_channels=len(EDGE_CHANNELS),
        relations=len(RELATIONS),
        quantiles=config.quantiles,
        engines=CHANNELS.index("cleaner"),
        scale=[float(max(relative[..., k].std(), 1e-6)) for k in range(len(SIGNALS))],
        width=config.width,
        blocks=config.blocks,
        hubs=config.hubs,
        dropout=config.dropout,
    )


class SurrogateModule(pl.LightningModule):
    """Trains on the runs of one or several road networks; holds what belongs to each of them."""

    def __init__(self, network: SurrogateEnsemble, config: SurrogateConfig, studies: list[Study]):
        super().__init__()
        self.network, self.config = network, config
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(config.quantiles, dtype=torch.float32), persistent=False)
        self.median = list(config.quantiles).index(0.5)
        self.form: Form = "gather"
        self.places = [Place(study) for study in studies]
        self._begun, self._before = time.process_time(), 0.0

    @property
    def cpu_seconds(self) -> float:
        """What the training has cost, with what came before it was broken off and taken up again."""
        return self._before + time.process_time() - self._begun

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["cpu_seconds"] = self.cpu_seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._before, self._begun = checkpoint["cpu_seconds"], time.process_time()

    def forward(self, study: int, rows: dict[str, Tensor]) -> Tensor:
        self.network.form = self.form
        return self.network({**self.places[study].graph, **rows})

    def each(self, study: int, rows: dict[str, Tensor]) -> list[Tensor]:
        """What every member says."""
        self.network.form = self.form
        return self.network.each({**self.places[study].graph, **rows})

    def loss(self, said: Tensor, rows: dict[str, Tensor], place: Place) -> Tensor:
        """Pinball loss of the segments in units of the usual change, and absolute error of the sums."""
        unit = (rows["unit"] * self.network.scale).unsqueeze(-1)
        error = (rows["change"].unsqueeze(-1) - said) / unit
        pinball = torch.maximum(self.levels * error, (self.levels - 1) * error).mean()
        return pinball + self.config.total_weight * place.sums_error(said[..., self.median], rows["change"])

    def training_step(self, batch: Batch, _: int) -> Tensor:
        study, rows = batch
        # Each learns from its own error and is clipped with the others: their mean would be one large network.
        loss = torch.stack([self.loss(said, rows, self.places[study]) for said in self.each(study, rows)]).mean()
        self.log("train_loss", loss, prog_bar=True, on_epoch=True, on_step=False, batch_size=len(rows["levers"]))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        study, rows = batch
        said = self(study, rows)
        place, size = self.places[study], len(rows["levers"])
        total = place.delay_error(said[..., self.median], rows["change"])
        self.log("val_loss", self.loss(said, rows, place), prog_bar=True, batch_size=size)
        self.log("val_delay", total, prog_bar=True, batch_size=size)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        weights = [p for p in self.parameters() if p.ndim > 1]
        rest = [p for p in self.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": weights, "weight_decay": self.config.weight_decay}, {"params": rest, "weight_decay": 0.0}],
            lr=self.config.learning_rate,
        )
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step / total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Place:
    """What belongs to one study: its graph, and how changes add up to delay, distance and emission by zone, and to
    PM2.5 at its stations and for its people."""

    def __init__(self, study: Study):
        self.graph = {name: torch.from_numpy(array) for name, array in study.graph.items()}
        hours = study.usual.slot_seconds / 3600
        free = study.network.length_m / 1000 / study.network.free_speed_kmh
        weights = np.stack([-free, np.ones_like(free), np.zeros_like(free)], axis=-1) * hours
        self._delay = torch.from_numpy(weights.astype(np.float32))[:, None, :]
        self._distance = torch.from_numpy((study.network.length_m / 1000 * hours).astype(np.float32))[:, None]
        zone = (study.network.starts + study.network.ends).argmax(axis=0)
        self._member = torch.eye(len(study.network.starts))[torch.from_numpy(zone)]
        self._breathed = torch.from_numpy(_breathed(study))
        change = torch.from_numpy(study.arrays["change"])
        self._scales = {n: _usual_size(part) for n, part in self._sums(change).items() if part.numel()}

    def sums_error(self, said: Tensor, true: Tensor) -> Tensor:
        """Mean absolute error of the sums on a scale that is linear up to their usual size and logarithmic beyond, so
        that a rare gridlock does not drown what a thousand common measures differ by."""
        there, here = self._sums(said), self._sums(true)
        return torch.stack([_apart(there[n], here[n], scale) for n, scale in self._scales.items()]).mean()

    def delay_error(self, said: Tensor, true: Tensor) -> Tensor:
        """The same of the delay of the whole city alone."""
        return _apart(self._sums(said)["delay"], self._sums(true)["delay"], self._scales["delay"])

    def _sums(self, change: Tensor) -> dict[str, Tensor]:
        """Of ``[run, segment, slot, signal]``: over the city ``[run]``, by zone and slot, and of PM2.5."""
        parts = {
            "delay": (change * self._delay).sum(dim=-1),
            "distance": change[..., 0] * self._distance,
            "emission": change[..., 2],
        }
        zones = {f"{n} by zone": torch.einsum("bst,sz->bzt", part, self._member) for n, part in parts.items()}
        over = {n: part.sum(dim=(1, 2)) for n, part in parts.items()}
        air = parts["emission"].mean(dim=2) @ self._breathed
        return {**zones, **over, "course": parts["delay"].sum(dim=1), "stations": air[:, :-1], "people": air[:, -1]}


def _breathed(study: Study) -> np.ndarray:
    """What one g/h of each segment comes to in usual weather, µg/m³ at each station and, in the last column, for the
    mean of all people: float32 ``[segment, station + 1]``."""
    step = air_step(study.site, USUAL_WEATHER, study.window, base_emission=study.usual.emission.T)
    place = place_of(study.site.city)
    matrix = step.matrix.mean(axis=(0, 1))
    stations, cells = np.split(matrix, [len(place.stations)])
    people = place.population @ cells / place.population.sum()
    return np.concatenate([stations, people[None]]).T.astype(np.float32)


def _usual_size(change: Tensor) -> float:
    """Median size of what changed at all, 1 where nothing did."""
    size = change.abs()
    return float(size[size > 0].median()) if (size > 0).any() else 1.0


def _apart(said: Tensor, true: Tensor, scale: float) -> Tensor:
    return (torch.asinh(said / scale) - torch.asinh(true / scale)).abs().mean()
