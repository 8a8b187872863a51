"""A city comes in by configuration alone, and bad input is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityBrainError, CityError, ConfigError
from citybrain_datasets.importing import import_city
from citybrain_datasets.report import ImportReport
from citybrain_datasets.units import UNITS, conversion

Import = Callable[..., tuple[City, ImportReport]]


def wide(**changes: Any) -> dict[str, Any]:
    """A city of two freeway sensors, a and b, as the configuration of a wide CSV."""
    return {
        "name": "toy",
        "timezone": "America/Los_Angeles",
        "nodes": {"road": {"file": "places.csv", "columns": {"id": "sensor", "lat": "lat", "lon": "lon"}}},
        "edges": {"road-road": {"nearest": {"k": 1}}},
        "tables": [
            {
                "file": "speed.csv",
                "layout": "wide",
                "time": {"column": "time", "step": "30min", "marks": "start", "zone": "local"},
                "signals": {"speed": {"node": "road", "unit": "mph", "zero_is_missing": True}},
            }
        ],
        **changes,
    }


@pytest.fixture
def bring(tmp_path: Path) -> Import:
    (tmp_path / "places.csv").write_text("sensor,lat,lon\na,37.30,-121.90\nb,37.31,-121.90\n")

    def run(config: dict[str, Any], **files: str) -> tuple[City, ImportReport]:
        for name, text in files.items():
            (tmp_path / f"{name}.csv").write_text(text)
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
        city, report = import_city(tmp_path / "toy.yaml", tmp_path)
        for signal in city.signals.values():
            assert signal.values.dtype == np.float32
        return city, report

    return run


def test_units_missing_marks_and_the_end_of_the_interval(bring: Import) -> None:
    city, report = bring(wide(), speed="time,b,a\n2017-01-02 08:00,60,0\n2017-01-02 09:00,,50\n")
    speed = city.signals["speed"]
    # 08:00–08:30 in Los Angeles ends at 16:30 UTC; 08:30 is a gap; columns follow the places.
    assert [str(t) for t in speed.times] == [f"2017-01-02 {h}:30:00+00:00" for h in (16,)] + [
        "2017-01-02 17:00:00+00:00",
        "2017-01-02 17:30:00+00:00",
    ]
    expected = [[np.nan, 96.56064], [np.nan, np.nan], [80.4672, np.nan]]
    np.testing.assert_allclose(speed.values, expected, rtol=1e-6)
    assert report.findings == []


def test_clocks_going_forward_leave_no_gap_in_utc(bring: Import) -> None:
    rows = "time,a,b\n2017-03-12 01:30,1,1\n2017-03-12 03:00,2,2\n"
    speed = bring(wide(), speed=rows)[0].signals["speed"]
    assert [str(t) for t in speed.times] == ["2017-03-12 10:00:00+00:00", "2017-03-12 10:30:00+00:00"]
    assert np.isfinite(speed.values).all()


@pytest.mark.parametrize(("how", "seen"), [("missing", [1, 4]), ("shift", [1, 2, 3])])
def test_a_clock_that_was_not_put_forward(bring: Import, how: str, seen: list[float]) -> None:
    config = at(wide(), "tables.0.time.nonexistent", how)
    hours = ["01:30", "02:00", "02:30"] + (["03:00"] if how == "missing" else [])
    rows = "time,a,b\n" + "".join(f"2017-03-12 {h},{i + 1},9\n" for i, h in enumerate(hours))
    speed = bring(config, speed=rows)[0].signals["speed"]
    assert str(speed.start) == "2017-03-12 10:00:00+00:00"
    np.testing.assert_allclose(speed.values[:, 0] / 1.609344, seen, rtol=1e-6)


def test_clocks_going_back_show_an_hour_twice_in_its_order(bring: Import) -> None:
    hours = ["00:30", "01:00", "01:30", "01:00", "01:30", "02:00"]
    rows = "time,a,b\n" + "".join(f"2017-11-05 {h},{i + 1},9\n" for i, h in enumerate(hours))
    speed = bring(wide(), speed=rows)[0].signals["speed"]
    assert speed.shape[0] == 6
    np.testing.assert_allclose(speed.values[:, 0] / 1.609344, np.arange(1, 7), rtol=1e-6)


@pytest.mark.parametrize("by", ["time", "what"])
def test_clocks_going_back_show_an_hour_twice_for_each_quantity_of_a_tidy_table(bring: Import, by: str) -> None:
    hours = ["00:30", "01:00", "01:30", "01:00", "01:30", "02:00"]
    rows = [(i, what, hour) for i, hour in enumerate(hours) for what in ("v", "q")]
    rows.sort(key=lambda row: (row[0], row[1]) if by == "time" else (row[1], row[0]))
    signals = {
        "speed": {"node": "road", "unit": "km/h", "column": "v"},
        "flow": {"node": "road", "unit": "veh/h", "column": "q"},
    }
    table = {"layout": "tidy", "station": "site", "variable": "what", "value": "value", "signals": signals}
    config = wide()
    config["tables"][0] |= table
    text = "".join(f"2017-11-05 {hour},{site},{what},{i + 1}\n" for i, what, hour in rows for site in "ab")
    city, report = bring(config, speed="time,site,what,value\n" + text)
    for name in signals:
        np.testing.assert_allclose(city.signals[name].values, np.arange(1, 7)[:, None].repeat(2, axis=1))
    assert report.findings == []


def test_a_time_that_ends_with_its_year_is_local_as_configured(bring: Import) -> None:
    config = at(wide(), "tables.0.time.format", "%H:%M %d-%m-%Y")
    speed = bring(config, speed="time,a,b\n08:00 02-01-2017,60,61\n08:30 02-01-2017,62,63\n")[0].signals["speed"]
    assert str(speed.start) == "2017-01-02 16:30:00+00:00"


def test_milliseconds_taken_for_seconds_are_told(bring: Import) -> None:
    config = at(wide(), "tables.0.time.epoch", "s")
    with pytest.raises(CityError, match=r"speed\.csv, column time: 1483344000000 is no time in s.*time\.epoch right"):
        bring(config, speed="time,a,b\n1483344000000,60,61\n")


def test_offsets_are_read_as_databases_write_them(bring: Import) -> None:
    rows = "time,a,b\n2017-03-12 01:30:00-08,60,61\n2017-03-12 03:00:00-07,62,63\n"
    speed = bring(wide(), speed=rows)[0].signals["speed"]
    assert [str(time) for time in speed.times] == ["2017-03-12 10:00:00+00:00", "2017-03-12 10:30:00+00:00"]


@pytest.mark.parametrize(("timezone", "first"), [("America/Los_Angeles", "16:00"), ("Asia/Kolkata", "02:30")])
def test_times_snap_to_the_hours_of_the_place(bring: Import, timezone: str, first: str) -> None:
    """Those of India begin at half past the hour of UTC."""
    config = wide(timezone=timezone)
    config["tables"][0]["time"] |= {"snap": "2min", "step": "1h", "marks": "end"}
    rows = "time,a,b\n2017-01-02 08:00:07,60,61\n2017-01-02 08:59:55,62,63\n"
    speed = bring(config, speed=rows)[0].signals["speed"]
    assert str(speed.start) == f"2017-01-02 {first}:00+00:00"
    assert speed.shape == (2, 2)


def test_an_hour_that_should_stand_twice_and_stands_once_is_reported(bring: Import) -> None:
    rows = "time,a,b\n2017-11-05 00:30,1,1\n2017-11-05 01:00,2,2\n2017-11-05 02:30,3,3\n"
    _, report = bring(wide(), speed=rows)
    assert [f.check for f in report.findings] == ["daylight-saving"]


def test_local_time_said_to_be_utc_is_doubted(bring: Import) -> None:
    config = wide()
    config["tables"][0]["time"]["zone"] = "UTC"
    hours = ["01:00", "01:30", "03:00", "03:30"]
    _, report = bring(config, speed="time,a,b\n" + "".join(f"2017-03-12 {h},1,1\n" for h in hours))
    assert "is it local time?" in str(report.findings[0])


def test_duplicated_and_unordered_times_are_reported_and_lose_nothing(bring: Import) -> None:
    rows = "time,a,b\n2017-01-02 09:00,3,\n2017-01-02 08:00,1,5\n2017-01-02 08:00,,6\n"
    city, report = bring(wide(), speed=rows)
    assert {f.check for f in report.findings} == {"duplicated", "unordered"}
    np.testing.assert_allclose(city.signals["speed"].values[0] / 1.609344, [1, 6], rtol=1e-6)


def test_long_table_with_compass_words_and_a_unit_by_row(bring: Import) -> None:
    config = wide(
        nodes={"air": {"file": "places.csv", "columns": {"id": "sensor", "lat": "lat", "lon": "lon"}}},
        edges={"air-air": {"nearest": {"k": 3, "max_distance_m": 5000}}},
        tables=[
            {
                "file": "air.csv",
                "layout": "long",
                "station": "site",
                "time": {
                    "columns": ["year", "month", "day", "hour"],
                    "step": "1h",
                    "marks": "end",
                    "zone": "+08:00",
                },
                "signals": {
                    "no": {"node": "air", "unit": "ug/m3", "column": "NO"},
                    "temperature": {"node": "air", "unit": "K", "column": "T"},
                    "wind_direction": {"node": "air", "unit": "compass", "column": "wd"},
                    "wind_speed": {
                        "node": "air",
                        "column": "ws",
                        "unit": {"column": "by", "units": {"x": "m/s", "y": "km/h"}},
                    },
                },
            }
        ],
    )
    city, _ = bring(
        config,
        air="year,month,day,hour,site,NO,T,wd,ws,by\n"
        "2020,1,1,8,a,5,273.15,NNW,2,x\n2020,1,1,8,b,,283.15,cv,3.6,y\n2020,1,1,9,a,7,,E,,\n",
    )
    assert str(city.signals["no"].start) == "2020-01-01 00:00:00+00:00"
    for name, expected in {
        "no": [[5, np.nan], [7, np.nan]],
        "temperature": [[0, 10], [np.nan, np.nan]],
        "wind_direction": [[337.5, np.nan], [90, np.nan]],
        "wind_speed": [[2, 1], [np.nan, np.nan]],
    }.items():
        np.testing.assert_allclose(city.signals[name].values, expected, atol=1e-4, err_msg=name)
    assert len(city.edges["air-air"]) == 2


def test_tidy_table_and_a_signal_of_the_whole_city(bring: Import) -> None:
    config = wide(
        tables=[
            {
                "file": "tidy.csv",
                "layout": "tidy",
                "station": "site",
                "variable": "what",
                "value": "value",
                "time": {"column": "at", "epoch": "s", "step": "1h", "marks": "end", "zone": "UTC"},
                "signals": {"occupancy": {"node": "road", "unit": "%", "column": "occ"}},
            },
            {
                "file": "weather.csv",
                "layout": "long",
                "time": {"column": "at", "step": "1h", "marks": "end", "zone": "UTC"},
                "signals": {
                    "wind_speed": {"node": "city", "unit": "m/s", "components": ["u", "v"]},
                    "wind_direction": {"node": "city", "unit": "m/s", "components": ["u", "v"]},
                },
            },
        ]
    )
    city, _ = bring(
        config,
        tidy="at,site,what,value\n3600,a,occ,25\n3600,a,speed,70\n3600,b,occ,50\n",
        weather="at,u,v\n2020-01-01T00:00Z,0,-3\n2020-01-01T01:00Z,-4,0\n",
    )
    np.testing.assert_allclose(city.signals["occupancy"].values, [[0.25, 0.5]])
    np.testing.assert_allclose(city.signals["wind_speed"].values, [[3], [4]])
    # Air that moves south comes from the north; air that moves west, from the east.
    np.testing.assert_allclose(city.signals["wind_direction"].values, [[0], [90]], atol=1e-4)


def windy(layout: str, **source: object) -> dict[str, Any]:
    signal = {"node": "city", "unit": "m/s", "components": ["u", "v"], **source}
    table = {"file": "weather*.csv", "layout": layout, "time": {"column": "at", "step": "1h", "marks": "end"}}
    table |= {"variable": "what", "value": "value", "station": "what"} if layout == "tidy" else {}
    table["time"]["zone"] = "UTC"
    return wide(tables=[{**table, "signals": {name: signal for name in ("wind_speed", "wind_direction")}}])


def test_a_wind_of_which_a_component_is_missing_is_missing(bring: Import) -> None:
    text = "at,u,v\n2020-01-01T00:00Z,0,-3\n2020-01-01T01:00Z,-9999,-3\n2020-01-01T02:00Z,,1\n2020-01-01T03:00Z,0,0\n"
    city, _ = bring(windy("long", missing=[-9999], zero_is_missing=True), weather=text)
    np.testing.assert_allclose(city.signals["wind_speed"].values[:4, 0], [3, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(city.signals["wind_direction"].values[:4, 0], [0, np.nan, np.nan, np.nan])


def test_a_component_that_is_no_number_is_named(bring: Import) -> None:
    with pytest.raises(CityError, match=r"weather.*csv, row 2, column wind_\w+: 'n/a\?' is no number"):
        bring(windy("long"), weather="at,u,v\n2020-01-01T00:00Z,0,-3\n2020-01-01T01:00Z,n/a?,1\n")


@pytest.mark.parametrize("layout", ["wide", "tidy"])
def test_components_that_no_column_of_their_own_holds_are_refused(bring: Import, layout: str) -> None:
    with pytest.raises(ConfigError, match=f"a {layout} table has neither"):
        bring(windy(layout), weather="at,u,v\n2020-01-01T00:00Z,0,-3\n")


def test_files_of_one_table_that_do_not_agree_on_the_zone_are_named(bring: Import) -> None:
    with pytest.raises(CityError, match=r"weather2.csv: has no UTC offset in its times, unlike weather1.csv"):
        bring(windy("long"), weather1="at,u,v\n2020-01-01T00:00Z,0,-3\n", weather2="at,u,v\n2020-01-01T01:00,1,1\n")


SPEED = "time,a,b\n2017-01-02 08:00,60,61\n2017-01-02 08:30,62,63\n"


def edges_of(bring: Import, how: dict[str, Any], text: str) -> list[tuple[str, str, float]]:
    table = bring(wide(edges={"road-road": how}), speed=SPEED, edges=text)[0].edges["road-road"]
    return list(zip(table["source"], table["target"], table["distance_m"].round(), strict=True))


def test_edges_from_distances_by_id_and_by_position(bring: Import) -> None:
    columns = {"source": "from", "target": "to", "distance": "km"}
    how = {"distances": {"file": "edges.csv", "columns": columns, "unit": "km", "max_distance_m": 2000}}
    assert edges_of(bring, how, "from,to,km\na,a,0\na,b,1.5\nb,a,3\nb,z,1\n") == [("a", "b", 1500)]
    how["distances"] |= {"by": "position", "both_ways": True}
    assert edges_of(bring, how, "from,to,km\n1,0,1\n") == [("b", "a", 1000), ("a", "b", 1000)]


def test_edges_from_a_matrix_take_their_length_from_the_places(bring: Import) -> None:
    how = {"adjacency": {"file": "edges.csv"}}
    assert edges_of(bring, how, "1,0\n0.5,1\n") == [("b", "a", 1112)]


def test_a_link_of_unknown_length_is_refused(bring: Import) -> None:
    config = wide(nodes={"road": {}}, edges={"road-road": {"adjacency": {"file": "edges.csv"}}})
    with pytest.raises(CityError, match=r"edges road-road, row 1, column distance_m.*link_m"):
        bring(config, speed=SPEED, edges="0,1\n0,0\n")


def test_only_measured_places_are_kept_where_asked(bring: Import, tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_text("sensor,lat,lon\nc,37.3,-121.9\nb,37.3,-121.9\na,37.4,-121.9\n")
    config = wide()
    config["nodes"]["road"]["keep"] = "measured"
    assert bring(config, speed=SPEED)[0].ids("road") == ["b", "a"]
    config["nodes"]["road"]["keep"] = "all"
    city, report = bring(config, speed=SPEED)
    assert city.ids("road") == ["c", "b", "a"]
    assert np.isnan(city.signals["speed"].values[:, 0]).all()
    assert [(f.check, f.row) for f in report.findings] == [("never-reports", "c")]


def test_names_that_were_misread_are_mended(bring: Import, tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_bytes("sensor,lat,lon,name\na,1,1,Espa\x96a\nb,1,1,Ok\n".encode())
    config = wide()
    config["nodes"]["road"] |= {"misread": "mac_roman"}
    config["nodes"]["road"]["columns"]["name"] = "name"
    assert bring(config, speed=SPEED)[0].nodes["road"]["name"].tolist() == ["España", "Ok"]


def at(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    place: Any = config
    for key in parents:
        place = place[int(key)] if key.isdigit() else place[key]
    place[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("colour", "blue", r"toy\.yaml, colour"),
        ("tables.0.time.zon", "UTC", r"tables\.0\.time\.zon"),
        ("tables.0.time.step", "soon", r"tables\.0\.time\.step.*soon"),
        ("tables.0.time.marks", "middle", r"tables\.0\.time\.marks"),
        ("tables.0.signals", {"spede": {"node": "road", "unit": "mph"}}, "spede"),
        ("tables.0.signals.speed.node", "air", "air nodes"),
        ("edges.road-road", {"nearest": {"k": 1}, "adjacency": {"file": "x"}}, "exactly one"),
        ("edges.road-road", {"nearest": {"k": 0}}, r"nearest\.k"),
        ("tables.0.station_pattern", "PRSA_(", r"station_pattern.*no regular expression"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_key(bring: Import, path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bring(at(wide(), path, value), speed=SPEED)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("timezone", "Mars/Olympus", "Mars/Olympus"),
        ("country", "XX", "XX"),
        ("tables.0.time.format", "%Q", r"speed\.csv: time\.format '%Q'"),
        ("tables.0.file", "nowhere.csv", r"nowhere\.csv"),
        ("tables.0.time.column", "when", r"speed\.csv, column when.*time, a, b"),
        ("tables.0.time.step", "20min", r"speed\.csv, row 2.*off the clock"),
        ("tables.0.signals.speed.unit", "furlongs", r"signals\.speed\.unit.*furlongs"),
        ("tables.0.signals.speed.unit", "m/s", None),
        ("nodes.road.columns.id", "name", r"places\.csv, column name"),
        ("nodes.road.file", "elsewhere.csv", r"elsewhere\.csv"),
        ("edges.air-air", {"nearest": {"k": 1}}, "no air"),
    ],
)
def test_files_that_are_not_as_configured_are_named(bring: Import, path: str, value: Any, message: str | None) -> None:
    config = at(wide(), path, value)
    if message is None:  # 63 m/s is 227 km/h: possible, so it passes
        bring(config, speed=SPEED)
        return
    with pytest.raises(CityError, match=message):
        bring(config, speed=SPEED)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("2017-01-02 08:00,fast,1\n", r"speed\.csv, row 1.*'fast' is no number"),
        ("2017-01-02 08:00,1,1\nyesterday,1,1\n", r"speed\.csv, row 2, column time.*yesterday"),
        ("2017-03-12 02:00,1,1\n", r"speed\.csv, row 1, column time.*is the zone right"),
        ("2017-01-02 08:00,1,1\n2017-01-02 08:30,1,900\n", r"speed\.csv, row 2.*outside 0–250.*unit right"),
        ("2017-01-02 08:00,1,1\n2017-01-02 08:30,-7,1\n", r"speed\.csv, row 2.*outside"),
        ("2017-01-02 08:00,1,1\n2017-01-02 08:30Z,1,1\n", r"speed\.csv, row 2, column time.*without an offset"),
        ("", r"speed\.csv.*no times"),
    ],
)
def test_wrong_rows_are_named(bring: Import, rows: str, message: str) -> None:
    with pytest.raises(CityError, match=message):
        bring(wide(), speed="time,a,b\n" + rows)


def test_impossible_values_may_be_declared_missing(bring: Import) -> None:
    config = at(wide(), "tables.0.signals.speed.out_of_range", "missing")
    city, _ = bring(config, speed="time,a,b\n2017-01-02 08:00,-9,1\n")
    assert np.isnan(city.signals["speed"].values).tolist() == [[True, False]]


def test_an_unknown_sensor_is_refused_or_dropped(bring: Import) -> None:
    rows = "time,a,b,z\n2017-01-02 08:00,1,2,3\n"
    with pytest.raises(CityError, match=r"speed\.csv, column z.*unknown_places: drop"):
        bring(wide(), speed=rows)
    city, _ = bring(at(wide(), "tables.0.unknown_places", "drop"), speed=rows)
    assert city.signals["speed"].shape == (1, 2)


def test_the_packaged_names_are_offered() -> None:
    with pytest.raises(CityBrainError, match="pems-bay-67"):
        import_city("atlantis")


@pytest.mark.parametrize(
    ("signal", "unit", "published", "stored"),
    [
        ("flow", "veh/5min", 10, 120),
        ("flow", "veh/step", 10, 40),
        ("precipitation", "m/h", 0.002, 2),
        ("precipitation", "mm/step", 1, 4),
        ("pressure", "Pa", 101_325, 1013.25),
        ("temperature", "°F", 50, 10),
        ("wind_speed", "kn", 10, 5.1444),
        ("humidity", "1", 0.5, 50),
        ("o3", "ppb", 50, 98.09),
        ("co", "ug/m3", 500, 0.5),
        ("speed", "m/s", 10, 36),
    ],
)
def test_units_become_the_stored_one(signal: str, unit: str, published: float, stored: float) -> None:
    found = conversion(signal, unit, pd.Timedelta("15min"))
    assert found is not None
    assert published * found[0] + found[1] == pytest.approx(stored, rel=1e-4)


def test_every_signal_takes_its_own_unit_unchanged() -> None:
    from citybrain_datasets.signals import KINDS

    assert set(UNITS) == set(KINDS)
    for name, kind in KINDS.items():
        assert conversion(name, kind.unit, pd.Timedelta("1h")) == (1, 0)
