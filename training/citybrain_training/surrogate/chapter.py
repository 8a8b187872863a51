"""The chapter on the surrogate in ``docs/benchmarks.md``, from its records; nothing in it is typed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from citybrain_datasets.records import Record, uncommitted

SHOWN = {
    "delay_veh_h": "delay", "tpi": "TPI", "travelled_veh_km": "distance driven", "emission_kg": "emission",
    "pm25_stations": "PM2.5, stations", "stations": "PM2.5, each station", "pm25_people": "PM2.5, people",
}  # fmt: skip
METRICS = {
    "spearman": "Spearman's rank correlation with the simulator",
    "median error in spreads": "median absolute error, in standard deviations of the true change",
    "coverage": "covered by the 90 % interval",
}


def markdown(records: Sequence[Record]) -> str:
    """A table for each network and metric, a row for each subject."""
    lines = [
        "## What if: the surrogate beside the simulator",
        "",
        "How well the change that measures bring is told, on scenarios that nothing was learnt from. *SUMO, other "
        "mornings* is the simulator held against itself: the mean of half of the mornings against the other half. "
        "Nothing can be expected to tell the truth much better than that, since the truth is a mean over as few. "
        "An interval promises that mean; *one morning* is how often a single one lies in it.",
    ]
    for case in dict.fromkeys(record["case"] for record in records):
        mine = [record for record in records if record["case"] == case]
        lines += ["", f"### {case}", "", f"{mine[0]['note']}."]
        for metric, title in METRICS.items():
            subjects: dict[str, dict[str, float]] = defaultdict(dict)
            for record in mine:
                outcome, _, measured = record["metric"].partition(" change, ")
                if measured == metric:
                    subjects[record["subject"]][outcome] = record["value"]
            if subjects:
                lines += ["", f"{title[0].upper()}{title[1:]}:", "", *_table(subjects, metric == "coverage")]
        lines += uncommitted(mine)
    return "\n".join(lines)


def _table(subjects: dict[str, dict[str, float]], percent: bool) -> list[str]:
    names = [name for name in SHOWN if any(name in row for row in subjects.values())]
    lines = [f"| | {' | '.join(SHOWN[n] for n in names)} |", f"| --- |{' ---: |' * len(names)}"]
    for subject, row in subjects.items():
        told = ((f"{row[n]:.1%}" if percent else f"{row[n]:.3f}") if n in row else "" for n in names)
        lines.append(f"| {subject} | {' | '.join(told)} |")
    return lines
