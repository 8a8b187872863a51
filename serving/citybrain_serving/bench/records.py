"""Numbers as they are measured, and the file they end in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from citybrain_datasets.records import Record, circumstances, merge_records


@dataclass
class Notebook:
    """Collects numbers; :meth:`write` puts them into ``path`` in the place of earlier ones of the same case, subject
    and metric. ``tell`` shows each as it comes."""

    path: Path
    command: str
    tell: Callable[[str], object] = print
    records: list[Record] = field(default_factory=list)

    def add(
        self,
        case: str,
        subject: str,
        metric: str,
        value: float,
        unit: str,
        *,
        threads: int | None = None,
        note: str = "",
    ) -> None:
        """One measured number. ``threads`` are those that the subject computed with, where it matters."""
        shown = float(f"{value:.4g}")
        self.records.append(
            {
                "case": case, "subject": subject, "metric": metric, "value": shown, "unit": unit,
                "threads": threads, "note": note, "command": self.command,
            }
        )  # fmt: skip
        self.tell(f"{case}: {subject}: {metric} {shown:g} {unit}")

    def write(self) -> None:
        """Whole or not at all; what is written is forgotten here."""
        about = circumstances()
        merge_records(self.path, [{**record, **about} for record in self.records])
        self.records.clear()
