"""How soon one model reaches another's error: read off what each spent and reached, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from citybrain_datasets.records import Record
from citybrain_training.peers.registry import SUBJECTS

YARDSTICK = "graph-wavenet"
"""Whose validation error is to be reached."""

Curve = Sequence[Sequence[float]]
"""Seconds spent and validation error after each epoch."""


@dataclass(frozen=True)
class Race:
    """Seconds until the yardstick had its least validation error, and until another had as little; None where it
    never had."""

    yardstick: float
    other: float | None


def race(other: Curve, yardstick: Curve) -> Race:
    """Both curves must hold an epoch."""
    seconds, error = min(yardstick, key=lambda point: point[1])
    return Race(seconds, next((spent for spent, reached in other if reached <= error), None))


def races(runs: Sequence[Record]) -> Iterator[tuple[Record, Race]]:
    """Every run of ours for which the yardstick ran on the same case with the same seed, with the result. Runs that
    were finished before curves were kept are left out."""
    curves = {(r["case"], r["seed"]): r["cost"].get("curve") for r in runs if r["subject"] == YARDSTICK}
    for run in runs:
        own, theirs = run["cost"].get("curve"), curves.get((run["case"], run["seed"]))
        if own and theirs and SUBJECTS[run["subject"]].ours and not SUBJECTS[run["subject"]].foresight:
            yield run, race(own, theirs)
