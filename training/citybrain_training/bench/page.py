"""``docs/benchmarks.md`` as a whole, from the files of records alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from citybrain_datasets.chapter import SCORING, SERVING
from citybrain_datasets.records import Record, read_records, write_chapter
from citybrain_training.bench import intervals, precision, table
from citybrain_training.robustness import table as robustness
from citybrain_training.speed import table as speed
from citybrain_training.surrogate import chapter as surrogate

ACCURACY = "accuracy"
"""The comparison that others are held to be older than."""

CHAPTERS: dict[str, tuple[str, str, Callable[[Sequence[Record]], str]]] = {
    "intervals": ("intervals", "citybrain bench-intervals", intervals.markdown),
    "robustness": ("robustness", "citybrain bench-robustness", robustness.markdown),
    "precision": ("precision", "citybrain bench-precision", precision.markdown),
    "speed": ("speed", "citybrain bench-speed", speed.markdown),
    "scenarios": ("what-if", "citybrain bench-scenarios", surrogate.markdown),
}
"""By file of records: the name of its chapter, the command that writes it, and what it says."""

LISTED = {"scenarios-speed": SCORING, "serving": SERVING}


def write_page(folder: Path, page: Path) -> None:
    """Writes every chapter of ``page`` whose records lie in ``folder``; measures nothing."""
    for name in ("first-run", ACCURACY):
        if (folder / f"{name}.json").exists():
            write_comparison(folder, page, name)
    for name, (chapter, command, markdown) in CHAPTERS.items():
        if records := read_records(folder / f"{name}.json", ("case", "subject", "metric", "value")):
            write_chapter(page, chapter, command, markdown(records))
    for name, listing in LISTED.items():
        if (folder / f"{name}.json").exists():
            listing.write(folder / f"{name}.json", page)


def write_comparison(folder: Path, page: Path, name: str) -> None:
    """Writes the chapter of one file of runs; cases that :data:`ACCURACY` measured later are said to be superseded."""
    records = [record for record in read_records(folder / f"{name}.json") if "seed" in record]
    newer = [] if name == ACCURACY else read_records(folder / f"{ACCURACY}.json")
    table.write_table(page, name, records, sorted((folder / "plots" / name).glob("*.png")), newer)
