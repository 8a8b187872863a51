"""CityNet's forecast in the order of computation that suits an inference engine: what is exported.

The weights and, up to rounding, the answers are those of :class:`~citybrain_models.nn.citynet.CityNet`; the export
proves it. The arrangement differs, and with it the cost:

- matrices with nothing between them are multiplied beforehand: neighbours and hubs are mixed without their ``value``;
- windows and nodes are one dimension, so that a matrix, its bias and what is added are one operator;
- what a place hears of its own, from neighbours of each kind, lies side by side and is mixed by one product, the gate
  and what passes it apart: no sum is written in between, nothing is split;
- neighbours of all kinds that are of one type are read at once, and summed by one product;
- what neighbours count is worked out once for all blocks;
- what neighbours count is divided out before their rows are summed: on a number an edge, not on a row a node;
- only places that lack something borrow;
- shares of the three bases and steps between quantiles come from one exponential, and the steps of a lead are summed by
  one small matrix that all leads share.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, cycle

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, pad, silu

from citybrain_models.nn.borrowing import Borrowing
from citybrain_models.nn.citynet import Block, CityNet, MessageKind
from citybrain_models.nn.ensemble import Ensemble
from citybrain_models.nn.exchange import FAINT, UNHEARD, Exchange, Hubs

Shares = dict[tuple[str, str], Tensor]
"""By type of receiver and of sender, what each neighbour counts, ``[batch, receiver, kind, neighbour]``: by its weight
and its confidence, over all that is heard of the kind."""

STEEPEST = 80.0
"""Where the steps between quantiles, in standard deviations of the target, and the logits of the bases are cut: ``exp``
overflows beyond 88."""


class InferenceNet(nn.Module):
    """A trained network, or the mean of several. Inputs and answer are those of :class:`CityNet`."""

    def __init__(self, network: CityNet | Ensemble):
        super().__init__()
        nets = network.nets if isinstance(network, Ensemble) else [network]
        self.members = nn.ModuleList(_Member(net) for net in nets)
        self.eval()

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        first, *others = (member(inputs) for member in self.members)
        return torch.stack([first, *others]).mean(dim=0) if others else first


class _Member(nn.Module):
    def __init__(self, net: CityNet):
        super().__init__()
        self.net = net
        self.pulled = bool(net.pull.any())
        self.outer = [quantile for quantile in range(net.quantiles) if quantile != net.median]
        # Of an outer quantile, every step between it and the median counts; one below the median, negatively.
        signs = [
            [float(net.median < step <= q) - float(q <= step < net.median) for q in range(net.quantiles)]
            for step in self.outer
        ]
        self.steps: Tensor
        self.register_buffer("steps", net.std * torch.tensor(signs), persistent=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        net, shape = self.net, inputs["anchor"].shape[:2]
        place = {node: _place(net, node, inputs) for node in net.window}
        state = {node: _begin(net, node, place[node], inputs) for node in net.window}
        anchor = inputs["anchor"].flatten(0, 1)
        if net.borrowing is not None:
            there = state[net.target].unflatten(0, shape)
            measured = (there - place[net.target].unsqueeze(0)).flatten(0, 1)
            state[net.target], anchor = _complete(
                net.borrowing, state[net.target], measured, anchor, net.target, inputs
            )
        blocks = [block for block in net.blocks if isinstance(block, Block)]
        for block, shares in zip(blocks, _shares(blocks, inputs), strict=True):
            state = _exchange(block, shares, state, inputs)
        answer = self._answer(net.norm(state[net.target]), anchor, inputs[f"x_{net.target}"].flatten(0, 1))
        answer = answer.unflatten(0, (*shape, net.horizon))
        return torch.expm1(answer) if net.logarithmic else answer

    def _answer(self, hidden: Tensor, anchor: Tensor, features: Tensor) -> Tensor:
        """``[row, width]``, ``[row, 2 + horizon]`` and ``[row, feature]`` → ``[row · horizon, quantile]``."""
        net, horizon, outer = self.net, self.net.horizon, len(self.outer)
        blend, blend_bias = (p.unflatten(0, (horizon, 3)) for p in (net.blend.weight, net.blend.bias))
        head, head_bias = (p.unflatten(0, (horizon, net.quantiles)) for p in (net.head.weight, net.head.bias))
        # Softmax of three, against the first of them.
        weight = torch.cat([*(blend[:, 1:] - blend[:, :1]).unbind(1), head[:, self.outer].flatten(0, 1)])
        bias = torch.cat([*(blend_bias[:, 1:] - blend_bias[:, :1]).unbind(1), head_bias[:, self.outer].flatten() - 2])
        grown = torch.exp(linear(hidden, weight, bias).clamp(max=STEEPEST))
        recently, usually, steps = grown.split((horizon, horizon, horizon * outer), dim=1)
        last, recent, usual = anchor.split((1, 1, horizon), dim=1)
        middle = linear(hidden, head[:, net.median], head_bias[:, net.median])
        middle = torch.addmm(middle, features, net.shortcut.weight.t())
        middle = middle + (last + recently * recent + usually * usual) / (1 + recently + usually)
        if self.pulled:
            middle = middle + net.pull * (usual - middle)
        middle = (middle * net.std + net.mean).reshape(-1, 1)
        return torch.addmm(middle, torch.log(1 + steps).reshape(-1, outer), self.steps)


def _place(net: CityNet, node: str, inputs: Mapping[str, Tensor]) -> Tensor:
    """What the places are, ``[node, width]``: of the graph alone, and computed once."""
    found: Tensor = net.place[node](torch.cat([inputs[f"static_{node}"], inputs[f"embedding_{node}"]], dim=-1))
    return found


def _begin(net: CityNet, node: str, place: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """State ``[batch · node, width]`` from window, place and time."""
    window, clock = net.window[node], net.clock(inputs["time"])
    assert isinstance(window, nn.Linear)
    context = ((place + window.bias).unsqueeze(0) + clock.unsqueeze(1)).flatten(0, 1)
    return torch.addmm(context, inputs[f"x_{node}"].flatten(0, 1), window.weight.t())


def _exchange(
    block: Block, shares: Shares, state: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """:meth:`Block.forward` on ``state[type] [batch · node, width]``, with the block's own ``shares``."""
    normed = {node: norm(state[node]) for node, norm in block.before.items()}
    wide = {node: rows.unflatten(0, inputs[f"x_{node}"].shape[:2]) for node, rows in normed.items()}
    after = {}
    for node in block.receivers:
        mix, value = block.mix[node], state[node]
        assert isinstance(mix, nn.Linear)
        width = value.shape[1]
        own, *others = (mix.weight[:, i : i + width] for i in range(0, mix.weight.shape[1], width))
        told: Tensor | None = None
        if node in block.hubs:
            hub = block.hubs[node]
            assert isinstance(hub, Hubs)
            told = _collect(hub, wide[node], inputs[f"seen_{node}"], others.pop(0), mix.bias)
            asked = torch.softmax(hub.consult(normed[node]), dim=-1).unflatten(0, inputs[f"seen_{node}"].shape)
        mixed = {kind.name: others.pop(0) for kind in block.kinds if kind.receiver == node}
        heard, matrices = [normed[node]], [own.t()]
        for sender in dict.fromkeys(kind.sender for kind in block.kinds if kind.receiver == node):
            for kind in _between(block, node, sender):
                exchange = block.exchange[kind.name]
                assert isinstance(exchange, Exchange)
                matrices.append((mixed[kind.name] @ exchange.value.weight).t())
            index = _heard_from(block, node, sender, inputs)
            sent = wide[sender].index_select(1, index.flatten()).unflatten(1, index.shape)
            heard.append((shares[node, sender] @ sent).flatten(2).flatten(0, 1))
        side_by_side, matrix = torch.cat(heard, dim=-1), torch.cat(matrices)
        halves = slice(None, width), slice(width, None)
        told_apart = [mix.bias[half] if told is None else (asked @ told[..., half]).flatten(0, 1) for half in halves]
        gate, new = (
            torch.addmm(said, side_by_side, matrix[:, half]) for said, half in zip(told_apart, halves, strict=True)
        )
        value = value + torch.sigmoid(gate) * new
        after[node] = value + block.feed[node](value)
    return after


