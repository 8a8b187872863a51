"""The figures that are committed are what the readers of ``benchmarks/`` are promised: flat records, whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from citybrain_datasets.records import read_records

FOLDER = Path(__file__).parents[2] / "benchmarks"
NEEDED = {"case", "subject", "metric", "value", "unit", "command", "commit", "machine", "date"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_every_committed_figure_is_a_flat_record(path: Path) -> None:
    records = read_records(path, NEEDED)
    assert records
    for record in records:
        assert all(value is None or isinstance(value, str | int | float) for value in record.values()), record
        assert isinstance(record["value"], int | float), record
    assert json.dumps(records, allow_nan=False)
