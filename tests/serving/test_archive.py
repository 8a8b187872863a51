"""Observations leave the store for Parquet, and none is lost on the way."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from citybrain_datasets.main import build_app
from citybrain_datasets.signals import Ticks
from citybrain_serving.archive import Archived, archive
from citybrain_serving.fleet import Channel
from citybrain_serving.store import Partial, SqlStore

MIDNIGHT = pd.Timestamp("2026-03-03", tz="UTC")
HOUR = pd.Timedelta(hours=1)


@pytest.fixture
def store(location: str):
    made = SqlStore(location, {"pm25": Channel("pm25", "air", pd.Index(["a", "b"], dtype=object), Ticks(60))})
    for hour in range(-30, 6):
        time = int((MIDNIGHT + hour * HOUR).timestamp())
        made.merge([Partial("pm25", time, np.array([1]), np.array([hour + 100], np.float32))])
    yield made
    made.close()


def held(store: SqlStore) -> int:
    values = store.read("pm25", MIDNIGHT - 40 * HOUR, MIDNIGHT + 40 * HOUR).values
    return int(np.isfinite(values).sum())


def test_whole_days_move_and_midnight_belongs_to_the_day_before(store, tmp_path):
    assert archive(store.engine, date(2026, 3, 3), tmp_path) == Archived(files=2, frames=31)
    assert held(store) == 5
    assert sorted(p.name for p in (tmp_path / "pm25").iterdir()) == ["2026-03-01.parquet", "2026-03-02.parquet"]
    table = pq.read_table(tmp_path / "pm25" / "2026-03-02.parquet")
    assert table.schema.metadata[b"ids"] == b"a\nb"
    assert table["time"][-1].as_py() == MIDNIGHT.to_pydatetime()
    values = np.array(table["values"].to_pylist(), float)
    assert values[:, 1].tolist() == list(range(77, 101))
    assert np.isnan(values[:, 0]).all()


def test_keeping_leaves_the_store_as_it_is(store, tmp_path):
    archive(store.engine, date(2026, 3, 3), tmp_path, keep=True)
    assert held(store) == 36


def test_what_comes_late_gets_a_file_of_its_own(store, tmp_path):
    archive(store.engine, date(2026, 3, 3), tmp_path)
    first = (tmp_path / "pm25" / "2026-03-02.parquet").read_bytes()
    store.merge([Partial("pm25", int((MIDNIGHT - HOUR).timestamp()), np.array([0]), np.array([7], np.float32))])
    assert archive(store.engine, date(2026, 3, 3), tmp_path).frames == 1
    assert (tmp_path / "pm25" / "2026-03-02.parquet").read_bytes() == first
    assert (tmp_path / "pm25" / "2026-03-02.2.parquet").exists()


def test_a_file_that_cannot_be_written_loses_nothing(store, tmp_path):
    (tmp_path / "pm25").write_text("in the way")
    with pytest.raises(OSError, match="pm25"):
        archive(store.engine, date(2026, 3, 3), tmp_path)
    assert held(store) == 36


def test_the_command(store, tmp_path, location):
    asked = ["store", "archive", "--before", "2026-03-03", "--out", str(tmp_path), "--store", location]
    done = CliRunner().invoke(build_app(asked), asked)
    assert done.exit_code == 0, done.output
    assert "31 frames in 2 files" in done.output


def test_days_whose_readings_are_still_taken_are_copied_only(store, tmp_path, location, monkeypatch):
    asked = ["store", "archive", "--before", "2026-03-03", "--out", str(tmp_path), "--store", location]
    monkeypatch.setenv("CITYBRAIN_SERVE_OLDEST_DAYS", "99999")
    refused = CliRunner().invoke(build_app(asked), asked)
    assert refused.exit_code != 0
    assert "still taken" in str(refused.exception)
    assert held(store) == 36
    asked.append("--keep")
    assert CliRunner().invoke(build_app(asked), asked).exit_code == 0
    assert held(store) == 36
