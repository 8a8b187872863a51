"""The layouts that people have on disk, as their publishers write them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError
from citybrain_datasets.importing import import_city
from citybrain_datasets.readers.sensor_graph import read_sensor_graph

h5py = pytest.importorskip("h5py", reason="HDF5 layouts need the training extra")

IDS = ["773869", "767541", "767542"]
TIMES = pd.date_range("2012-03-01", periods=5, freq="5min")
VALUES = np.arange(15, dtype=np.float64).reshape(5, 3) + 20

Bring = Callable[[dict[str, Any]], City]


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    def run(config: dict[str, Any]) -> City:
        base = {"name": "toy", "timezone": "America/Los_Angeles", "nodes": {"road": {}}}
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump(base | config))
        return import_city(tmp_path / "toy.yaml", tmp_path)[0]

    return run


def table(file: str, layout: str, unit: str = "mph", signal: str = "speed", **more: Any) -> dict[str, Any]:
    time = {"step": "5min", "marks": "start", "zone": "local", **more.pop("time", {})}
    column = {"column": more.pop("column")} if "column" in more else {}
    node = more.pop("node", "road")
    signals = {signal: {"node": node, "unit": unit, **column}}
    return {"file": file, "layout": layout, "time": time, "signals": signals, **more}


def write_fixed(path: Path, key: str, columns: np.ndarray) -> None:
    """What ``DataFrame.to_hdf(format='fixed')`` leaves behind."""
    with h5py.File(path, "w") as file:
        group = file.create_group(key)
        group.attrs["pandas_type"] = np.bytes_("frame")
        group.attrs["nblocks"] = 1
        group["axis0"] = columns
        group["axis1"] = TIMES.to_numpy().astype("datetime64[ns]").astype(np.int64)
        group["axis1"].attrs["kind"] = np.bytes_("datetime64")
        group["block0_items"] = columns
        group["block0_values"] = VALUES


def write_graph(path: Path, protocol: int = 2) -> None:
    matrix = np.array([[1, 0.5, 0], [0, 1, 0.2], [0, 0, 1]], dtype=np.float32)
    path.write_bytes(pickle.dumps([IDS, {i: n for n, i in enumerate(IDS)}, matrix], protocol=protocol))


@pytest.mark.parametrize("columns", [np.array(IDS, dtype="S6"), np.array(IDS, dtype=np.int64)], ids=["text", "numbers"])
def test_dcrnn_speeds_and_sensor_graph(bring: Bring, tmp_path: Path, columns: np.ndarray) -> None:
    write_fixed(tmp_path / "metr-la.h5", "df", columns)
    write_graph(tmp_path / "adj_mx.pkl")
    city = bring(
        {
            "edges": {"road-road": {"sensor_graph": {"file": "adj_mx.pkl", "link_m": 800}}},
            "tables": [table("metr-la.h5", "hdf5")],
        }
    )
    assert city.ids("road") == IDS
    speed = city.signals["speed"]
    assert str(speed.start) == "2012-03-01 08:05:00+00:00"
    np.testing.assert_allclose(speed.values, VALUES * 1.609344, rtol=1e-6)
    np.testing.assert_allclose(speed.rows(2, 4), VALUES[2:4] * 1.609344, rtol=1e-6)
    edges = city.edges["road-road"]
    assert list(zip(edges["source"], edges["target"], strict=True)) == [(IDS[0], IDS[1]), (IDS[1], IDS[2])]


def test_pandas_table_format(bring: Bring, tmp_path: Path) -> None:
    rows = np.zeros(5, dtype=[("index", "<i8"), ("values_block_0", "<f8", (3,))])
    rows["index"] = TIMES.to_numpy().astype("datetime64[ns]").astype(np.int64)
    rows["values_block_0"] = VALUES
    with h5py.File(tmp_path / "t.h5", "w") as file:
        data = file.create_group("t").create_dataset("table", data=rows)
        data.attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(IDS, protocol=0))
        data.attrs["index_kind"] = np.bytes_("datetime64")
    city = bring({"tables": [table("t.h5", "hdf5")]})
    np.testing.assert_allclose(city.signals["speed"].values, VALUES * 1.609344, rtol=1e-6)


def test_largest_flows_with_metadata_and_matrix(bring: Bring, tmp_path: Path) -> None:
    write_fixed(tmp_path / "ca_his_raw_2019.h5", "t", np.array(IDS, dtype="S6"))
    header = "ID,Lat,Lng,District,Fwy,Lanes,Type,Direction\n"
    body = "".join(f"{i},37.{n},-122.0,4,I5,{n + 2},Mainline,N\n" for n, i in enumerate(IDS))
    (tmp_path / "ca_meta.csv").write_text(header + body)
    np.save(tmp_path / "ca_rn_adj.npy", np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=np.float32))
    city = bring(
        {
            "nodes": {
                "road": {
                    "file": "ca_meta.csv",
                    "columns": {"id": "ID", "lat": "Lat", "lon": "Lng", "lanes": "Lanes"},
                }
            },
            "edges": {"road-road": {"adjacency": {"file": "ca_rn_adj.npy"}}},
            "tables": [table("ca_his_raw_2019.h5", "hdf5", "veh/5min", "flow")],
        }
    )
    assert city.nodes["road"]["lanes"].tolist() == [2, 3, 4]
    np.testing.assert_allclose(city.signals["flow"].values, VALUES * 12)
    assert city.edges["road-road"]["distance_m"].round(-3).tolist() == [11_000, 11_000]


def test_pems_arrays_with_distances_by_position(bring: Bring, tmp_path: Path) -> None:
    data = np.stack([VALUES, VALUES / 100, VALUES + 30], axis=2)
    np.savez_compressed(tmp_path / "PEMS08.npz", data=data)
    (tmp_path / "PEMS08.csv").write_text("from,to,cost\n0,2,310.6\n2,1,330\n")
    start = {"time": {"start": "2016-07-01T00:00:00"}}
    several = table("PEMS08.npz", "array", "veh/5min", "flow", column=0, **start)
    several["signals"]["speed"] = {"node": "road", "unit": "mph", "column": 2}
    several["signals"]["occupancy"] = {"node": "road", "unit": "1", "column": 1}
    columns = {"source": "from", "target": "to", "distance": "cost"}
    distances = {"file": "PEMS08.csv", "columns": columns, "by": "position"}
    city = bring({"edges": {"road-road": {"distances": distances}}, "tables": [several]})
    np.testing.assert_allclose(city.signals["flow"].values, VALUES * 12)
    np.testing.assert_allclose(city.signals["speed"].values, (VALUES + 30) * 1.609344, rtol=1e-6)
    assert city.edges["road-road"]["distance_m"].tolist() == [310.6, 330]
    assert str(city.signals["flow"].start) == "2016-07-01 07:05:00+00:00"


def test_knowair_array_with_a_city_list(bring: Bring, tmp_path: Path) -> None:
    data = np.random.default_rng(0).uniform(1, 50, (6, 3, 18)).astype(np.float32)
    np.save(tmp_path / "KnowAir.npy", data)
    (tmp_path / "city.txt").write_text("0 Beijing 116.4 39.9\n1 Tianjin 117.2 39.1\n2 Tangshan 118.2 39.6\n")
    pm25 = table(
        "KnowAir.npy", "array", "µg/m³", "pm25", node="air", column=17,
        time={"start": "2015-01-01T00:00:00", "step": "3h", "marks": "end", "zone": "UTC"},
    )  # fmt: skip
    city = bring(
        {
            "timezone": "Asia/Shanghai",
            "nodes": {
                "air": {
                    "file": "city.txt",
                    "header": ["i", "city", "lon", "lat"],
                    "delimiter": " ",
                    "columns": {"id": "city", "lat": "lat", "lon": "lon"},
                }
            },
            "edges": {"air-air": {"nearest": {"k": 2, "max_distance_m": 300_000}}},
            "tables": [pm25],
        }
    )
    assert city.ids("air") == ["Beijing", "Tianjin", "Tangshan"]
    np.testing.assert_array_equal(city.signals["pm25"].values, data[:, :, 17])


def test_uci_files_of_one_pattern_are_one_table(bring: Bring, tmp_path: Path) -> None:
    header = '"No","year","month","day","hour","PM2.5","wd","station"\n'
    for station, value in (("Dingling", 4), ("Tiantan", 8)):
        rows = f'1,2013,3,1,0,{value},"NNW","{station}"\n2,2013,3,1,1,NA,NA,"{station}"\n'
        (tmp_path / f"PRSA_Data_{station}_20130301-20170228.csv").write_text(header + rows)
    pm25 = table(
        "PRSA_Data_*.csv", "long", "µg/m³", "pm25", node="air", column="PM2.5", station="station",
        time={"columns": ["year", "month", "day", "hour"], "step": "1h", "marks": "end"},
    )  # fmt: skip
    city = bring({"timezone": "Asia/Shanghai", "nodes": {"air": {}}, "tables": [pm25]})
    assert city.ids("air") == ["Dingling", "Tiantan"]
    np.testing.assert_array_equal(city.signals["pm25"].values, [[4, 8], [np.nan, np.nan]])


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_a_sensor_graph_is_read_at_any_protocol(tmp_path: Path, protocol: int) -> None:
    write_graph(tmp_path / "adj_mx.pkl", protocol)
    ids, matrix = read_sensor_graph(tmp_path / "adj_mx.pkl")
    assert ids == IDS
    np.testing.assert_allclose(matrix, [[1, 0.5, 0], [0, 1, 0.2], [0, 0, 1]])


class _Malicious:
    def __init__(self, act: Callable[..., Any], *arguments: Any):
        self.act, self.arguments = act, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.act, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_anything_is_refused_unexecuted(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "executed"
    for act, arguments in ((os.mkdir, (str(mark),)), (eval, (f"open({str(mark)!r}, 'w')",))):
        content = pickle.dumps([IDS, {}, _Malicious(act, *arguments)], protocol=protocol)
        (tmp_path / "adj_mx.pkl").write_bytes(content)
        with pytest.raises(CityError, match=r"adj_mx\.pkl.*refused"):
            read_sensor_graph(tmp_path / "adj_mx.pkl")
        assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"not a pickle", pickle.dumps([IDS, {}], 2), pickle.dumps(3)])
def test_what_is_no_sensor_graph_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "adj_mx.pkl").write_bytes(content)
    with pytest.raises(CityError, match=r"adj_mx\.pkl"):
        read_sensor_graph(tmp_path / "adj_mx.pkl")


def test_arrays_of_objects_are_refused(tmp_path: Path, bring: Bring) -> None:
    content = pickle.dumps([IDS, {}, np.array([[_Malicious(os.mkdir, str(tmp_path / "x"))]], dtype=object)], 2)
    (tmp_path / "adj_mx.pkl").write_bytes(content)
    with pytest.raises(CityError):
        read_sensor_graph(tmp_path / "adj_mx.pkl")
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CityError, match=r"evil\.npy"):
        bring({"tables": [table("evil.npy", "array", column=0, time={"start": "2020-01-01T00:00:00"})]})
    assert not (tmp_path / "x").exists()


def test_a_damaged_hdf5_is_named(tmp_path: Path, bring: Bring) -> None:
    write_fixed(tmp_path / "metr-la.h5", "df", np.array(IDS, dtype="S6"))
    content = (tmp_path / "metr-la.h5").read_bytes()
    (tmp_path / "metr-la.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(CityError, match=r"metr-la\.h5"):
        bring({"tables": [table("metr-la.h5", "hdf5")]})