def _collect(hub: Hubs, nodes: Tensor, confidence: Tensor, mix: Tensor, bias: Tensor) -> Tensor:
    """What the hubs' answers come to after ``mix [mixed, width]`` and its ``bias``, ``[batch, hub, mixed]``.

    A bias of ``collect`` would be the same for all nodes and cancel out; ``bias`` is the same for all hubs, and what a
    node consults sums to one.
    """
    share = hub.collect.weight @ nodes.transpose(1, 2) + torch.log(confidence + FAINT).unsqueeze(1)
    tokens = torch.softmax(share, dim=-1) @ nodes
    return tokens @ (mix @ hub.value.weight).t() + bias


def _between(block: Block, receiver: str, sender: str) -> list[MessageKind]:
    """The kinds of messages from one type of node to another."""
    return [kind for kind in block.kinds if (kind.receiver, kind.sender) == (receiver, sender)]


def _heard_from(block: Block, receiver: str, sender: str, inputs: Mapping[str, Tensor]) -> Tensor:
    """Whom each node hears, the neighbours of all kinds behind each other, ``[receiver, neighbour]``."""
    return torch.cat([inputs[f"{kind.name}_index"] for kind in _between(block, receiver, sender)], dim=1)


def _shares(blocks: list[Block], inputs: Mapping[str, Tensor]) -> list[Shares]:
    """What each neighbour counts, for all blocks at once, as who has measured is the same for all."""
    found: list[Shares] = [{} for _ in blocks]
    for pair in dict.fromkeys((kind.receiver, kind.sender) for block in blocks for kind in block.kinds):
        receiver, sender = pair
        mine = [number for number, block in enumerate(blocks) if receiver in block.receivers]
        kinds = _between(blocks[mine[0]], receiver, sender)
        weights = [_weights(blocks[number], kind, inputs) for number in mine for kind in kinds]
        index = _heard_from(blocks[mine[0]], receiver, sender, inputs)
        trusted = inputs[f"seen_{sender}"].index_select(1, index.flatten()).unflatten(1, index.shape)
        weight = _stacked(weights, len(kinds)) * trusted.unsqueeze(2)
        share = weight / (weight.sum(dim=-1, keepdim=True) + UNHEARD)
        for number, part in zip(mine, share.split(len(kinds), dim=2), strict=True):
            found[number][pair] = part
    return found


