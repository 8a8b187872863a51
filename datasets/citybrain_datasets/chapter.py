"""Chapters of ``docs/benchmarks.md`` that list their records, a table a case; nothing in them is typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from citybrain_datasets.records import Record, read_records, uncommitted, write_chapter


@dataclass(frozen=True)
class Listing:
    """A chapter: the name of its marks, the command that measures, and what stands above the tables."""

    name: str
    command: str
    title: str
    about: str

    def write(self, records: Path, page: Path) -> None:
        """Writes the chapter from a file of records; the rest of the page stays."""
        write_chapter(page, self.name, self.command, self.markdown(read_records(records)))

    def markdown(self, records: Sequence[Record]) -> str:
        """Every record, by case in the file's order; notes stand below each table, by number."""
        lines = [f"## {self.title}", "", self.about]
        for case in dict.fromkeys(record["case"] for record in records):
            lines += ["", *_case(case, [record for record in records if record["case"] == case])]
        return "\n".join(lines)


def _case(case: str, records: Sequence[Record]) -> list[str]:
    notes: dict[str, int] = {}
    lines = [f"### {case}", "", "| subject | measured | value | unit | threads | note |"]
    lines.append("| --- | --- | ---: | --- | ---: | ---: |")
    for record in records:
        note, threads = record.get("note") or "", record.get("threads")
        number = str(notes.setdefault(note, len(notes) + 1)) if note else ""
        value = f"{record['value']:,.4g}" if abs(record["value"]) < 1e4 else f"{record['value']:,.0f}"
        cells = [record["subject"], record["metric"], value, record["unit"], str(threads or ""), number]
        lines.append(f"| {' | '.join(cells)} |")
    if notes:
        lines += ["", "Notes: " + "; ".join(f"({number}) {note}" for note, number in notes.items()) + "."]
    return [*lines, *uncommitted(records)]


SCORING = Listing(
    "what-if-speed",
    "citybrain bench-scoring",
    "What if, how fast: `scenarios-speed.json`",
    "Scoring from scenarios to outcomes beside ONNX Runtime alone on the same arrays, beside SUMO, on one and two "
    "workers, after kills, and what physics demands. What each is stands in `benchmarks/README.md`.",
)
SERVING = Listing(
    "serving",
    "citybrain bench-serving",
    "The service: `serving.json`",
    "Real servers and a load generator in processes of their own; ratios are of one run. What each topic measures "
    "stands in `benchmarks/README.md`.",
)
