"""A city on disk is the city in memory, or it is refused."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from citybrain_datasets.checking import open_city
from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError
from citybrain_datasets.signals import Signal
from citybrain_datasets.store import save_city

START = pd.Timestamp("2024-03-30 22:05", tz="UTC")


def nodes(width: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"lat": 52.0, "lon": 4.0, "name": "", "name_zh": "路", "owner": "", "cell": "", "lanes": 2.0},
        index=[f"n{i}" for i in range(width)],
    )


def edges(width: int) -> pd.DataFrame:
    ends = [f"n{i}" for i in range(width)]
    return pd.DataFrame({"source": ends, "target": ends[::-1], "distance_m": 12.5, "bearing_deg": np.nan})


def city(values: np.ndarray, step: str = "5min") -> City:
    width = values.shape[1]
    return City(
        "toy",
        "Europe/Amsterdam",
        {"road": nodes(width)},
        {"road-road": edges(width)},
        {"speed": Signal("speed", "road", START, pd.Timedelta(step), values)},
        title="Toy",
        country="NL",
        synthetic=True,
        attribution="nobody",
    )


@given(
    values=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
        elements=st.one_of(st.just(np.nan), st.floats(0, 250, width=32)),
    ),
    step=st.sampled_from(["1min", "5min", "1h", "8h", "3D"]),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, values: np.ndarray, step: str) -> None:
    before = city(values, step)
    before.save(tmp_path / "toy")
    after = City.load(tmp_path / "toy")

    assert after.fingerprint() == before.fingerprint()
    np.testing.assert_array_equal(after.signals["speed"].values, values)
    assert after.signals["speed"].step == before.signals["speed"].step
    pd.testing.assert_frame_equal(after.nodes["road"], before.nodes["road"], check_names=False)
    pd.testing.assert_frame_equal(after.edges["road-road"], before.edges["road-road"])
    for name in ("name", "title", "timezone", "country", "synthetic", "attribution"):
        assert getattr(after, name) == getattr(before, name)


@given(bounds=st.tuples(st.integers(-5, 2100), st.integers(-5, 2100)))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_span_is_read_without_the_rest(saved_once: tuple[Path, np.ndarray], bounds: tuple[int, int]) -> None:
    folder, values = saved_once
    np.testing.assert_array_equal(City.load(folder).signals["speed"].rows(*bounds), values[slice(*bounds)])


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("spans") / "toy"
    values = np.random.default_rng(0).uniform(0, 250, (2000, 300)).astype(np.float32)
    city(values).save(folder)
    assert pq.ParquetFile(folder / "signals" / "speed.parquet").num_row_groups > 3
    return folder, values


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    city(np.arange(600, dtype=np.float32).reshape(300, 2) % 200).save(tmp_path / "toy")
    return tmp_path / "toy"


def test_a_saved_city_is_replaced_whole(saved: Path) -> None:
    replacement = city(np.ones((4, 3), np.float32))
    save_city(replacement, saved, {"note.json": b"{}"})
    assert City.load(saved).fingerprint() == replacement.fingerprint()
    assert (saved / "note.json").read_bytes() == b"{}"
    assert [path.name for path in saved.parent.iterdir()] == ["toy"]


def test_a_city_may_be_saved_over_the_one_it_is_read_from(saved: Path) -> None:
    loaded = City.load(saved)
    half = loaded.between(None, loaded.signals["speed"].times[99])
    half.save(saved)
    assert City.load(saved).signals["speed"].shape == (100, 2)


def test_a_failed_save_leaves_what_was_there(saved: Path) -> None:
    def fail(first: int, last: int) -> np.ndarray:
        raise CityError([])

    before = City.load(saved).fingerprint()
    broken = Signal("speed", "road", START, pd.Timedelta("5min"), shape=(10, 2), read=fail)
    with pytest.raises(CityError):
        City.load(saved).replace(signals={"speed": broken}).save(saved)
    assert City.load(saved).fingerprint() == before
    assert [path.name for path in saved.parent.iterdir()] == ["toy"]


def test_a_swap_that_fails_leaves_what_was_there(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rename = City.load(saved).fingerprint(), Path.rename

    def full(path: Path, target: Path) -> Path:
        if path.name.startswith(".toy.") and path.name != ".toy.replaced":
            raise OSError(errno.ENOSPC, "no space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="no space left"):
        city(np.ones((4, 3), np.float32)).save(saved)
    assert City.load(saved).fingerprint() == before
    assert [path.name for path in saved.parent.iterdir()] == ["toy"]


KILLED_BETWEEN_RENAMES = """
import os, sys
from pathlib import Path
from citybrain_datasets.folders import swap_in

