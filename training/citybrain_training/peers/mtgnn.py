"""MTGNN from torch-geometric-temporal, with the settings its authors published for traffic."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric_temporal.nn.attention.mtgnn import MTGNN as Network

from citybrain_training.peers.inputs import InputMaker
from citybrain_training.peers.network import NetworkPeer, Recipe, covariate_width, node_channels


class MTGNN(NetworkPeer):
    """Wu et al., KDD 2020: mix-hop propagation on a learned graph, dilated inception in time."""

    recipe = Recipe(weight_decay=1e-4)

    def build(self, inputs: InputMaker, edges: Tensor, weight: Tensor) -> nn.Module:
        nodes = len(inputs.nodes)
        return Network(
            gcn_true=True, build_adj=True, gcn_depth=2, num_nodes=nodes, kernel_set=[2, 3, 6, 7], kernel_size=7,
            dropout=0.3, subgraph_size=min(20, nodes), node_dim=40, dilation_exponential=1, conv_channels=32,
            residual_channels=32, skip_channels=64, end_channels=128, seq_length=inputs.task.history,
            in_dim=1 + covariate_width(inputs), out_dim=inputs.task.horizon, layers=3, propalpha=0.05, tanhalpha=3,
            layer_norm_affline=True,
        )  # fmt: skip

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        channels = torch.cat(node_channels(batch), dim=-1).permute(0, 3, 2, 1)
        return self.network(channels)[..., 0]