def _weights(block: Block, kind: MessageKind, inputs: Mapping[str, Tensor]) -> Tensor:
    """``[batch or 1, receiver, neighbour]``."""
    exchange = block.exchange[kind.name]
    assert isinstance(exchange, Exchange)
    return exchange.weights(inputs[f"{kind.name}_edge"], inputs["wind"] if kind.windy else None)


def _stacked(weights: list[Tensor], kinds: int) -> Tensor:
    """``[batch or 1, receiver, neighbour]`` of each block and in it each of so many kinds →
    ``[batch or 1, receiver, block · kind, neighbour]``, the neighbours of all kinds behind each other, where each kind
    has none but its own."""
    ends = list(accumulate(weight.shape[-1] for weight in weights[:kinds]))
    padded = [pad(w, (end - w.shape[-1], ends[-1] - end)) for w, end in zip(weights, cycle(ends))]
    return torch.stack(torch.broadcast_tensors(*padded), dim=2)


def _complete(
    borrowing: Borrowing, state: Tensor, measured: Tensor, anchor: Tensor, target: str, inputs: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """:meth:`Borrowing.complete` on ``state`` and ``measured [batch · node, width]`` and
    ``anchor [batch · node, 2 + horizon]``, at the places alone that lack measurements or a sensor."""
    seen, sensed, index = inputs[f"seen_{target}"], inputs[f"sensed_{target}"], inputs["nearby_index"]
    width, usual_width = state.shape[1], anchor.shape[1] - 2
    lacking = (seen < 1) | (sensed < 1)
    window, place = torch.nonzero(lacking).unbind(1)
    first = window * sensed.shape[0]
    row, sender = first + place, embedding(place, index) + first.unsqueeze(1)
    all_trust = seen.flatten().unsqueeze(1)
    trust, known = embedding(row, all_trust), embedding(place, sensed.unsqueeze(1))
    weight = borrowing.weights(inputs["nearby_edge"], None)[0]
    heard = embedding(place, weight) * embedding(sender, all_trust).squeeze(-1)
    trusted = heard.sum(dim=1, keepdim=True) + UNHEARD
    sensing = weight * sensed.index_select(0, index.flatten()).unflatten(0, index.shape)
    sensing = sensing / (sensing.sum(dim=1, keepdim=True) + UNHEARD)  # of the graph alone, and computed once
    share = torch.stack([heard / trusted, embedding(place, sensing)], dim=1)
    message = silu(borrowing.value(borrowing.norm(measured)))
    total = (share @ embedding(sender, torch.cat([message, anchor], dim=1))).flatten(1)
    told, last, _, usual = total.split((width, 2, width + anchor.shape[1], usual_width), dim=1)
    near = torch.cat([last + UNHEARD * usual[:, :1] / trusted, usual], dim=1)
    own = torch.maximum((trust > 0).to(trust.dtype), known)
    kept = torch.cat([own, own, known.expand(-1, usual_width)], dim=1)
    completed = embedding(row, state) + (1 - trust) * borrowing.taken(told) + (1 - known) * borrowing.stranger
    anchored = near + kept * (embedding(row, anchor) - near)
    # Every row is read from where it is now: among its like, or behind them among the completed.
    rows, lacks = torch.arange(state.shape[0], device=state.device), lacking.flatten()
    there = torch.where(lacks, state.shape[0] - 1 + torch.cumsum(lacks, dim=0), rows)
    return embedding(there, torch.cat([state, completed])), embedding(there, torch.cat([anchor, anchored]))