rename = Path.rename
Path.rename = lambda path, target: os._exit(9) if path.name == "draft" else rename(path, target)
swap_in(Path(sys.argv[1]).with_name("draft"), Path(sys.argv[1]))
"""


def test_a_city_survives_a_kill_while_it_is_replaced(saved: Path) -> None:
    before = City.load(saved).fingerprint()
    (saved.parent / "draft").mkdir()
    assert subprocess.run([sys.executable, "-c", KILLED_BETWEEN_RENAMES, saved], check=False).returncode == 9
    assert not saved.exists()
    assert City.load(saved).fingerprint() == before
    assert open_city(str(saved))[0].fingerprint() == before
    (saved.parent / "draft").rmdir()
    replacement = city(np.ones((4, 3), np.float32))
    replacement.save(saved)
    assert City.load(saved).fingerprint() == replacement.fingerprint()
    assert [path.name for path in saved.parent.iterdir()] == ["toy"]


def test_a_folder_that_is_no_city_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CityError, match="not overwritten"):
        city(np.ones((4, 2), np.float32)).save(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def edit(folder: Path, **changes: object) -> None:
    content = yaml.safe_load((folder / "city.yaml").read_text())
    (folder / "city.yaml").write_text(yaml.safe_dump({**content, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format"),
        ({"colour": "blue"}, "colour"),
        ({"timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"edges": ["road-moon"]}, "road-moon"),
    ],
)
def test_a_wrong_description_is_refused_by_name(saved: Path, changes: dict[str, object], message: str) -> None:
    edit(saved, **changes)
    with pytest.raises(CityError, match=message):
        City.load(saved)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("unit", "mph", "mph"), ("length", 7, "300 rows"), ("step", "PT10M", "time"), ("node", "air", "values")],
)
def test_a_signal_must_be_what_the_description_says(saved: Path, key: str, value: object, message: str) -> None:
    signals = yaml.safe_load((saved / "city.yaml").read_text())["signals"]
    signals["speed"][key] = value
    edit(saved, signals=signals)
    with pytest.raises(CityError, match=rf"speed\.parquet.*{message}"):
        City.load(saved)


@pytest.mark.parametrize("name", ["road.parquet", "edges/road-road.parquet", "signals/speed.parquet"])
@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_truncated_file_is_named(saved: Path, name: str, keep: float) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(CityError, match=Path(name).name):
        City.load(saved)


def test_a_hole_in_the_clock_is_named_with_its_row(saved: Path) -> None:
    path = saved / "signals" / "speed.parquet"
    table = pq.read_table(path)
    times = table["time"].to_pylist()
    times[17] += pd.Timedelta("1min").to_pytimedelta()
    pq.write_table(table.set_column(0, "time", pa.array(times, table.schema.field("time").type)), path)
    with pytest.raises(CityError, match=r"speed\.parquet, row 17, column time"):
        City.load(saved)


def test_a_missing_column_is_named(saved: Path) -> None:
    path = saved / "road.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["owner"]), path)
    with pytest.raises(CityError, match=r"road\.parquet, column owner"):
        City.load(saved)


@pytest.mark.parametrize("name", ["", ".", "..", "a\0", "line\nbreak", "x" * 201])
def test_an_id_that_cannot_be_asked_for_or_kept_is_refused(tmp_path: Path, name: str) -> None:
    made = city(np.ones((4, 3), np.float32))
    renamed = {"n1": name}
    table = made.nodes["road"].rename(index=renamed)
    links = made.edges["road-road"].replace({"source": renamed, "target": renamed})
    with pytest.raises(CityError, match="an id is 1 to 200 printable characters"):
        save_city(made.replace(nodes={"road": table}, edges={"road-road": links}), tmp_path / "c")
    fine = {"n1": "西站/1 …"}
    links = made.edges["road-road"].replace({"source": fine, "target": fine})
    save_city(
        made.replace(nodes={"road": made.nodes["road"].rename(index=fine)}, edges={"road-road": links}), tmp_path / "c"
    )
    assert City.load(tmp_path / "c").ids("road")[1] == "西站/1 …"


def test_no_city_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(CityError, match=r"no city\.yaml"):
        City.load(tmp_path)
