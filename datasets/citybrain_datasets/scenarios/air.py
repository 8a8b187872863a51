"""From emission on the roads to PM2.5 at stations and where people live.

    PM2.5 = regional · r + local · Σ composition_k · f_k + M · emission

``M`` is the line-source matrix of :mod:`~citybrain_datasets.simulation.dispersion`, one for each hour of weather; the
background is what blows in (``regional``) and what the city burns besides traffic (``local``), each with the factors
of the measures. Everything is linear: halving a source halves its share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pydantic import Field, ValidationError, model_validator

from citybrain_datasets.errors import CityError, ConfigError, Problem
from citybrain_datasets.scenarios.actions import WARM_UP, Window
from citybrain_datasets.scenarios.geography import receptors
from citybrain_datasets.scenarios.language import Share, Weather
from citybrain_datasets.scenarios.places import Strict
from citybrain_datasets.scenarios.site import Site
from citybrain_datasets.scenarios.weather import Hours, weather_hours
from citybrain_datasets.simulation.projection import to_metres
from citybrain_datasets.store import schema_problems

_STEPS_AN_HOUR = 4


class Composition(Strict):
    """What the city's own PM2.5 consists of, traffic apart; shares of 1.

    Default: Beijing's first official apportionment (Municipal Environmental Protection Bureau, April 2014: of local
    sources, vehicles 31.1 %, coal 22.4 %, industry 18.1 %, dust 14.3 %, others 14.1 %), the vehicles left out; read in
    press reports of it. By 2018 coal had fallen to 3 %: another city, or another year, should state its own.
    """

    coal: Share = 0.325
    industry: Share = 0.263
    dust: Share = 0.207
    other: Share = 0.205

    @model_validator(mode="after")
    def _whole(self) -> Composition:
        total = self.coal + self.industry + self.dust + self.other
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares add up to {total:g}, not to 1")
        return self

    def left(self, sectors: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """What is left of the PM2.5 that blows in, and of the city's own, ``shape [..., hour]``, under factors
        ``[..., step]`` on the sectors."""
        factor = {name: np.asarray(v, float).reshape(*shape, -1).mean(axis=-1) for name, v in sectors.items()}
        # Written as what is taken away, so that factors of 1 change nothing, exactly.
        shares = {name: getattr(self, name) for name in ("coal", "industry", "dust")}
        cut = sum((share * (1 - factor[k]) for k, share in shares.items() if k in factor), np.zeros(shape))
        return factor.get("regional", np.ones(shape)), 1 - cut


class AirAssumptions(Strict):
    """What is assumed about the air of a city where nothing was measured; each may be overridden by ``--air FILE``."""

    composition: Composition = Composition()
    regional_share: Share = 0.32
    """Share of PM2.5 that blows in, where origins are not known: the middle of 28–36 %, Beijing, as above."""
    regional_ugm3: float = Field(20.0, ge=0, allow_inf_nan=False)
    local_ugm3: float = Field(15.0, ge=0, allow_inf_nan=False)
    """Assumed; used only where the city has measured no PM2.5 either."""
    wind_speed: float = Field(2.5, ge=0, le=60)
    wind_direction: float = Field(0.0, ge=0, le=360)
    mixing_height: float = Field(600.0, gt=0, le=6000)
    """Assumed; used only where the city has no record of weather."""


@dataclass(frozen=True)
class AirStep:
    """The linear step for one city, window and weather.

    ``matrix`` µg/m³ per (g/h) ``[day, hour, receptor, segment]``, the site's ``traffic_scale`` included; ``regional``
    and ``local`` µg/m³ ``[day, hour, receptor]``. Receptors are stations, then cells.
    """

    matrix: np.ndarray
    regional: np.ndarray
    local: np.ndarray
    composition: Composition

    def pm25(self, emission: np.ndarray, sectors: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """PM2.5 µg/m³ ``[..., day × hour, receptor]`` of ``emission`` g/h ``[..., step, segment]`` of the window.

        ``sectors`` are factors ``[step]``, warm-up included, as in ``Actions.sectors``; None leaves all as they are.
        """
        hourly = by_hour(emission)
        traffic = np.einsum("dhrs,...hs->...dhr", self.matrix, hourly, optimize=True)
        total = traffic + self.background(sectors)
        return total.reshape(*total.shape[:-3], -1, total.shape[-1])

    def background(self, sectors: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """All but traffic, µg/m³ ``[day, hour, receptor]``."""
        regional, local = self.regional.astype(float), self.local.astype(float)
        if not sectors:
            return regional + local
        factors = {name: np.asarray(v)[WARM_UP:] for name, v in sectors.items()}
        blown, own = self.composition.left(factors, (self.matrix.shape[1],))
        return regional * blown[:, None] + local * own[:, None]


def by_hour(emission: np.ndarray) -> np.ndarray:
    """Hourly means ``[..., hour, segment]`` of ``[..., step, segment]``."""
    return np.asarray(emission, float).reshape(*emission.shape[:-2], -1, _STEPS_AN_HOUR, emission.shape[-1]).mean(-2)


def air_step(
    site: Site,
    weather: Weather,
    window: Window,
    assumptions: AirAssumptions | None = None,
    base_emission: np.ndarray | None = None,
) -> AirStep:
    """The linear step of ``site`` in ``weather``.

    The background is, in this order: the origins that a simulated city keeps (``origins.parquet``); the PM2.5 that was
    measured less what ``base_emission`` (g/h ``[step, segment]``) explains, split by ``regional_share``; the assumed
    concentrations. Without ``assumptions`` the site's own are taken, or the defaults.
    """
    # SciPy, which a server that only applies a step it was given does without.
    from citybrain_datasets.simulation.dispersion import source_receptor

    assumed = assumptions or read_assumptions(site.assumptions)
    count = window.steps // _STEPS_AN_HOUR
    constant = {n: np.full((1, count), getattr(assumed, n)) for n in ("wind_speed", "wind_direction", "mixing_height")}
    hours = weather_hours(site.city, weather, window, Hours(**constant, precipitation=np.zeros((1, count))))
    points = receptors(site.city)
    x, y = to_metres(points.lat, points.lon, site.latitude, site.longitude)
    where = np.stack([x, y], axis=1)
    matrix = np.stack(
        [
            np.stack([source_receptor(where, site.ends, *map(float, hour)) for hour in zip(*day, strict=True)])
            for day in zip(hours.wind_speed, hours.wind_direction, hours.mixing_height, strict=True)
        ]
    )
    matrix *= site.traffic_scale
    regional, local = _background(site, hours, assumed, matrix, base_emission)
    spread = to_cells(where, points.stations)
    return AirStep(matrix, regional @ spread.T, local @ spread.T, assumed.composition)


def read_assumptions(path: Path | None) -> AirAssumptions:
    """Assumptions from a YAML file, the defaults without one; errors name file and key."""
    if path is None:
        return AirAssumptions()
    try:
        return AirAssumptions.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        raise CityError(schema_problems(path, error)) from error


def _background(
    site: Site, hours: Hours, assumed: AirAssumptions, matrix: np.ndarray, base_emission: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Regional and local PM2.5 at the stations, ``[day, hour, station]``; one column where there is no station."""
    days, count = hours.wind_speed.shape
    stations = receptors(site.city).ids[: receptors(site.city).stations]
    blank = np.ones((days, count, max(len(stations), 1)))
    if hours.times is None or not stations:
        return assumed.regional_ugm3 * blank, assumed.local_ugm3 * blank
    times = pd.DatetimeIndex(hours.times.ravel()).tz_localize("UTC")
    if site.origins is not None:
        table = pd.read_parquet(site.origins)
        parts = []
        for column in ("background", "urban"):
            wide = table.pivot(index="time", columns="station", values=column).reindex(
                index=times, columns=list(stations)
            )
            if wide.isna().any(axis=None):
                raise CityError([Problem(str(site.origins), f"lacks {column} of some hour or station")])
            parts.append(wide.to_numpy(float).reshape(blank.shape))
        return parts[0], parts[1]
    if "pm25" not in site.city.signals:
        return assumed.regional_ugm3 * blank, assumed.local_ugm3 * blank
    signal = site.city.signals["pm25"]
    wide = pd.DataFrame(signal.values, signal.times, site.city.ids("air")).reindex(index=times, columns=list(stations))
    # A station that was silent is taken to have breathed what the others did.
    filled = wide.T.fillna(wide.mean(axis=1)).T.fillna(assumed.regional_ugm3 + assumed.local_ugm3)
    measured = filled.to_numpy(float).reshape(blank.shape)
    traffic = np.zeros_like(measured)
    if base_emission is not None:
        traffic = np.einsum("dhrs,hs->dhr", matrix[:, :, : len(stations)], by_hour(base_emission))
    rest = np.maximum(measured - traffic, 0)
    regional = np.minimum(assumed.regional_share * measured, rest)
    return regional, rest - regional


def to_cells(where: np.ndarray, stations: int) -> np.ndarray:
    """Weights ``[receptor, station]`` that carry a smooth field from stations to cells: inverse squared distance."""
    if stations == 0:
        return np.ones((len(where), 1))
    away = np.hypot(*(where[stations:, None] - where[:stations]).transpose(2, 0, 1))
    weight = 1 / np.maximum(away, 50.0) ** 2
    return np.vstack([np.eye(stations), weight / weight.sum(axis=1, keepdims=True)])
