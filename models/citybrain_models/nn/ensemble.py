"""Several networks that differ by their first weights and answer with their mean: less variance from few data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from citybrain_models.nn.citynet import CityNet
from citybrain_models.nn.exchange import Form


class Member(Protocol):
    """A network that passes messages in one of two forms."""

    form: Form

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor: ...


Net = TypeVar("Net", bound=Member)


class Members(nn.Module, Generic[Net]):
    """Networks of one kind, each of which answers by itself."""

    def __init__(self, members: Iterable[Net]):
        super().__init__()
        self.members = nn.ModuleList(cast(Iterable[nn.Module], members))

    @property
    def nets(self) -> list[Net]:
        return cast(list[Net], list(self.members))

    @property
    def form(self) -> Form:
        """How the members pass messages; setting it sets theirs."""
        return self.nets[0].form

    @form.setter
    def form(self, form: Form) -> None:
        for net in self.nets:
            net.form = form

    def each(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Every member's answer; each is trained on its own error."""
        return [net(inputs) for net in self.nets]


class Ensemble(Members[CityNet]):
    """The mean of its members' quantiles (Vincentisation, which keeps their order)."""

    def reads(self, name: str) -> bool:
        """See :meth:`CityNet.reads`."""
        return self.nets[0].reads(name)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Inputs and answer as those of :class:`CityNet`."""
        return torch.stack(self.each(inputs)).mean(dim=0)
