"""iTransformer and DLinear from BasicTS. Both read the target's history alone, as published."""

from __future__ import annotations

from basicts.models.DLinear import DLinear as DLinearNetwork
from basicts.models.DLinear import DLinearConfig
from basicts.models.iTransformer import iTransformerConfig, iTransformerForForecasting
from torch import Tensor, nn

from citybrain_training.peers.inputs import InputMaker
from citybrain_training.peers.network import NetworkPeer, Recipe


class ITransformer(NetworkPeer):
    """Liu et al., ICLR 2024: attention among series, each embedded whole. Settings as for the PEMS sets there."""

    recipe = Recipe(clip=None, batch=32, epochs=10, patience=3)

    def build(self, inputs: InputMaker, edges: Tensor, weight: Tensor) -> nn.Module:
        return iTransformerForForecasting(
            iTransformerConfig(
                input_len=inputs.task.history, output_len=inputs.task.horizon, num_features=len(inputs.nodes),
                hidden_size=512, intermediate_size=512, n_heads=8, num_layers=2, dropout=0.1, use_revin=False,
            )
        )  # fmt: skip

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        return self.network(batch["value"])


class DLinear(NetworkPeer):
    """Zeng et al., AAAI 2023: one linear map for the trend and one for the rest, shared by all nodes."""

    note = "moving average no longer than the window (published: 25 steps of windows of 336)"
    recipe = Recipe(clip=None, batch=32, epochs=10, patience=3)

    def build(self, inputs: InputMaker, edges: Tensor, weight: Tensor) -> nn.Module:
        return DLinearNetwork(
            DLinearConfig(
                input_len=inputs.task.history, output_len=inputs.task.horizon, num_features=len(inputs.nodes),
                # A moving average longer than the window would only repeat its ends.
                moving_avg=min(25, inputs.task.history // 2 * 2 - 1),
            )
        )  # fmt: skip

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        return self.network(batch["value"])
