"""Message passing between nodes, in three forms that compute the same sum."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

Form = Literal["gather", "dense", "sparse"]

UNHEARD = 1e-3
"""Weight below which what a node's neighbours send fades out instead of being divided by almost nothing."""

FAINT = 1e-4
"""What a node without data still counts for a hub, whose share is a logarithm of it."""


class Exchange(MessagePassing):
    """Confidence-weighted mean of what a node's neighbours send.

    ``out[i] = Σ_j w_ij c_j V x_j / (Σ_j w_ij c_j + ε)``: a sender with no recent data (``c = 0``) drops out instead
    of sending zeros. ``w`` is a network of the edge's attributes and, where ``windy``, of the wind along and across it.

    The forms: ``gather`` over padded neighbour lists needs no scatter and is the fastest forwards; ``dense`` multiplies
    by the filled adjacency, fastest to train on a few hundred nodes; ``sparse`` is PyG's edge-list scatter, whose
    memory follows the edges of large irregular graphs.
    """

    def __init__(self, width: int, edge_channels: int, *, windy: bool = False, hidden: int = 16):
        super().__init__(aggr="add", node_dim=-2)
        self.windy = windy
        self.value = nn.Linear(width, width, bias=False)
        self.weigh = nn.Sequential(nn.Linear(edge_channels + 3 * windy, hidden), nn.SiLU(), nn.Linear(hidden, 1))

    def forward(
        self,
        sender: Tensor,
        confidence: Tensor,
        index: Tensor,
        edge: Tensor,
        wind: Tensor | None = None,
        form: Form = "gather",
    ) -> Tensor:
        """``sender [batch, sender, width]``, ``confidence [batch, sender]``, ``index [receiver, neighbour]``,
        ``edge [receiver, neighbour, channel]`` with channel 0 = present, ``wind [batch, receiver, 2]`` →
        ``[batch, receiver, width]``."""
        message = self.value(sender)
        trust = confidence.unsqueeze(-1)
        total = self.total(torch.cat([message * trust, trust], dim=-1), self.weights(edge, wind), index, form)
        return total[..., :-1] / (total[..., -1:] + UNHEARD)

    def total(self, payload: Tensor, weight: Tensor, index: Tensor, form: Form) -> Tensor:
        """``out[i] = Σ_j w_ij payload_j``: ``payload [batch, sender, channel]`` → ``[batch, receiver, channel]``."""
        summed: Tensor = getattr(self, f"_{form}")(payload, weight, index)
        return summed

    def weights(self, edge: Tensor, wind: Tensor | None) -> Tensor:
        """Non-negative edge weights ``[batch or 1, receiver, neighbour]``, 0 where there is no edge."""
        present = edge[..., 0]
        if not self.windy:
            return (nn.functional.softplus(self.weigh(edge).squeeze(-1)) * present).unsqueeze(0)
        assert wind is not None
        east, north = wind[..., 0:1], wind[..., 1:2]
        sin, cos = edge[..., 3], edge[..., 4]
        along, across = east * sin + north * cos, east * cos - north * sin
        strength = (east.square() + north.square() + 1e-12).sqrt().expand_as(along)
        channels = torch.cat(
            [edge.expand(wind.shape[0], -1, -1, -1), torch.stack([along, across.abs(), strength], -1)], -1
        )
        return nn.functional.softplus(self.weigh(channels).squeeze(-1)) * present

    @staticmethod
    def _gather(payload: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        sent = payload.index_select(1, index.reshape(-1)).unflatten(1, index.shape)
        return (weight.unsqueeze(-2) @ sent).squeeze(-2)

    @staticmethod
    def _dense(payload: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        adjacency = weight.new_zeros(weight.shape[0], index.shape[0], payload.shape[1])
        return adjacency.scatter_add(2, index.expand_as(weight), weight) @ payload

    def _sparse(self, payload: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        receivers, neighbours = index.shape
        target = torch.arange(receivers, device=index.device).repeat_interleave(neighbours)
        edges = torch.stack([index.reshape(-1), target])
        flat = weight.reshape(weight.shape[0], -1, 1)
        return self.propagate(edges, x=payload, weight=flat, size=(payload.shape[1], receivers))

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        return weight * x_j


class Hubs(nn.Module):
    """Global context through a few learned tokens: nodes → hubs → nodes, linear in the number of nodes."""

    def __init__(self, width: int, hubs: int):
        super().__init__()
        self.collect = nn.Linear(width, hubs)
        self.consult = nn.Linear(width, hubs)
        self.value = nn.Linear(width, width, bias=False)

    def forward(self, nodes: Tensor, confidence: Tensor) -> Tensor:
        """``nodes [batch, node, width]``, ``confidence [batch, node]`` → ``[batch, node, width]``."""
        share = self.collect(nodes) + torch.log(confidence.unsqueeze(-1) + FAINT)
        hubs = torch.softmax(share, dim=1).transpose(1, 2) @ self.value(nodes)
        return torch.softmax(self.consult(nodes), dim=-1) @ hubs
