"""Hourly weather of a spring month: fronts that bring rain and wind, and still, hazy days between them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from citybrain_datasets.simulation.plan import Plan

LONGEST = 366 * 24
"""Hours drawn, whatever the plan asks for, so that a longer run begins with the days of a shorter one."""


def simulate_weather(plan: Plan) -> pd.DataFrame:
    """One row an hour of the plan's days, local time ending the hour from 01:00 of the first day.

    Columns are those of ``citybrain_datasets.signals.KINDS`` (``temperature`` … ``mixing_height``), and
    ``stagnation`` (0–1), the state that builds up between two fronts and drives wind, mixing and haze.

    A cold front passes every five days or so (gamma-distributed). Before it the air stagnates; with it come
    rain, a wind from the north, and lower temperatures. Daily courses follow the sun.
    """
    hours = LONGEST
    rng = np.random.default_rng([plan.seed, 2])
    clock = np.arange(1, hours + 1)
    local_hour = clock % 24
    since = _hours_since_front(rng, hours)
    stagnation = np.clip((1 - np.exp(-since / 60)) + autoregression(rng, hours, 12, 0.1), 0, 1)
    passing = np.exp(-(((since - 4) / 7) ** 2))

    sun = np.clip(np.sin(np.pi * (local_hour - 6.5) / 12), 0, None)
    cloud = np.clip(passing + autoregression(rng, hours, 18, 0.25), 0, 1)
    warm = 13 + clock / 24 * 0.15 + 4 * stagnation - 5 * passing
    temperature = (
        warm + (2 + 5 * (1 - cloud)) * np.sin(np.pi * (local_hour - 9) / 12) + autoregression(rng, hours, 8, 0.8)
    )
    wind = (4.2 - 2.6 * stagnation + 3.0 * passing) * (0.75 + 0.45 * sun) * np.exp(autoregression(rng, hours, 6, 0.25))
    mixing = (180 + 1250 * sun * (1 - 0.6 * cloud)) * (1.15 - 0.5 * stagnation) + 40 * wind
    # North behind the front, veering through east to south-east as it recedes; land and sea breeze on top.
    direction = 360 + 130 * (1 - np.exp(-since / 40)) + 25 * np.sin(np.pi * (local_hour - 12) / 12)
    direction = (direction + autoregression(rng, hours, 10, 22)) % 360
    humidity = np.clip(
        62 + 25 * passing + 12 * stagnation - 22 * sun * (1 - cloud) + autoregression(rng, hours, 10, 5),
        20,
        99,
    )

    wet = rng.random(hours) < 0.75 * passing + _showers(rng, hours, since)
    rain = np.where(wet, rng.gamma(1.3, 1.6, hours), 0.0)
    humidity = np.where(wet, np.maximum(humidity, 85), humidity)

    table = pd.DataFrame(
        {
            "temperature": temperature.round(1),
            "humidity": humidity.round(0),
            "wind_speed": np.clip(wind, 0.2, None).round(1),
            "wind_direction": direction.round(0) % 360,
            "precipitation": rain.round(1),
            "mixing_height": np.clip(mixing, 120, None).round(0),
            "stagnation": stagnation,
        },
        index=pd.date_range(plan.midnight(0) + pd.Timedelta(hours=1), periods=hours, freq="1h", name="timestamp"),
    )
    return table.iloc[: plan.days * 24]


def _hours_since_front(rng: np.random.Generator, hours: int) -> np.ndarray:
    passages = np.cumsum(np.r_[-rng.uniform(20, 90), rng.gamma(9, 120 / 9, hours // 48 + 8)])
    clock = np.arange(hours)
    last = np.searchsorted(passages, clock, side="right") - 1
    return clock - passages[last]


def _showers(rng: np.random.Generator, hours: int, since: np.ndarray) -> np.ndarray:
    """Chance of rain away from the front: a few afternoon showers when the air has become warm."""
    days = rng.random(hours // 24 + 1) < 0.2
    hour = np.arange(1, hours + 1) % 24
    return np.where(days[np.arange(hours) // 24] & (hour >= 14) & (hour <= 20) & (since > 48), 0.35, 0.0)


def autoregression(rng: np.random.Generator, count: int, memory: float, spread: float) -> np.ndarray:
    """Stationary first-order autoregression with e-folding time ``memory`` steps and deviation ``spread``."""
    keep = float(np.exp(-1 / memory))
    noise = rng.normal(0, spread * np.sqrt(1 - keep**2), count)
    state = np.empty(count)
    value = rng.normal(0, spread)
    for i in range(count):
        value = keep * value + noise[i]
        state[i] = value
    return state
