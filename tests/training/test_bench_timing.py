"""Timing a command: records in, failures out, nothing half-written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from citybrain_datasets.errors import CityBrainError
from citybrain_training.bench.timing import bench_time


def test_a_command_leaves_its_seconds_and_its_number(tmp_path: Path) -> None:
    out = tmp_path / "records.json"
    say = [sys.executable, "-c", "print('it weighs 12.5 MB')"]
    for _ in range(2):
        bench_time(say, case="weighing", out=out, pick=r"weighs ([\d.]+) MB", metric="size", unit="MB")
    records = json.loads(out.read_text())
    assert [r["metric"] for r in records] == ["wall_seconds", "cpu_seconds", "size"]
    assert records[2]["value"] == 12.5
    assert {"commit", "machine", "date", "command", "unit", "subject"} <= records[0].keys()


def test_a_failed_command_records_nothing(tmp_path: Path) -> None:
    with pytest.raises(CityBrainError, match="ended with code 3"):
        bench_time([sys.executable, "-c", "raise SystemExit(3)"], case="failing", out=tmp_path / "records.json")
    assert not (tmp_path / "records.json").exists()
