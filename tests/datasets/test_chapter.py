"""The chapter that lists records: each case a table, notes by number, uncommitted code named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from citybrain_datasets.chapter import SCORING, SERVING
from citybrain_datasets.records import read_records

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_chapter_lists_every_record_with_its_note_and_says_what_no_commit_holds(tmp_path: Path) -> None:
    common = {"subject": "scoring", "unit": "1/s", "note": "others used the machine", "commit": "a" * 12}
    records = [
        {**common, "case": "town", "metric": "rate", "value": 12345.6, "threads": 1},
        {**common, "case": "town", "metric": "part", "value": 0.77921, "threads": None, "note": ""},
        {**common, "case": "village", "metric": "rate", "value": 0.0, "threads": 2, "commit": "b" * 12 + "+"},
    ]
    (tmp_path / "records.json").write_text(json.dumps(records))
    SCORING.write(tmp_path / "records.json", tmp_path / "page.md")
    town, _, village = (tmp_path / "page.md").read_text().partition("### village")
    assert "| scoring | rate | 12,346 | 1/s | 1 | 1 |" in town
    assert "| scoring | part | 0.7792 | 1/s |  |  |" in town
    assert "Notes: (1) others used the machine." in town
    assert "uncommitted" not in town
    assert f"village on `{'b' * 12}` and changes to it" in village


@pytest.mark.parametrize(("listing", "file"), [(SCORING, "scenarios-speed"), (SERVING, "serving")])
def test_what_is_committed_stands_on_the_page(listing, file: str) -> None:
    chapter = listing.markdown(read_records(BENCHMARKS / f"{file}.json"))
    assert chapter in (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
