"""What became of a body of readings, as its sender is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from citybrain_serving.chinese import translated
from citybrain_serving.errors import NothingAccepted
from citybrain_serving.languages import asked_language
from citybrain_serving.readings import Fault


class Doubt(StrEnum):
    """Why a reading that was accepted is not believed. The names are part of the interface."""

    STUCK = "stuck"


@dataclass(frozen=True)
class Remark:
    """One row of a body that was refused, or accepted and doubted, and why."""

    row: int
    reason: Fault | Doubt
    detail: str


@dataclass(frozen=True)
class Outcome:
    """What became of a body. ``repeated`` readings were there already with the same value; ``waiting`` are of lanes and
    on disk until the others of their road come; ``late`` are those among the accepted that are older than the newest of
    their signal. ``refusals`` and ``doubts`` tell the first rows."""

    accepted: int
    repeated: int
    late: int
    refused: Mapping[str, int]
    refusals: Sequence[Remark]
    doubted: Mapping[str, int]
    doubts: Sequence[Remark]
    by_signal: Mapping[str, int] = field(default_factory=dict)
    """Accepted readings of each signal."""
    waiting: int = 0
    stuck: Mapping[str, int] = field(default_factory=Counter)
    """Doubted readings of each signal."""

    @property
    def refused_count(self) -> int:
        return sum(self.refused.values())


def acknowledged(outcome: Outcome, sources: Sequence[str] | None = None) -> dict[str, Any]:
    """The document for whoever sent the body, in their language; ``sources[row]`` says where a row stood, where that is
    not plain.

    Raises :class:`NothingAccepted`, with the document, where there were readings and none could be taken.
    """

    language = asked_language()

    def listed(remarks: Sequence[Remark]) -> list[dict[str, Any]]:
        return [
            {
                "row": remark.row,
                "reason": str(remark.reason),
                "detail": text if sources is None else f"{sources[remark.row]}: {text}",
            }
            for remark in remarks
            for text in [translated(remark.detail, language)]
        ]

    document = {
        "accepted": outcome.accepted,
        "repeated": outcome.repeated,
        "waiting": outcome.waiting,
        "late": outcome.late,
        "refused": outcome.refused_count,
        "refused_by_reason": dict(outcome.refused),
        "refusals": listed(outcome.refusals),
        "doubted": sum(outcome.doubted.values()),
        "doubted_by_reason": dict(outcome.doubted),
        "doubts": listed(outcome.doubts),
    }
    if outcome.refused_count and not (outcome.accepted or outcome.repeated or outcome.waiting):
        raise NothingAccepted(f"none of {outcome.refused_count} readings can be accepted", document)
    return document
