"""How far a surrogate's learning reaches, and which scenarios lie outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from citybrain_models.surrogate.levers import CHANNELS

MARGIN = 1.1
"""So much beyond the strongest that was learnt is still taken for inside."""
QUANTILE = 0.99


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
        """For each scenario why it lies outside: the channels stronger than any learnt, or ``combination`` where no
        scenario like it was; an empty string inside."""
        said = summary(levers)
        beyond = (said > MARGIN * self.seen.max(axis=0) + 1e-6) | (said < MARGIN * self.seen.min(axis=0) - 1e-6)
        far = _distances(said / self.size, self.seen / self.size).min(axis=1) > self.gap * MARGIN + 1e-6
        names = [f"{kind} {channel}" for kind in ("weakest", "strongest", "total") for channel in CHANNELS]
        return [
            "; ".join(n for n, b in zip(names, row, strict=True) if b) or ("combination" if away else "")
            for row, away in zip(beyond, far, strict=True)
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        return {"seen": self.seen, "size": self.size, "gap": np.array(self.gap)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> Reach:
        return Reach(arrays["seen"], arrays["size"], float(arrays["gap"]))


def summary(levers: np.ndarray) -> np.ndarray:
    """Lowest, highest and mean value of each channel, ``[scenario, 3 · channel]``."""
    flat = levers.reshape(len(levers), -1, levers.shape[-1])
    return np.concatenate([flat.min(axis=1), flat.max(axis=1), flat.mean(axis=1)], axis=1)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances ``[a, b]``."""
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2 * a @ b.T
    return np.sqrt(np.maximum(square, 0.0))
