"""The seven published cities come in by their packaged YAML, with every trap of theirs stepped over."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from citybrain_datasets.checking import check_city
from citybrain_datasets.city import City
from citybrain_datasets.configuration import packaged_names
from citybrain_datasets.importing import import_city
from citybrain_datasets.report import ImportReport

DATA = Path(os.environ.get("CITYBRAIN_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the published data are not here (CITYBRAIN_DATA)")


@cache
def brought(name: str) -> tuple[City, ImportReport]:
    return import_city(name, DATA)


def values(name: str, signal: str) -> np.ndarray:
    return brought(name)[0].signals[signal].values


@pytest.mark.parametrize(
    ("name", "nodes", "steps", "first", "last"),
    [
        ("pems-bay-67", {"road": 67}, 52_116, "2017-01-01 08:05", "2017-07-01 07:00"),
        ("pems08-170", {"road": 170}, 7_156, "2016-08-07 10:45", "2016-09-01 07:00"),
        ("sz-taxi", {"road": 156}, 2_976, "2014-12-31 16:15", "2015-01-31 16:00"),
        ("hague", {"road": 123}, 2_880, "2019-10-31 23:15", "2019-11-30 23:00"),
        ("kdd2018-beijing", {"air": 35}, 10_898, "2017-01-01 14:00", "2018-03-31 15:00"),
        ("uci-beijing-12", {"air": 12}, 35_064, "2013-02-28 16:00", "2017-02-28 15:00"),
        ("madrid", {"road": 22, "air": 24}, 13_102, "2018-01-01 01:00", "2019-06-30 22:00"),
    ],
)
def test_counts_and_spans(name: str, nodes: dict[str, int], steps: int, first: str, last: str) -> None:
    city, _ = brought(name)
    assert {node: len(table) for node, table in city.nodes.items()} == nodes
    signal = next(iter(city.signals.values()))
    assert (signal.shape[0], signal.start, signal.end) == (
        steps,
        pd.Timestamp(first, tz="UTC"),
        pd.Timestamp(last, tz="UTC"),
    )
    assert city.attribution


def test_a_city_as_imported_is_the_city_as_saved(tmp_path: Path) -> None:
    city, _ = brought("hague")
    city.save(tmp_path / "hague")
    assert City.load(tmp_path / "hague").fingerprint() == city.fingerprint()


def test_every_packaged_city_is_tried_here() -> None:
    assert len(packaged_names()) == 7


@pytest.mark.parametrize("name", ["pems-bay-67", "hague", "kdd2018-beijing", "madrid"])
def test_no_published_city_has_errors(name: str) -> None:
    city, report = brought(name)
    assert check_city(city, report.findings).errors == []


def test_bay_area_the_skipped_hour_leaves_no_gap_and_zeros_are_missing() -> None:
    speed = values("pems-bay-67", "speed")
    assert np.isnan(speed).sum() == 119
    assert 4 < np.nanmin(speed) < np.nanmax(speed) < 140


def test_shenzhen_a_quarter_is_missing() -> None:
    speed = values("sz-taxi", "speed")
    assert 0.24 < np.isnan(speed).mean() < 0.26
    assert np.nanmin(speed) > 0


def test_hague_empty_nights_are_real_and_ids_agree_with_the_graph() -> None:
    city, _ = brought("hague")
    flow = values("hague", "flow")
    assert not np.isnan(flow).any()
    assert (flow == 0).any()
    connected = set(city.edges["road-road"]["source"]) | set(city.edges["road-road"]["target"])
    assert {"710051", "712111"} <= connected
    assert len(connected) == 122


def test_beijing_gridded_and_measured_wind_are_in_one_unit() -> None:
    wind = np.nanmedian(values("kdd2018-beijing", "wind_speed"), axis=0)
    assert 0.8 < wind.min() < wind.max() < 4
    assert np.nanmedian(values("uci-beijing-12", "wind_speed")) == pytest.approx(1.4, abs=0.1)
    assert np.nanmax(values("uci-beijing-12", "co")) == 10  # published as 10,000 µg/m³
    winds = values("uci-beijing-12", "wind_direction")
    assert (winds[np.isfinite(winds)] % 22.5 == 0).all()


def test_madrid_air_and_traffic_of_one_row_end_an_hour_apart() -> None:
    city, report = brought("madrid")
    assert city.signals["flow"].start - city.signals["no2"].start == pd.Timedelta(hours=1)
    assert [f.check for f in report.findings] == ["duplicated", "places"]
    flow = city.signals["flow"]
    spring = flow.rows(*(int((pd.Timestamp(t, tz="UTC") - flow.start) / flow.step) for t in (
        "2018-03-25 00:00", "2018-03-25 05:00")))  # fmt: skip
    assert np.isfinite(spring).mean() > 0.9
    assert "Pza. de España" in city.nodes["air"]["name"].tolist()
    assert set(city.ids("air")) - set(city.ids("road")) == {"24", "58"}
    nearest = city.edges["road-air"].sort_values("distance_m").groupby("target").first()
    assert (nearest.loc[city.ids("road"), "distance_m"] == 0).all()


def test_rush_hours_stand_where_the_city_has_them() -> None:
    for name, low, high in (("hague", 7, 19), ("madrid", 7, 21), ("pems08-170", 6, 19)):
        city, _ = brought(name)
        flow = city.signals["flow"]
        hour = flow.times.tz_convert(city.timezone).hour
        by_hour = pd.DataFrame(flow.values).mean(axis=1).groupby(np.asarray(hour)).mean()
        assert low <= by_hour.idxmax() <= high
        assert by_hour.idxmin() in (2, 3, 4, 5, 6)


def test_the_file_as_published_equals_the_joined_table(tmp_path: Path) -> None:
    published = {
        "name": "one-station",
        "timezone": "Asia/Shanghai",
        "nodes": {"air": {}},
        "tables": [
            {
                "file": "uci-beijing-12/PRSA_Data_*.csv",
                "layout": "long",
                "station": "station",
                "time": {
                    "columns": ["year", "month", "day", "hour"], "step": "1h", "marks": "end", "zone": "local"
                },
                "signals": {
                    "pm25": {"node": "air", "column": "PM2.5", "unit": "µg/m³"},
                    "wind_direction": {"node": "air", "column": "wd", "unit": "compass"},
                },
            }
        ],
    }  # fmt: skip
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(published, allow_unicode=True), encoding="utf-8")
    one, _ = import_city(tmp_path / "one.yaml", DATA)
    joined, _ = brought("uci-beijing-12")
    column = joined.ids("air").index("Aotizhongxin")
    for name in ("pm25", "wind_direction"):
        np.testing.assert_array_equal(one.signals[name].values[:, 0], joined.signals[name].values[:, column])
