"""What each part of our network brings: its error without the part against its error with it, on the same windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from citybrain_datasets.records import Record
from citybrain_training.peers.registry import EXCHANGING, FORESEEING, OURS
from citybrain_training.significance import averaged, paired_difference

PARTS = {
    "citynet-no-graph": "the graph",
    EXCHANGING: "messages between neighbours",
    "citynet-no-hubs": "hubs",
    "citynet-short-history": "the longer history",
    "citynet-no-profile": "the weekly profile",
    "citynet-no-traffic": "traffic",
    FORESEEING: "observed weather",
}
"""By subject: what it lacks, or, of those in ``MORE``, what it has more than ours."""

MORE = (EXCHANGING, FORESEEING)

BROUGHT = "mae_brought"


def what_parts_bring(runs: Sequence[Record]) -> Iterator[Record]:
    """How much more error there is without each part, in % of the error with it and with the bounds of a 95 % interval:
    a paired block bootstrap over the seeds that ran with and without."""
    for case in dict.fromkeys(run["case"] for run in runs):
        found = {(run["subject"], run["seed"]): run for run in runs if run["case"] == case}
        for subject, part in PARTS.items():
            seeds = [seed for name, seed in found if name == subject and (OURS, seed) in found]
            if not seeds:
                continue
            lacking, having = (OURS, subject) if subject in MORE else (subject, OURS)
            without, complete = ([found[name, seed] for seed in seeds] for name in (lacking, having))
            days = [averaged([run["days"] for run in side]) for side in (without, complete)]
            blocks = complete[0]["block_days"]
            difference = paired_difference(*days, block=blocks)
            total, count = np.sum(list(days[1].values()), axis=0)
            shared = {key: complete[0][key] for key in ("case", "threads", "command", "commit", "machine", "date")}
            over = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
            note = f"{part}, {over}; paired block bootstrap, blocks of {blocks} d, 95 % interval"
            for bound, value in (("", difference.mean), ("_low", difference.low), ("_high", difference.high)):
                yield {
                    **shared, "subject": subject, "seed": None, "metric": f"{BROUGHT}{bound}", "horizon": "mean",
                    "value": round(float(100 * value * count / total), 6), "unit": "%", "note": note,
                }  # fmt: skip


def markdown(records: Sequence[Record]) -> list[str]:
    """A row for each set and a column for each part, empty where it was not tried; nothing where none was."""
    found = {(r["case"], r["subject"], r["metric"]): r["value"] for r in records if r["metric"].startswith(BROUGHT)}
    if not found:
        return []
    lines = [
        "",
        "### What each part brings",
        "",
        "How much more mean absolute error there is without it, in % of what there is with it, and the 95 % interval "
        "of a paired block bootstrap over days. Below zero the part does harm.",
        "",
        "| set | " + " | ".join(PARTS.values()) + " |",
        "| --- |" + " ---: |" * len(PARTS),
    ]
    for case in dict.fromkeys(case for case, _, _ in found):
        cells = []
        for subject in PARTS:
            values = [
                found[key] for bound in ("", "_low", "_high") if (key := (case, subject, BROUGHT + bound)) in found
            ]
            cells.append("{:+.2f} ({:+.2f} to {:+.2f})".format(*values) if values else "")
        lines.append("| " + " | ".join([case, *cells]) + " |")
    return lines
