"""The Lightning wrapper of a network: its graph, its loss, its optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import MeanMetric

from citybrain_datasets.graph import EDGE_CHANNELS, NEARBY_CHANNELS, messages_of
from citybrain_datasets.statistics import LOGARITHMIC
from citybrain_models.nn.citynet import CityNet, MessageKind
from citybrain_models.nn.ensemble import Ensemble
from citybrain_models.nn.exchange import Form
from citybrain_training.lead_weights import lead_weights
from citybrain_training.preparation import GROUND, Preparation

DENSE_UP_TO = 1_500
"""Nodes up to which training multiplies by the filled adjacency, the fastest form backwards on a CPU."""


def build_network(preparation: Preparation) -> CityNet | Ensemble:
    """A fresh network of the shape that a preparation's features and graph ask for."""
    task, config = preparation.task, preparation.config.network
    probe = preparation.features(preparation.source.window(preparation.split.train[:1]))
    told = config.graph and config.exchange
    kinds = messages_of(task, frozenset(preparation.city.edges)) if told else ()
    windy = bool({"wind_speed", "wind_direction"} <= set(task.inputs))
    scaler = preparation.statistics.scalers[task.target]
    shape: dict[str, Any] = dict(
        target=task.node,
        features={name[2:]: array.shape[-1] for name, array in probe.items() if name.startswith("x_")},
        statics={n[7:]: a.shape[-1] for n, a in preparation.graph.items() if n.startswith("static_")},
        time_features=probe["time"].shape[-1],
        messages=[MessageKind(k.name, k.sender, k.receiver, windy and k.receiver == "air") for k in kinds],
        edge_channels=len(EDGE_CHANNELS),
        nearby_channels=len(NEARBY_CHANNELS) if config.graph else 0,
        horizon=task.horizon,
        quantiles=task.quantiles,
        mean=scaler.mean,
        std=scaler.std,
        logarithmic=task.target in LOGARITHMIC,
        width=config.width,
        embedding=config.embedding,
        blocks=config.blocks,
        hubs=config.hubs,
        dropout=config.dropout,
        pull=config.profile_pull * -np.expm1(-np.arange(1, task.horizon + 1) * task.step_minutes / 1440),
    )
    if config.members == 1:
        return CityNet(**shape)
    return Ensemble(CityNet(**shape) for _ in range(config.members))


