"""How far a surrogate's learning reaches, and which scenarios lie outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from citybrain_models.surrogate.levers import CHANNELS, summary

MARGIN = 1.1
"""So much beyond the strongest that was learnt is still taken for inside."""
QUANTILE = 0.99
_WORDS = {
    "lanes_closed": "lanes closed", "closed": "roads closed", "limit": "speed limits", "retiming": "signals retimed",
    "cancelled": "trips taken away or added", "cancelled_share": "trips taken away or added", "cleaner": "less exhaust",
    "barred": "vehicles barred", "barred_exhaust": "vehicles barred", "diverted": "traffic diverted",
    "diverted_exhaust": "traffic diverted", "informed": "drivers informed",
}  # fmt: skip
_NAMES = [_WORDS[channel] for _ in ("weakest", "strongest", "total") for channel in CHANNELS]


@dataclass(frozen=True)
class Reach:
    """The measures of the scenarios that a surrogate was trained on, as a few numbers each.

    ``seen [scenario, number]`` are :func:`summary` of them, ``size [number]`` the spread of each, and ``gap`` the
    distance to its nearest neighbour that all but a hundredth of the training scenarios keep among themselves.
    """

    seen: np.ndarray
    size: np.ndarray
    gap: float

    @staticmethod
    def of(levers: np.ndarray) -> Reach:
        """From the lever arrays of the training scenarios ``[scenario, segment, slot, channel]``."""
        seen = summary(levers)
        size = np.maximum(seen.std(axis=0), 1e-3)
        apart = _distances(seen / size, seen / size)
        np.fill_diagonal(apart, np.inf)
        nearest = apart.min(axis=1) if len(seen) > 1 else np.zeros(1)
        return Reach(seen.astype(np.float32), size.astype(np.float32), float(np.quantile(nearest, QUANTILE)))

    def outside(self, levers: np.ndarray) -> list[str]:
        """:meth:`judge` of lever arrays ``[scenario, segment, slot, channel]``."""
        return self.judge(summary(levers))

    def judge(self, said: np.ndarray) -> list[str]:
        """For each scenario, by its :func:`summary`, why it lies outside: of what there is more than was ever learnt,
        or ``combination`` where no scenario like it was; an empty string inside."""
        lowest, highest, seen = self._bounds
        beyond = (said > highest) | (said < lowest)
        far = _distances(said / self.size, seen).min(axis=1) > self.gap * MARGIN + 1e-6
        found = ["combination" if away else "" for away in far]
        for row in np.flatnonzero(beyond.any(axis=1)):
            found[row] = "; ".join(dict.fromkeys(_NAMES[i] for i in np.flatnonzero(beyond[row])))
        return found

    @cached_property
    def _bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lowest, highest = self.seen.min(axis=0), self.seen.max(axis=0)
        return MARGIN * lowest - 1e-6, MARGIN * highest + 1e-6, self.seen / self.size

    def arrays(self) -> dict[str, np.ndarray]:
        return {"seen": self.seen, "size": self.size, "gap": np.array(self.gap)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> Reach:
        return Reach(arrays["seen"], arrays["size"], float(arrays["gap"]))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances ``[a, b]``."""
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2 * a @ b.T
    return np.sqrt(np.maximum(square, 0.0))
