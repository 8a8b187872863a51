"""The figures that are committed are what the readers of ``benchmarks/`` are promised: flat records, whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from citybrain_datasets.records import merge_records, read_records

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


def test_what_is_measured_again_stands_where_it_stood(tmp_path: Path) -> None:
    def record(subject: str, value: float) -> dict[str, object]:
        return {"case": "c", "subject": subject, "metric": "m", "value": value}

    path = tmp_path / "figures.json"
    merge_records(path, [record("a", 1), record("b", 1), record("b", 2), record("c", 1)])
    merge_records(path, [record("d", 5), record("b", 3), record("b", 4), record("a", 6)])
    assert [(r["subject"], r["value"]) for r in read_records(path)] == [
        ("a", 6),
        ("b", 3),
        ("b", 4),
        ("c", 1),
        ("d", 5),
    ]
