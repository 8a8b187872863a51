"""What sensors elsewhere say of a place without one: the nearest sensors' mean, inverse distance, kriging."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from citybrain_datasets.city import City
from citybrain_datasets.features import Window
from citybrain_datasets.neighbourhood import Neighbourhood
from citybrain_datasets.signals import NodeType
from citybrain_datasets.windows import WindowSource
from citybrain_models.forecaster import Forecaster

FITTED_ON = 200
"""Issue times from which the covariance of kriging is learnt."""


class Elsewhere:
    """A weighted mean of what ``inner`` says of the sensors that count, for the places that have none; the others keep
    what it says of them. ``weight`` is ``[place, sensor]``, ``places`` and ``sensors`` bool ``[node]``."""

    def __init__(self, inner: Forecaster, places: np.ndarray, sensors: np.ndarray, weight: np.ndarray):
        self.inner = inner
        self.task = inner.task
        self.places = places
        self.sensors = sensors
        self.weight = weight.astype(np.float32)

    def forecast(self, window: Window) -> np.ndarray:
        said = self.inner.forecast(window)
        said[:, self.places] = np.einsum("bshq,ps->bphq", said[:, self.sensors], self.weight)
        return said


def nearest_mean(inner: Forecaster, city: City, places: np.ndarray) -> Elsewhere | None:
    """By inverse distance over the nearest sensors, of which each place must have some; None where one has none."""
    near = Neighbourhood.of(city, inner.task.node, max(1, len(places) - 1))
    rows, share = near.lenders(places, ~places)
    if not share.any(axis=1).all():
        return None
    weight = np.zeros((len(rows), len(places)))
    np.add.at(weight, (np.arange(len(rows))[:, None], rows), share)
    return Elsewhere(inner, places, ~places, weight[:, ~places])


def inverse_distance(inner: Forecaster, city: City, places: np.ndarray) -> Elsewhere | None:
    """Shepard's interpolation (1968): sensors by the inverse square of their distance; None where a place is lost."""
    table = city.nodes[inner.task.node]
    if table[["lat", "lon"]].isna().any(axis=None):
        return None
    at = _kilometres(city, inner.task.node)
    away = np.linalg.norm(at[places, None] - at[None, ~places], axis=-1)
    weight = 1 / (away + 1e-3) ** 2
    return Elsewhere(inner, places, ~places, weight / weight.sum(axis=1, keepdims=True))


def kriging(
    inner: Forecaster, city: City, places: np.ndarray, source: WindowSource, issues: pd.DatetimeIndex
) -> Elsewhere | None:
    """Kriging with an exponential covariance and a nugget, fitted by likelihood to what ``inner`` says at ``issues``
    of the sensors that count, around their mean; None where a place is lost."""
    table = city.nodes[inner.task.node]
    if table[["lat", "lon"]].isna().any(axis=None):
        return None
    at = _kilometres(city, inner.task.node)
    chosen = issues[:: max(1, len(issues) // FITTED_ON)]
    field = inner.forecast(source.window(chosen))[:, ~places, 0, inner.task.median].T.astype(float)
    field = (field - field.mean(axis=0)) / field.std()
    kernel = ConstantKernel(1.0) * Matern(length_scale=5.0, length_scale_bounds=(0.1, 1e3), nu=0.5) + WhiteKernel(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bound that is reached is an answer too
        fitted = GaussianProcessRegressor(kernel).fit(at[~places], field)
    # The prediction is linear in what was measured: its matrix is what it makes of unit vectors.
    unit = np.eye(len(field))
    linear = GaussianProcessRegressor(fitted.kernel_, optimizer=None).fit(at[~places], unit).predict(at[places])
    return Elsewhere(inner, places, ~places, linear + (1 - linear.sum(axis=1, keepdims=True)) / len(field))


def _kilometres(city: City, node: NodeType) -> np.ndarray:
    """East and north of the city's middle, km ``[node, 2]``; flat enough for a city."""
    table = city.nodes[node]
    lat, lon = table["lat"].to_numpy(float), table["lon"].to_numpy(float)
    middle = np.median(lat)
    return 111.2 * np.stack([(lon - np.median(lon)) * np.cos(np.deg2rad(middle)), lat - middle], axis=-1)
