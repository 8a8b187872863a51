"""SurrogateNet: from measures on a road network to the change of its traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from citybrain_models.nn.ensemble import Members
from citybrain_models.nn.exchange import Exchange, Form, Hubs

SIGNALS = ("flow", "vehicles", "emission")
"""What changes: veh/h, vehicles on the segment, PM2.5 in g/h. Time spent and speed follow."""


class SurrogateNet(nn.Module):
    """Quantiles of the change of each signal on each segment and time slot.

    Whatever enters as zero leaves as zero, exactly: the measures' path has no bias, its activations vanish at
    zero, and what the place is and how busy it is usually (the context) only multiplies it. So no measures change
    nothing, small ones little, and nothing has to be unlearnt. A closed segment's own flow cannot rise, and no signal
    falls below zero. Nothing belongs to a single node, so that the network may be applied to another road network.
    """

    def __init__(
        self,
        *,
        context: int,
        levers: int,
        slots: int,
        edge_channels: int,
        relations: int,
        quantiles: Sequence[float],
        scale: Sequence[float] = (1.0, 1.0, 1.0),
        engines: int | None = None,
        width: int = 64,
        blocks: int = 3,
        hubs: int = 8,
        dropout: float = 0.0,
    ):
        """``levers`` counts the channels of a slot; ``scale`` is the usual size of the change of each signal.

        ``engines`` is the channel that says what is burnt and not who drives: alone it changes emission only.
        """
        super().__init__()
        self.slots, self.median, self.quantiles = slots, list(quantiles).index(0.5), len(quantiles)
        self.form: Form = "gather"
        self.driving = [channel for channel in range(levers) if channel != engines]
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(list(scale), dtype=torch.float32))
        self.place = nn.Sequential(nn.Linear(context, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.enter = nn.Linear(slots * levers, width, bias=False)
        self.meet = nn.Linear(width, width)
        self.blocks: nn.ModuleList = nn.ModuleList(
            SurrogateBlock(width, edge_channels, relations, hubs, dropout) for _ in range(blocks)
        )
        self.read = nn.Linear(width, width)
        self.head = nn.Linear(width, slots * len(SIGNALS) * self.quantiles, bias=False)
        self.direct = nn.Linear(width, levers * len(SIGNALS))
        nn.init.zeros_(self.direct.weight)
        nn.init.zeros_(self.direct.bias)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """``levers [batch, segment, slot, channel]``, ``closed [batch, segment, slot]`` 1 where wholly closed,
        ``context [batch or 1, segment, attribute]``, ``base`` and ``unit [batch or 1, segment, slot, signal]``
        (traffic without measures, and the size that each signal is measured by), ``relation [kind, segment, segment]``,
        ``downstream_index`` … ``upstream_edge`` → ``[batch, segment, slot, signal, quantile]``, rising along the
        quantiles."""
        levers = inputs["levers"]
        context = self.place(inputs["context"])
        state = self.enter(levers.flatten(2)) * torch.sigmoid(self.meet(context))
        for block in self.blocks:
            state = block(state, context, inputs, self.form)
        raw = self.head(nn.functional.silu(state) * self.read(context))
        raw = raw.unflatten(-1, (self.slots, len(SIGNALS), self.quantiles))
        # What a measure does where it stands, as a linear model would have it.
        direct = self.direct(context).unflatten(-1, (len(SIGNALS), levers.shape[-1]))
        middle = raw[..., self.median] + levers @ direct.transpose(-1, -2)
        change = self._ordered(middle, raw) * (self.scale * inputs["unit"]).unsqueeze(-1)
        acts = (levers[..., self.driving].abs().amax(dim=(1, 2, 3)) > 0).to(change.dtype)[:, None, None, None]
        flow, vehicles = change[..., 0, :] * acts, change[..., 1, :] * acts
        flow = flow - inputs["closed"].unsqueeze(-1) * torch.relu(flow)
        change = torch.stack([flow, vehicles, change[..., 2, :]], dim=-2)
        return torch.maximum(change, -inputs["base"].unsqueeze(-1))

    def _ordered(self, middle: Tensor, raw: Tensor) -> Tensor:
        """Quantiles that cannot cross: the median, and steps away from it whose sizes are never negative."""
        centre = middle.unsqueeze(-1)
        above = torch.cumsum(raw[..., self.median + 1 :].abs(), dim=-1)
        below = torch.cumsum(raw[..., : self.median].abs().flip(-1), dim=-1).flip(-1)
        return torch.cat([centre - below, centre, centre + above], dim=-1)


class SurrogateEnsemble(Members[SurrogateNet]):
    """The mean of several networks that differ by their first weights: less variance from noisy simulations. What
    holds of each of :class:`SurrogateNet`'s answers holds of their mean."""

    @property
    def scale(self) -> Tensor:
        return self.nets[0].scale

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Inputs and answer as those of :class:`SurrogateNet`."""
        mean = torch.stack(self.each(inputs)).mean(dim=0)
        return torch.maximum(mean, -inputs["base"].unsqueeze(-1))  # as each, but for the mean's own rounding


class SurrogateBlock(nn.Module):
    """One round: along the streets both ways, along the routes that share or take over traffic, through hubs."""

    def __init__(self, width: int, edge_channels: int, relations: int, hubs: int, dropout: float):
        super().__init__()
        self.downstream = Exchange(width, edge_channels)
        self.upstream = Exchange(width, edge_channels)
        self.along = nn.ModuleList(nn.Linear(width, width // 2, bias=False) for _ in range(relations))
        self.hubs = Hubs(width, hubs)
        self.mix = nn.Linear(4 * width + relations * (width // 2), width, bias=False)
        self.gate = nn.Linear(width, width)
        self.inner = nn.Linear(width, 2 * width, bias=False)
        self.shape = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor, context: Tensor, inputs: Mapping[str, Tensor], form: Form) -> Tensor:
        """``state [batch, segment, width]``, ``context [batch or 1, segment, width]`` → as ``state``."""
        # Large effects are tamed as a norm would, small ones pass as they are, and zero stays zero.
        calm = state * torch.rsqrt(1 + state.square().mean(dim=-1, keepdim=True))
        trust = torch.ones_like(calm[..., 0])
        heard = [calm, self.hubs(calm, trust)]
        for name, exchange in (("downstream", self.downstream), ("upstream", self.upstream)):
            heard.append(exchange(calm, trust, inputs[f"{name}_index"], inputs[f"{name}_edge"], None, form))
        heard += [inputs["relation"][kind] @ along(calm) for kind, along in enumerate(self.along)]
        state = state + self.dropout(self.mix(torch.cat(heard, dim=-1)) * torch.sigmoid(self.gate(context)))
        inner = nn.functional.silu(self.inner(state) * self.shape(context))
        return state + self.dropout(self.outer(inner))
