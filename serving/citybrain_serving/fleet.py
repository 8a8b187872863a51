"""The bundles a service answers from, checked to fit together, and the channels that feed them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.signals import KINDS, NodeType, SignalKind, Ticks
from citybrain_datasets.task import Task
from citybrain_models.bundle import Bundle
from citybrain_serving.errors import FleetError


@dataclass(frozen=True)
class Channel:
    """One signal as it is measured in this city: where, in which order of nodes, on which clock."""

    signal: str
    node: NodeType
    ids: pd.Index
    ticks: Ticks

    @property
    def kind(self) -> SignalKind:
        return KINDS[self.signal]


@dataclass(frozen=True)
class Fleet:
    """Bundles of one city by task, the city, and the channels their inputs come from.

    A bundle may be swapped for another that :meth:`admit` lets in; city and channels stay.
    """

    city: City
    bundles: dict[str, Bundle]
    channels: Mapping[str, Channel]

    @staticmethod
    def of(bundles: Iterable[Bundle]) -> Fleet:
        """Raises :class:`FleetError` for two bundles of one task, or bundles that disagree about their
        city."""
        by_task: dict[str, Bundle] = {}
        for bundle in bundles:
            if bundle.task.name in by_task:
                raise FleetError(f"two bundles forecast {bundle.task.name}; one service takes one of each")
            by_task[bundle.task.name] = bundle
        if not by_task:
            raise FleetError("no bundle given; there is nothing to serve")
        first, *others = by_task.values()
        nodes = dict(first.city.nodes)
        for other in others:
            _same_city(first.city, other.city, nodes)
            nodes |= {node: table for node, table in other.city.nodes.items() if node not in nodes}
        edges = {relation: table for b in by_task.values() for relation, table in b.city.edges.items()}
        city = first.city.replace(nodes=nodes, edges=edges)
        return Fleet(city, by_task, _channels(city, by_task.values()))

    def admit(self, bundle: Bundle) -> None:
        """Raises :class:`FleetError` unless ``bundle`` can take the place of the one of its task while the service
        runs: the same city, nodes and order, the same target on the same clock, no signal that nobody stores."""
        task = bundle.task
        held = self.bundles.get(task.name)
        if held is None:
            raise FleetError(f"{task.name} is not forecast here, only {' and '.join(self.bundles)}")
        for key in ("node", "target", "step_minutes", "sampling"):
            before, after = getattr(held.task, key), getattr(task, key)
            if before != after:
                raise FleetError(f"{task.name}: {key} is {after!r}, that of the bundle in use {before!r}")
        _same_city(self.city, bundle.city, self.city.nodes)
        absent = sorted(set(self.city.nodes) & set(held.city.nodes) - set(bundle.city.nodes))
        if absent:
            raise FleetError(f"the bundle of {task.name} has no {' and no '.join(absent)} nodes")
        for signal, channel in _channels(self.city, [bundle]).items():
            known = self.channels.get(signal)
            if known is None and signal in _read(bundle):
                raise FleetError(f"the bundle of {task.name} reads {signal}, which is not stored here")
            if known is not None and (known.node, known.ticks) != (channel.node, channel.ticks):
                raise FleetError(f"{signal} is measured elsewhere or on another clock in the bundle of {task.name}")

    def ticks(self, task: Task) -> Ticks:
        """The clock forecasts are issued on: that of the target where the task samples it as measured,
        else the task's own."""
        target = self.channels[task.target].ticks
        if task.sampling == "last" or target.step_minutes == task.step_minutes:
            return target
        return Ticks(task.step_minutes)


def _same_city(city: City, other: City, nodes: Mapping[NodeType, pd.DataFrame]) -> None:
    if city.name != other.name:
        raise FleetError(f"bundles are of different cities, {city.name!r} and {other.name!r}")
    for node, table in other.nodes.items():
        if node in nodes and list(nodes[node].index) != list(table.index):
            raise FleetError(f"bundles of {city.name} disagree about its {node} nodes or their order")


def _channels(city: City, bundles: Iterable[Bundle]) -> dict[str, Channel]:
    channels: dict[str, Channel] = {}
    for bundle in bundles:
        task = bundle.task
        for signal, placed in bundle.placing.items():
            node = cast(NodeType, placed)
            ticks = bundle.clocks.get(signal, Ticks(task.step_minutes))
            fits = not (task.step_minutes % ticks.step_minutes and ticks.step_minutes % task.step_minutes)
            if not fits and signal in _read(bundle):
                raise FleetError(
                    f"{signal} is measured every {ticks.step_minutes} min, which cannot be put on the"
                    f" {task.step_minutes} min clock of {task.name}"
                )
            known = channels.get(signal)
            if known is None:
                channels[signal] = Channel(signal, node, pd.Index(city.ids(node), dtype=object), ticks)
            elif (known.node, known.ticks) != (node, ticks):
                raise FleetError(f"bundles of {city.name} disagree about where or how often {signal} is measured")
    return channels


def _read(bundle: Bundle) -> set[str]:
    """Signals that a bundle reads, of the past or of the future."""
    return {*bundle.features().signals, *bundle.task.known_future}
