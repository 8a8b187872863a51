"""CityNet: time first, then space, on the graph of roads and air stations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from citybrain_models.nn.borrowing import Borrowing
from citybrain_models.nn.dropout import Dropout
from citybrain_models.nn.exchange import Exchange, Form, Hubs


@dataclass(frozen=True)
class MessageKind:
    """One kind of message: which node types send and receive, and whether the wind weighs it."""

    name: str
    sender: str
    receiver: str
    windy: bool = False


class CityNet(nn.Module):
    """Quantiles of a signal at every node and lead, from the arrays of ``citybrain_datasets.features``.

    Each node's window is mapped to ``width`` numbers, joined by what the place is (static attributes and a learned
    embedding that may be absent) and what time it is; a node without data, or without a sensor, borrows from those
    near it (``nearby_channels`` describe them; 0 leaves that out); blocks of message passing and hubs carry it through
    the city; a head reads ``horizon × quantile`` numbers as departures from a blend of the last value, the recent mean
    and the weekly profile.

    ``pull`` gives, lead by lead, the share by which an answer, though not the training, is drawn to the weekly profile:
    a combination of forecasts that pays where the next season is not like the last. ``mean``, ``std`` and
    ``logarithmic`` turn the standardised answer into the target's unit.
    """

    def __init__(
        self,
        *,
        target: str,
        features: Mapping[str, int],
        statics: Mapping[str, int],
        time_features: int,
        messages: Sequence[MessageKind],
        edge_channels: int,
        nearby_channels: int = 0,
        horizon: int,
        quantiles: Sequence[float],
        mean: float,
        std: float,
        logarithmic: bool = False,
        width: int = 64,
        embedding: int = 16,
        blocks: int = 2,
        hubs: int = 8,
        dropout: float = 0.1,
        pull: Sequence[float] = (),
    ):
        super().__init__()
        self.pull: Tensor
        self.register_buffer("pull", torch.tensor(list(pull) or [0.0] * horizon, dtype=torch.float32), persistent=False)
        self.target = target
        self.horizon = horizon
        self.median = list(quantiles).index(0.5)
        self.quantiles = len(quantiles)
        self.mean, self.std, self.logarithmic = mean, std, logarithmic
        self.form: Form = "gather"
        self.window = nn.ModuleDict({node: nn.Linear(size, width) for node, size in features.items()})
        self.place = nn.ModuleDict(
            {
                node: nn.Sequential(nn.Linear(size + embedding, width), nn.SiLU(), nn.Linear(width, width))
                for node, size in statics.items()
            }
        )
        self.clock = nn.Sequential(nn.Linear(time_features, width), nn.SiLU(), nn.Linear(width, width))
        self.borrowing = Borrowing(width, nearby_channels) if nearby_channels else None
        # The last block answers for the target alone; what other nodes would learn there nobody reads.
        self.blocks: nn.ModuleList = nn.ModuleList(
            Block(width, [target] if i == blocks - 1 else list(features), messages, edge_channels, hubs, dropout)
            for i in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.blend = nn.Linear(width, 3 * horizon)
        self.head = nn.Linear(width, horizon * self.quantiles)
        self.shortcut = nn.Linear(features[target], horizon, bias=False)
        nn.init.zeros_(self.shortcut.weight)

    def reads(self, name: str) -> bool:
        """Whether :meth:`forward` looks at the input ``name``; an exported graph has no others."""
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        kinds = [kind for block in blocks for kind in block.kinds]
        if name == "wind":
            return any(kind.windy for kind in kinds)
        if name.startswith(("nearby_", "sensed_")):
            return self.borrowing is not None
        if name.startswith("seen_"):
            node = name.removeprefix("seen_")
            if node == self.target and self.borrowing is not None:
                return True
            return any(node in block.hubs for block in blocks) or any(kind.sender == node for kind in kinds)
        if name.endswith(("_index", "_edge")):
            return any(kind.name == name.rsplit("_", 1)[0] for kind in kinds)
        return True

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """``x_<type> [batch, node, feature]``, ``seen_<type> [batch, node]``, ``anchor [batch, node, 2 + horizon]``,
        ``time [batch, feature]``, ``wind [batch, node, 2]``, ``static_<type> [node, attribute]``,
        ``embedding_<type> [node, embedding]``, ``sensed_<target> [node]``, ``nearby_index`` and ``nearby_edge``,
        ``<message>_index`` and ``<message>_edge`` →
        ``[batch, node, horizon, quantile]`` in the target's unit, rising along the quantiles."""
        clock = self.clock(inputs["time"]).unsqueeze(1)
        measured, state = {}, {}
        for node, window in self.window.items():
            place = self.place[node](torch.cat([inputs[f"static_{node}"], inputs[f"embedding_{node}"]], dim=-1))
            measured[node] = window(inputs[f"x_{node}"]) + clock
            state[node] = measured[node] + place.unsqueeze(0)
        anchor = inputs["anchor"]
        if self.borrowing is not None:
            state[self.target], anchor = self.borrowing.complete(
                state[self.target],
                measured[self.target],
                anchor,
                inputs[f"seen_{self.target}"],
                inputs[f"sensed_{self.target}"],
                inputs["nearby_index"],
                inputs["nearby_edge"],
                self.form,
            )
        for block in self.blocks:
            state = block(state, inputs, self.form)
        hidden = self.norm(state[self.target])
        # One row a source: a softmax along three neighbouring numbers is slow on a CPU.
        share = torch.softmax(self.blend(hidden).unflatten(-1, (self.horizon, 3)).movedim(-1, 0).contiguous(), dim=0)
        base = share[0] * anchor[..., :1] + share[1] * anchor[..., 1:2] + share[2] * anchor[..., 2:]
        base = base + self.shortcut(inputs[f"x_{self.target}"])
        raw = self.head(hidden).unflatten(-1, (self.horizon, self.quantiles))
        ordered = self._ordered(base, raw)
        if not self.training:
            drawn = self.pull * (anchor[..., 2:] - ordered[..., self.median])
            ordered = ordered + drawn.unsqueeze(-1)
        answer = ordered * self.std + self.mean
        return torch.expm1(answer) if self.logarithmic else answer

    def _ordered(self, base: Tensor, raw: Tensor) -> Tensor:
        """Quantiles that cannot cross: the median, and positive steps away from it."""
        middle = (base + raw[..., self.median]).unsqueeze(-1)
        above = torch.cumsum(nn.functional.softplus(raw[..., self.median + 1 :] - 2), dim=-1)
        below = torch.cumsum(nn.functional.softplus(raw[..., : self.median].flip(-1) - 2), dim=-1).flip(-1)
        return torch.cat([middle - below, middle, middle + above], dim=-1)