class ForecastModule(pl.LightningModule):
    """Trains a :class:`CityNet` or several; holds what belongs to the places: graph arrays and node embeddings."""

    def __init__(self, network: CityNet | Ensemble, preparation: Preparation):
        super().__init__()
        self.network = network
        self.config = preparation.config.fit
        self.task = preparation.task
        learnt_from = preparation.source.target.between(None, preparation.split.train[-1]).values
        thinned = learnt_from[:: max(1, len(learnt_from) // 5000)]
        self.unit = float(max(np.nanstd(thinned), 1e-3))  # as a scaler's: what never changes has no spread to divide by
        self.levels: Tensor
        self.lead_weights: Tensor
        self.register_buffer("levels", torch.tensor(self.task.quantiles, dtype=torch.float32))
        self.register_buffer("lead_weights", torch.from_numpy(lead_weights(preparation)), persistent=False)
        self.graph_names = list(preparation.graph)
        for name, array in preparation.graph.items():
            self.register_buffer(f"graph_{name}", torch.from_numpy(array), persistent=False)
        self.strange: Tensor
        self.register_buffer("strange", torch.from_numpy(preparation.strange), persistent=False)
        size = preparation.config.network.embedding
        self.embeddings = nn.ParameterDict(
            {
                name[7:]: nn.Parameter(0.1 * torch.randn(array.shape[0], size))
                for name, array in preparation.graph.items()
                if name.startswith("static_")
            }
        )
        largest = max(array.shape[0] for array in preparation.graph.values())
        self.train_form: Form = "dense" if largest <= DENSE_UP_TO else "sparse"
        self.val_error = MeanMetric()
        self.time_spent = 0.0
        """Share of the time given to the training that is spent; 0 where only its epochs end it."""
        self.ground = preparation.ground

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[GROUND] = self.ground

    def inputs(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Feature arrays joined by the graph's.

        ``arrays["phantom"]``, bool ``[node]``, marks a disturbed batch: at its nodes nothing is told that a sensor has
        learnt, and in training some embeddings are withheld. A place where training knows no sensor never had one.
        """
        arrays = dict(arrays)
        graph = {name: getattr(self, f"graph_{name}") for name in self.graph_names}
        phantom = arrays.pop("phantom", None)
        sensed, static = f"sensed_{self.task.node}", f"static_{self.task.node}"
        if phantom is not None:
            graph[sensed] = graph[sensed] * ~phantom
            graph[static] = torch.where(phantom.unsqueeze(-1), self.strange, graph[static])
        for node, table in self.embeddings.items():
            if node == self.task.node:
                table = table * graph[sensed].unsqueeze(-1)
            if self.training and phantom is not None and self.config.embedding_dropout:
                keep = torch.rand(table.shape[0], 1, device=table.device) >= self.config.embedding_dropout
                table = table * keep
            graph[f"embedding_{node}"] = table
        return {**arrays, **graph}

    def forward(self, arrays: Mapping[str, Tensor]) -> Tensor:
        self.network.form = "dense" if self.train_form == "dense" else "gather"
        return self.network(self.inputs(arrays))

    def loss(self, forecast: Tensor, answer: Tensor) -> Tensor:
        """Absolute error of the median plus the mean pinball loss of the other quantiles, where there is an answer,
        in units of the target's standard deviation; leads count as :func:`lead_weights` says."""
        counted = torch.isfinite(answer) * self.lead_weights
        error = (torch.nan_to_num(answer).unsqueeze(-1) - forecast) / self.unit
        pinball = torch.maximum(self.levels * error, (self.levels - 1) * error)
        pinball = (pinball * counted.unsqueeze(-1)).sum(dim=(0, 1, 2)) / counted.sum().clamp(min=1e-6)
        middle = pinball[self.task.median]
        others = (pinball.sum() - middle) / max(len(self.task.quantiles) - 1, 1)
        return 2 * middle + self.config.quantile_weight * 2 * others

    def training_step(self, batch: tuple[dict[str, Tensor], Tensor], _: int) -> Tensor:
        arrays, answer = batch
        self.network.form = self.train_form
        inputs = self.inputs(arrays)
        said = self.network.each(inputs) if isinstance(self.network, Ensemble) else [self.network(inputs)]
        loss = torch.stack([self.loss(forecast, answer) for forecast in said]).mean()
        self.log(
            "train_loss", loss, prog_bar=True, on_epoch=True, on_step=False, batch_size=len(answer), sync_dist=True
        )
        return loss

    def validation_step(self, batch: tuple[dict[str, Tensor], Tensor], _: int) -> None:
        arrays, answer = batch
        error = (self(arrays)[..., self.task.median] - answer).abs()
        known = torch.isfinite(error)
        self.val_error.update(error[known].sum() / known.sum().clamp(min=1), known.sum())
        self.log("val_mae", self.val_error, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        decayed = [p for n, p in self.named_parameters() if p.ndim > 1 and not n.startswith("embeddings")]
        plain = [p for n, p in self.named_parameters() if p.ndim <= 1 or n.startswith("embeddings")]
        groups = [{"params": decayed, "weight_decay": self.config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate, fused=True)
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warm_cosine(max(step / total, self.time_spent))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warm_cosine(progress: float, warm: float = 0.1, floor: float = 1e-3) -> float:
    """Learning rate as a share of its peak at ``progress`` 0–1 of the training: a linear rise, then half a cosine."""
    if progress < warm:
        return floor + (1 - floor) * progress / warm
    return floor + (1 - floor) * (1 + math.cos(math.pi * min((progress - warm) / (1 - warm), 1))) / 2
