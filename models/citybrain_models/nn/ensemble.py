"""Several networks that differ by their first weights and answer with their mean: less variance from few data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from citybrain_models.nn.citynet import CityNet
from citybrain_models.nn.exchange import Form


class Ensemble(nn.Module):
    """The mean of its members' quantiles (Vincentisation, which keeps their order)."""

    def __init__(self, members: Iterable[CityNet]):
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def nets(self) -> list[CityNet]:
        return [member for member in self.members if isinstance(member, CityNet)]

    @property
    def form(self) -> Form:
        """How the members pass messages; setting it sets theirs."""
        return self.nets[0].form

    @form.setter
    def form(self, form: Form) -> None:
        for net in self.nets:
            net.form = form

    def reads(self, name: str) -> bool:
        """See :meth:`CityNet.reads`."""
        return self.nets[0].reads(name)

    def each(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Every member's quantiles ``[batch, node, horizon, quantile]``; each is trained on its own error."""
        return [net(inputs) for net in self.nets]

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Inputs and answer as those of :class:`CityNet`."""
        return torch.stack(self.each(inputs)).mean(dim=0)
