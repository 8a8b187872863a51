"""A city small enough to train on in seconds, with roads, stations, weather and a rhythm to learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from citybrain_datasets.city import City
from citybrain_datasets.signals import Signal
from citybrain_training.config import TrainConfig
from citybrain_training.pipeline import Outcome, train

QUICK = {
    "network": {"width": 16, "blocks": 1, "hubs": 2, "embedding": 4},
    "fit": {"epochs": 2, "batch": 32, "average": 0, "windows_per_epoch": 256},
    "threads": 1,
}


def make_small_city(days: int = 21, roads: int = 6, stations: int = 3, seed: int = 0) -> City:
    random = np.random.default_rng(seed)
    start = pd.Timestamp("2024-03-04", tz="UTC")

    def table(prefix: str, count: int) -> pd.DataFrame:
        frame = pd.DataFrame(
            {"lat": 31 + 0.01 * random.random(count), "lon": 121 + 0.01 * random.random(count)},
            index=[f"{prefix}{i}" for i in range(count)],
        )
        return frame.assign(name="", name_zh="", owner="", cell="")

    def edges(sources: list[str], targets: list[str]) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "source": sources,
                "target": targets,
                "distance_m": 300.0 + 100 * np.arange(len(sources)),
                "bearing_deg": 45.0,
            }
        )

    road_ids, air_ids = [f"r{i}" for i in range(roads)], [f"a{i}" for i in range(stations)]
    ticks = days * 96
    hour = np.arange(1, ticks + 1)[:, None] / 4 % 24
    rush = np.exp(-((hour - 8) ** 2) / 4) + np.exp(-((hour - 18) ** 2) / 4)
    slow = np.cumsum(random.normal(size=(ticks, 1)), axis=0) / 30
    speed = 60 - 38 * rush * (1 + 0.3 * np.sin(slow)) + random.normal(size=(ticks, roads))
    speed[random.random(speed.shape) < 0.05] = np.nan
    hours = days * 24
    traffic = rush[3::4]
    pm25 = 40 + 20 * traffic + 10 * np.sin(np.arange(hours)[:, None] / 30) + random.normal(size=(hours, stations))
    wind = np.abs(3 + random.normal(size=(hours, 1)))
    signals = {
        "speed": Signal("speed", "road", start + pd.Timedelta(minutes=15), pd.Timedelta(minutes=15), speed),
        "pm25": Signal("pm25", "air", start + pd.Timedelta(hours=1), pd.Timedelta(hours=1), np.maximum(pm25, 1)),
        "wind_speed": Signal("wind_speed", "city", start + pd.Timedelta(hours=1), pd.Timedelta(hours=1), wind),
        "wind_direction": Signal(
            "wind_direction",
            "city",
            start + pd.Timedelta(hours=1),
            pd.Timedelta(hours=1),
            360 * random.random((hours, 1)),
        ),
    }
    return City(
        name="smallville",
        timezone="Asia/Shanghai",
        country="CN",
        synthetic=True,
        nodes={"road": table("r", roads), "air": table("a", stations)},
        edges={
            "road-road": edges(road_ids, road_ids[1:] + road_ids[:1]),
            "air-air": edges(air_ids, air_ids[1:] + air_ids[:1]),
            "road-air": edges(road_ids, [air_ids[i % stations] for i in range(roads)]),
        },
        signals=signals,
    )


@pytest.fixture(scope="session")
def small_city() -> City:
    return make_small_city()


@pytest.fixture(scope="session")
def quick() -> TrainConfig:
    return TrainConfig.model_validate(QUICK)


@pytest.fixture(scope="session")
def trained(small_city: City, quick: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A bundle of the small city, good enough to be told from a worse one; tracked nowhere."""
    config = quick.merged({"fit": {"epochs": 6}})
    return train(small_city, "congestion", config, tmp_path_factory.mktemp("trained"), home=None, progress=False)


@pytest.fixture(scope="session")
def saved_city(small_city: City, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cities") / "smallville"
    small_city.save(folder)
    return folder
