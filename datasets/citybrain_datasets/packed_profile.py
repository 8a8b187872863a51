"""A weekly profile in half the memory, for a city whose profile is most of what a server holds."""

from __future__ import annotations

import numpy as np

from citybrain_datasets.statistics import Profile, Statistics

LARGE = 64 * 2**20
"""Bytes of a profile from which it is packed; a smaller one is served as it was trained with, to the bit."""

MISSING = np.iinfo(np.uint16).max
"""Code of NaN; the others are whole steps from the least value to the greatest."""

AT_ONCE = 64
"""Slots that are packed together, so that no second copy of a large profile is made on the way."""


class PackedProfile(Profile):
    """A profile in 16 bits a value. What it tells is half a step off at most, the range of the profile over 131,068:
    0.001 km/h for speeds up to 120, which forecasts round away."""

    def __init__(self, profile: Profile):
        mean = profile.mean
        low, high = float(np.nanmin(mean, initial=np.inf)), float(np.nanmax(mean, initial=-np.inf))
        self.slot_minutes = profile.slot_minutes
        self._low = low if low <= high else 0.0  # all of it is NaN
        self._step = (high - low) / (MISSING - 1) if low < high else 1.0
        self._codes = np.empty(mean.shape, np.uint16)
        for first in range(0, len(mean), AT_ONCE):
            part = mean[first : first + AT_ONCE]
            codes = np.rint((part.astype(np.float64) - self._low) / self._step)
            self._codes[first : first + AT_ONCE] = np.where(np.isnan(codes), MISSING, codes)

    @property
    def mean(self) -> np.ndarray:
        return self._read(self._codes)

    def at(self, slots: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        return self._read(self._codes[slots])

    def of(self, nodes: np.ndarray | slice) -> np.ndarray:
        return self._read(self._codes[:, nodes])

    def _read(self, codes: np.ndarray) -> np.ndarray:
        values = codes * np.float32(self._step) + np.float32(self._low)
        values[codes == MISSING] = np.nan
        return values


def packed(statistics: Statistics, above: int | None = None) -> Statistics:
    """``statistics`` with every profile of ``above`` bytes or more packed, by default the :data:`LARGE` ones."""
    above = LARGE if above is None else above
    profiles = {
        name: PackedProfile(profile) if profile.mean.nbytes >= above else profile
        for name, profile in statistics.profiles.items()
    }
    return Statistics(statistics.scalers, profiles)
