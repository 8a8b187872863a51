"""What was noticed on the way: findings, each with its severity and its place."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from citybrain_datasets.errors import Problem

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One observation about a city's data. ``check`` names the kind of test that made it."""

    severity: Severity
    check: str
    where: str
    what: str
    row: str | None = None
    column: str | None = None

    def __str__(self) -> str:
        return str(Problem(self.where, self.what, self.row, self.column))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class ImportReport:
    """What an import saw and did; kept as ``import.json`` beside the city."""

    source: str
    findings: list[Finding] = field(default_factory=list)

    def add(
        self, severity: Severity, check: str, where: str, what: str, row: object = None, column: object = None
    ) -> None:
        place = (None if row is None else str(row), None if column is None else str(column))
        self.findings.append(Finding(severity, check, where, what, *place))

    def as_dict(self) -> dict[str, Any]:
        return {"source": self.source, "findings": [finding.as_dict() for finding in self.findings]}
