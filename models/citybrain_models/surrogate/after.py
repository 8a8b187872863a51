"""Traffic after measures, from the change that the network tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from citybrain_datasets.congestion import SLOWEST
from citybrain_datasets.scenarios.outcomes import Traffic
from citybrain_datasets.simulation.emissions import wear
from citybrain_models.surrogate.network import Base, RoadNetwork

FASTEST = 1.5
"""Nobody drives more than half again as fast as is free."""


@dataclass(frozen=True)
class Changed:
    """Traffic of a batch, each ``[scenario, segment, slot]``: the medians, and ``width``, half the distance of the
    outer quantiles of vehicles and of emission ``[scenario, segment, slot, 2]``."""

    flow: np.ndarray
    vehicles: np.ndarray
    emission: np.ndarray
    width: np.ndarray


class After:
    """``base`` is the traffic of the ``network`` without measures; ``quantiles`` those that the surrogate tells."""

    def __init__(self, network: RoadNetwork, base: Base, quantiles: Sequence[float]):
        self.base = base
        self._middle = list(quantiles).index(0.5)
        self._signals = np.ascontiguousarray(base.signals.transpose(2, 1, 0))[:, None]
        self._length = (network.length_m / 1000).astype(np.float32)
        self._free = network.free_speed_kmh.astype(np.float32)

    def changed(self, change: np.ndarray) -> Changed:
        """From the change ``[scenario, segment, slot, signal, quantile]``."""
        # In memory segments come last, as the sums over them want it.
        batch, segments, slots = change.shape[:3]
        after = np.empty((3, batch, slots, segments), np.float32)
        np.add(change[..., self._middle].transpose(3, 0, 2, 1), self._signals, out=after)
        np.maximum(after[2], 0, out=after[2])
        width = np.empty((2, batch, segments, slots), np.float32)
        np.subtract(change[..., 1:, -1].transpose(3, 0, 1, 2), change[..., 1:, 0].transpose(3, 0, 1, 2), out=width)
        width /= 2
        flow, vehicles, emission = after.swapaxes(2, 3)
        return Changed(flow, vehicles, emission, np.moveaxis(width, 0, -1))

    @cached_property
    def unchanged(self) -> Changed:
        """The base itself, as a batch of one."""
        flow, vehicles, emission = self.base.signals.transpose(2, 0, 1)[:, None]
        return Changed(flow, vehicles, emission, np.zeros((*flow.shape, 2), np.float32))

    def traffic(self, changed: Changed, exhaust: np.ndarray | None = None) -> Traffic:
        """Traffic ``[scenario, slot, segment]``; ``exhaust`` factors ``[scenario, segment, slot]`` act on what is not
        worn off tyres and brakes."""
        flow, vehicles, emission = (a.swapaxes(1, 2) for a in (changed.flow, changed.vehicles, changed.emission))
        travelled = flow * self._length
        with np.errstate(divide="ignore", invalid="ignore"):
            speed = travelled / vehicles
        np.copyto(speed, self._free, where=~((flow > 0) & (vehicles > 0)))
        np.clip(speed, SLOWEST, np.float32(FASTEST) * self._free, out=speed)
        if exhaust is not None:
            emission = self._cleaner(emission, exhaust.swapaxes(1, 2), speed, travelled)
        return Traffic(speed, flow, emission)

    @cached_property
    def _worn_more(self) -> np.ndarray:
        """What comes off tyres and brakes in the base over what its mean speed says, ``[slot, segment]``: wear is no
        linear function of speed, so that the mean of several days is not that of their mean traffic."""
        if self.base.worn is None:
            return np.ones((), np.float32)
        usual = self.traffic(self.unchanged)
        expected = wear(usual.speed[0], usual.flow[0] * self._length)
        worn: np.ndarray = np.divide(self.base.worn.T, expected, out=np.ones_like(expected), where=expected > 0)
        return worn

    @cached_property
    def burnt(self) -> np.ndarray:
        """What engines emit in the base, g/h ``[segment, slot]``: all but what comes off tyres and brakes."""
        usual = self.traffic(self.unchanged)
        worn = self._worn_more * wear(usual.speed[0], usual.flow[0] * self._length)
        found: np.ndarray = np.maximum(usual.emission[0] - worn, 0).T.astype(np.float32)
        return found

    def _cleaner(
        self, emission: np.ndarray, exhaust: np.ndarray, speed: np.ndarray, travelled: np.ndarray
    ) -> np.ndarray:
        rows = np.flatnonzero((exhaust != 1).any(axis=(1, 2)))
        if not len(rows):
            return emission
        emission = emission.copy()
        burnt = np.maximum(emission[rows] - self._worn_more * wear(speed[rows], travelled[rows]), 0)
        emission[rows] -= burnt * (1 - exhaust[rows])
        return emission
