"""What a place without data takes from those near it: virtual sensing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from citybrain_models.nn.exchange import UNHEARD, Exchange, Form


class Borrowing(Exchange):
    """Completes the state and the anchor of nodes that lack measurements, or a sensor, from nodes that have them.

    Of nodes near ``i``, weighted by a network of what lies between: ``Σ_j w_ij c_j a_j / Σ_j w_ij c_j``, with ``c`` 1
    or a share where ``j`` has what is asked for: measurements in its history for the state and the last and mean
    value, a sensor in training for the weekly profile. A node with both is left as it is.

    A neighbour tells what it measures and not what it is: by who its neighbours are a network would know a place that
    it was trained on, and what is usual there by heart, which helps at no place that is new.
    """

    def __init__(self, width: int, edge_channels: int):
        super().__init__(width, edge_channels)
        self.norm = nn.LayerNorm(width)
        self.taken = nn.Linear(width, width, bias=False)
        self.stranger = nn.Parameter(torch.zeros(width))

    def complete(
        self,
        state: Tensor,
        measured: Tensor,
        anchor: Tensor,
        seen: Tensor,
        sensed: Tensor,
        index: Tensor,
        edge: Tensor,
        form: Form,
    ) -> tuple[Tensor, Tensor]:
        """``state [batch, node, width]`` and ``anchor [batch, node, 2 + horizon]``, completed. ``measured``, shaped as
        ``state``, is what of it tells of the window and the time alone; ``seen [batch, node]`` is the measured share of
        the history, ``sensed [node]`` 0 for a place without a sensor; ``index`` and ``edge`` are as in
        :meth:`Exchange.forward`."""
        if not bool((seen < 1).any() | (sensed < 1).any()):
            # Nobody lacks anything, and nothing would change. DDP expects to see every parameter in every step.
            return state + 0 * torch.stack([p.sum() for p in self.parameters()]).sum(), anchor
        trust, known = seen.unsqueeze(-1), sensed.unsqueeze(-1)
        message = nn.functional.silu(self.value(self.norm(measured)))
        have = known.expand_as(trust)
        payload = torch.cat([message * trust, anchor[..., :2] * trust, trust, anchor[..., 2:] * have, have], dim=-1)
        total = self.total(payload, self.weights(edge, None), index, form)
        width = state.shape[-1]
        heard, last, trusted = total[..., :width], total[..., width : width + 2], total[..., width + 2 : width + 3]
        usual = total[..., width + 3 : -1] / (total[..., -1:] + UNHEARD)
        # Where nobody near has measured anything of late, the last value is what is usual now.
        last = (last + UNHEARD * usual[..., :1]) / (trusted + UNHEARD)
        own = torch.maximum((trust > 0).to(trust.dtype), known)
        completed = torch.cat(
            [own * anchor[..., :2] + (1 - own) * last, known * anchor[..., 2:] + (1 - known) * usual], dim=-1
        )
        taken = self.taken(heard / (trusted + UNHEARD))
        return state + (1 - trust) * taken + (1 - known) * self.stranger, completed
