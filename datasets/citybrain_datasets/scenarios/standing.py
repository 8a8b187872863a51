"""The air step of usual weather, stood on what is forecast for the stations now."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from citybrain_datasets.city import City
from citybrain_datasets.scenarios.air import AirStep, by_hour, to_cells
from citybrain_datasets.scenarios.geography import receptors
from citybrain_datasets.simulation.projection import to_metres


def standing_on(step: AirStep, city: City, pm25: np.ndarray, emission: np.ndarray) -> AirStep:
    """``step`` as one day on which ``emission``, g/h ``[step, segment]``, comes to ``pm25`` at the stations.

    ``pm25`` is µg/m³ ``[hour, station]`` in the order of the receptors; a station without one (NaN) breathes what the
    others do on average. Dispersion is the mean of the days of ``step``. What is forecast beyond the traffic's part is
    background, blown in and the city's own in the usual proportion. Where the traffic's part alone is more than is
    forecast, the air carries more off than usual: there, and by nearness in the cells around, it is brought down to the
    forecast. Raises :class:`ValueError` where an hour has no station with a finite value.
    """
    if not np.isfinite(pm25).any(axis=1).all():
        raise ValueError("every hour needs the PM2.5 of a station")
    stations = pm25.shape[1]
    points = receptors(city)
    x, y = to_metres(points.lat, points.lon, float(points.lat.mean()), float(points.lon.mean()))
    spread = to_cells(np.stack([x, y], axis=1), stations)
    level = np.where(np.isfinite(pm25), pm25, np.nanmean(pm25, axis=1, keepdims=True)).astype(float)

    matrix, regional, local = (field.astype(float).mean(axis=0) for field in (step.matrix, step.regional, step.local))
    traffic = np.einsum("hrs,hs->hr", matrix[:, :stations], by_hour(emission))
    carried = np.divide(level, traffic, out=np.ones_like(level), where=traffic > level)
    background = np.maximum(level - carried * traffic, 0) @ spread.T
    both = regional + local
    blown = np.divide(regional, both, out=np.zeros_like(both), where=both > 0)
    return replace(
        step,
        matrix=(matrix * (carried @ spread.T)[..., None])[None],
        regional=(background * blown)[None],
        local=(background * (1 - blown))[None],
    )
