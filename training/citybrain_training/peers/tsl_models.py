"""Graph WaveNet, DCRNN, AGCRN, GRU-GCN and STID from torch-spatiotemporal, with that library's published settings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_sparse import SparseTensor
from tsl.nn.models import AGCRNModel, DCRNNModel, GraphWaveNetModel, GRUGCNModel, STIDModel

from citybrain_training.peers.inputs import InputMaker
from citybrain_training.peers.network import NetworkPeer, Recipe, covariate_width, node_channels


class _GraphPeer(NetworkPeer):
    """Reads value, mask, other inputs and clock along given edges."""

    def build(self, inputs: InputMaker, edges: Tensor, weight: Tensor) -> nn.Module:
        nodes = len(inputs.nodes)
        self.graph: tuple = (edges, weight)
        if not edges.is_cuda:
            # A receiver-major sparse matrix gives the same in half the time, but its wheels are seldom built for CUDA.
            self.graph = (SparseTensor(row=edges[1], col=edges[0], value=weight, sparse_sizes=(nodes, nodes)),)
        return self.model(inputs)

    def model(self, inputs: InputMaker) -> nn.Module:
        raise NotImplementedError

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        value, covariates = node_channels(batch)
        return self.network(value, *self.graph, u=covariates)[..., 0]


class GraphWaveNet(_GraphPeer):
    """Wu et al., IJCAI 2019: dilated convolutions, given and learned adjacency."""

    recipe = Recipe(weight_decay=1e-4)

    def model(self, inputs: InputMaker) -> nn.Module:
        return GraphWaveNetModel(
            input_size=1, output_size=1, horizon=inputs.task.horizon, exog_size=covariate_width(inputs),
            n_nodes=len(inputs.nodes),
        )  # fmt: skip


class DCRNN(_GraphPeer):
    """Li et al., ICLR 2018: diffusion convolution inside a GRU."""

    note = "the library reads out all leads at once in place of the published recurrent decoder"

    def model(self, inputs: InputMaker) -> nn.Module:
        return DCRNNModel(
            input_size=1, output_size=1, horizon=inputs.task.horizon, exog_size=covariate_width(inputs),
            hidden_size=64, ff_size=128, kernel_size=2, n_layers=1, cache_support=True,
        )  # fmt: skip


class GRUGCN(_GraphPeer):
    """Gao & Ribeiro, ICML 2022: a GRU at each node, then graph convolutions."""

    recipe = Recipe(learning_rate=3e-3, batch=256)

    def model(self, inputs: InputMaker) -> nn.Module:
        return GRUGCNModel(
            input_size=1, output_size=1, horizon=inputs.task.horizon, exog_size=covariate_width(inputs),
            hidden_size=32, enc_layers=1, gcn_layers=2,
        )  # fmt: skip


class AGCRN(NetworkPeer):
    """Bai et al., NeurIPS 2020: a GRU whose weights and graph come from learned node embeddings."""

    recipe = Recipe(learning_rate=3e-3)

    def build(self, inputs: InputMaker, edges: Tensor, weight: Tensor) -> nn.Module:
        return AGCRNModel(
            input_size=1, output_size=1, horizon=inputs.task.horizon, exog_size=covariate_width(inputs),
            n_nodes=len(inputs.nodes), hidden_size=64, emb_size=10, n_layers=2,
        )  # fmt: skip

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        value, covariates = node_channels(batch)
        return self.network(value, covariates)[..., 0]


class STID(NetworkPeer):
    """Shao et al., CIKM 2022: an MLP with embeddings of the node, the time of day and the weekday; no graph."""

    recipe = Recipe(learning_rate=2e-3, weight_decay=1e-4, clip=None)

    def build(self, inputs: InputMaker, edges: Tensor, weight: Tensor) -> nn.Module:
        return STIDModel(
            input_size=2 + inputs.channels, n_nodes=len(inputs.nodes), window=inputs.task.history,
            horizon=inputs.task.horizon, n_exog_emb=[inputs.task.day_steps, 7], output_size=1,
        )  # fmt: skip

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        own = torch.stack([batch["value"], batch["mask"]], dim=-1)
        return self.network(torch.cat([own, batch["other"]], dim=-1), batch["slot"])[..., 0]