class Block(nn.Module):
    """One round of exchange: messages of each kind and hub context, mixed through a gate, then a feed-forward."""

    def __init__(
        self,
        width: int,
        receivers: Sequence[str],
        messages: Sequence[MessageKind],
        edge_channels: int,
        hubs: int,
        dropout: float,
    ):
        super().__init__()
        self.receivers = list(receivers)
        self.kinds = [m for m in messages if m.receiver in receivers]
        involved = dict.fromkeys([*receivers, *(m.sender for m in self.kinds)])
        self.before = nn.ModuleDict({node: nn.LayerNorm(width) for node in involved})
        self.exchange = nn.ModuleDict({m.name: Exchange(width, edge_channels, windy=m.windy) for m in self.kinds})
        self.hubs = nn.ModuleDict({node: Hubs(width, hubs) for node in receivers} if hubs else {})
        heard = {node: 1 + (hubs > 0) + sum(m.receiver == node for m in self.kinds) for node in receivers}
        self.mix = nn.ModuleDict({node: nn.Linear(heard[node] * width, 2 * width) for node in receivers})
        self.feed = nn.ModuleDict(
            {
                node: nn.Sequential(
                    nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), Dropout(dropout),
                    nn.Linear(2 * width, width),
                )
                for node in receivers
            }
        )  # fmt: skip
        self.dropout = Dropout(dropout)

    def forward(self, state: dict[str, Tensor], inputs: Mapping[str, Tensor], form: Form) -> dict[str, Tensor]:
        """``state[type] [batch, node, width]`` → the same shapes, for the receiving node types."""
        normed = {node: norm(state[node]) for node, norm in self.before.items()}
        heard = {node: [normed[node]] for node in self.receivers}
        for node, hub in self.hubs.items():
            heard[node].append(hub(normed[node], inputs[f"seen_{node}"]))
        for kind in self.kinds:
            heard[kind.receiver].append(
                self.exchange[kind.name](
                    normed[kind.sender],
                    inputs[f"seen_{kind.sender}"],
                    inputs[f"{kind.name}_index"],
                    inputs[f"{kind.name}_edge"],
                    inputs["wind"] if kind.windy else None,
                    form,
                )
            )
        after = {}
        for node in self.receivers:
            value = state[node]
            gate, new = self.mix[node](torch.cat(heard[node], dim=-1)).chunk(2, dim=-1)
            value = value + self.dropout(torch.sigmoid(gate) * new)
            after[node] = value + self.feed[node](value)
        return after
