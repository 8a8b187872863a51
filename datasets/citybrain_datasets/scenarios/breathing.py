"""The linear air step and the sums over people and stations, folded into one product for many scenarios."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from citybrain_datasets.scenarios.air import AirStep, by_hour
from citybrain_datasets.scenarios.outcomes import EXCEEDANCE, Place


class Breathing:
    """What :func:`~citybrain_datasets.scenarios.outcomes.air_outcomes` says of
    :meth:`~citybrain_datasets.scenarios.air.AirStep.pm25`, without the concentration of every cell in between.

    Only stations are held against a limit hour by hour. What people breathe is a mean over days, hours and cells, so
    that the matrix is summed over those once and not for each scenario.
    """

    def __init__(self, step: AirStep, place: Place):
        days, hours, _, segments = step.matrix.shape
        stations = len(place.stations)
        self.hours, self.place, self.composition = hours, place, step.composition
        member = place.district[:, None] == np.arange(len(place.districts))
        lived = place.population @ member
        by_district = member * place.population[:, None] / np.where(lived > 0, lived, np.inf)
        # Cells to districts, and in the last column to the city.
        people = np.c_[by_district, place.population / place.population.sum()]
        matrix = step.matrix.astype(float)
        self._station_matrix = matrix[:, :, :stations].transpose(1, 3, 0, 2).reshape(hours, segments, days * stations)
        self._people_matrix = np.einsum("dhcs,cp->hsp", matrix[:, :, stations:], people, optimize=True) / days
        # Each is a pair: what blows in, and what is the city's own.
        background = [field.astype(float) for field in (step.regional, step.local)]
        self._at_stations = [f[:, :, :stations].transpose(1, 0, 2).reshape(hours, -1) for f in background]
        self._at_people = [f[:, :, stations:].mean(axis=0) @ people for f in background]

    def __call__(
        self, emission: np.ndarray, sectors: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Outcomes, each ``[scenario]``, and the worst-off district's position, from ``emission`` g/h
        ``[scenario, slot, segment]`` and factors on other sources ``[scenario, slot]``, none of them in a warm-up."""
        people, district = self.people(emission, sectors)
        outcomes = {"pm25_people": people, "worst_district_pm25": district.max(axis=1)}
        if self.place.stations:
            measured = self._hourly(emission, sectors, self._station_matrix, self._at_stations)
            outcomes["pm25_stations"] = measured.mean(axis=(0, 2))
            outcomes["exceedance_h"] = (measured > EXCEEDANCE).sum(axis=(0, 2)).astype(float)
        else:
            nowhere = np.full(len(emission), np.nan)
            outcomes |= {"pm25_stations": nowhere, "exceedance_h": nowhere}
        return outcomes, district.argmax(axis=1)

    def people(self, emission: np.ndarray, sectors: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What people breathe, mean over hours and days, µg/m³: in the city ``[scenario]``, and in each district
        ``[scenario, district]``; arguments as above."""
        breathed = self._hourly(emission, sectors, self._people_matrix, self._at_people).mean(axis=0)
        return breathed[:, -1], breathed[:, :-1]

    def _hourly(
        self, emission: np.ndarray, sectors: Mapping[str, np.ndarray], matrix: np.ndarray, background: list[np.ndarray]
    ) -> np.ndarray:
        """µg/m³ ``[hour, scenario, column of the matrix]``."""
        blown, own = (share.T[..., None] for share in self.composition.left(sectors, (len(emission), self.hours)))
        regional, local = (field[:, None] for field in background)
        concentration: np.ndarray = by_hour(emission).swapaxes(0, 1) @ matrix + regional * blown + local * own
        return concentration
