"""The benchmark's results as flat records, one measured number each: what ``benchmarks/accuracy.json`` holds."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from citybrain_datasets.records import Record, read_records, write_atomically
from citybrain_training.bench.groups import MEASURES
from citybrain_training.bench.learning import YARDSTICK, races
from citybrain_training.bench.parts import what_parts_bring
from citybrain_training.peers.registry import FORESEEING, OURS, SUBJECTS
from citybrain_training.significance import averaged, paired_difference

UNITS = {"mape": "%", "coverage": "1", "seconds": "s"}
PER_RUN = ("case", "subject", "seed", "threads", "command", "commit", "machine", "date")


def flat_records(runs: Sequence[Record]) -> list[Record]:
    """Every number of the runs, then how soon ours reached Graph WaveNet's error, then ours against each case's best
    peer, and what each part of it brings."""
    every = [record for run in runs for record in _of_run(run)]
    return [*every, *_races(runs), *_differences(runs), *what_parts_bring(runs)]


def _of_run(run: Record) -> list[Record]:
    common = {key: run[key] for key in PER_RUN} | {"note": _note(run)}

    def record(metric: str, value: float, unit: str, horizon: str) -> Record:
        return {**common, "metric": metric, "value": round(float(value), 6), "unit": unit, "horizon": horizon}

    found = []
    for lead in (*run["leads"], "mean"):
        for metric, value in run["scores"][lead].items():
            found.append(record(metric, value, UNITS.get(metric, str(run["unit"])), lead))
    for metric, value, unit in (
        ("training_seconds", run["cost"]["seconds"], "s"),
        ("epochs", run["cost"]["epochs"], "1"),
        ("parameters", run["cost"]["parameters"], "1"),
    ):
        found.append(record(metric, value, unit, "mean"))
    for name, low, high in _groups(run):
        found.append(record(f"{name}coverage_lowest_group", low, "1", "mean"))
        found.append(record(f"{name}coverage_highest_group", high, "1", "mean"))
    online: Record = run.get("online") or {}
    for metric in ("coverage", "width", "pinball") if online else ():
        value, unit = online["scores"][metric], UNITS.get(metric, str(run["unit"]))
        found.append(record(f"online_{metric}", value, unit, "mean"))
    found += [record(*row) for row in _by_lead(run)]
    # Runs that were finished before groups were told apart have none.
    for kind, groups in run.get("groups", {}).items():
        for group, means in groups.items():
            for metric in MEASURES:
                unit = UNITS.get(metric, str(run["unit"]))
                found.append(record(f"{metric}: {kind}: {group}", means[metric], unit, "mean"))
    for event, table in run["events"].items():
        found += [record(f"{metric}: {event}", value, "1", "mean") for metric, value in table.items()]
    return found


def _groups(run: Record) -> Iterator[tuple[str, float, float]]:
    """Least and greatest coverage of a group of lead and part of the day: as calibrated, and learning online."""
    for name, table in (("", run["coverage"]), ("online_", (run.get("online") or {}).get("coverage"))):
        if table:
            shares = [share for parts in table.values() for share in parts.values()]
            yield name, min(shares), max(shares)


def _by_lead(run: Record) -> Iterator[tuple[str, float, str, str]]:
    """Of ours, coverage by lead and part of the day, as calibrated and learning online, and what else learning came to
    at each lead, where the run kept it."""
    online: Record = run.get("online") or {}
    for lead in run["leads"] if run["subject"] == OURS else ():
        for name, table in (("", run["coverage"]), ("online_", online.get("coverage", {}))):
            for part, share in table.get(lead, {}).items():
                yield f"{name}coverage: part of the day: {part}", share, "1", lead
        for metric in ("coverage", "width", "pinball") if "by_lead" in online else ():
            yield f"online_{metric}", online["by_lead"][lead][metric], UNITS.get(metric, str(run["unit"])), lead


def _note(run: Record) -> str:
    minutes, kind = run["budget_minutes"], "CPU minutes" if run["device"] == "cpu" else f"minutes on {run['device']}"
    budget = "trained in full" if minutes is None else f"budget {minutes:g} {kind}"
    return "; ".join(part for part in (budget, run["note"]) if part)


def _races(runs: Sequence[Record]) -> Iterator[Record]:
    """1 where a run of ours came to the yardstick's validation error, and in what part of its seconds."""
    for run, result in races(runs):
        common = {key: run[key] for key in PER_RUN} | {"note": _note(run), "unit": "1", "horizon": "mean"}
        yield {**common, "metric": f"reached_{YARDSTICK}", "value": float(result.other is not None)}
        if result.other is not None:
            share = round(result.other / result.yardstick, 6)
            yield {**common, "metric": f"seconds_over_{YARDSTICK}", "value": share}


def best_peer(runs: Sequence[Record], *, foresight: bool = False) -> str | None:
    """The peer with the least mean test error over its seeds among the runs of one case; of those with ``foresight``,
    or of those without."""
    errors = defaultdict(list)
    for run in runs:
        subject = SUBJECTS[run["subject"]]
        if not subject.ours and subject.foresight == foresight:
            errors[run["subject"]].append(run["scores"]["mean"]["mae"])
    return min(errors, key=lambda name: float(np.mean(errors[name])), default=None)


def _differences(runs: Sequence[Record]) -> list[Record]:
    found = []
    for case in dict.fromkeys(run["case"] for run in runs):
        of_case = [run for run in runs if run["case"] == case]
        for subject in (OURS, FORESEEING):
            ours = [run for run in of_case if run["subject"] == subject]
            peer = best_peer(of_case, foresight=SUBJECTS[subject].foresight)
            if not ours or peer is None:
                continue
            theirs = [run for run in of_case if run["subject"] == peer]
            days = (averaged([run["days"] for run in part]) for part in (ours, theirs))
            difference = paired_difference(*days, block=ours[0]["block_days"])
            common = {key: ours[0][key] for key in PER_RUN} | {"seed": None, "unit": ours[0]["unit"], "horizon": "mean"}
            common["note"] = f"minus {peer}; paired block bootstrap, blocks of {ours[0]['block_days']} d, 95 % interval"
            for metric, value in (("", difference.mean), ("_low", difference.low), ("_high", difference.high)):
                found.append({**common, "metric": f"mae_difference{metric}", "value": round(value, 6)})
    return found


def merge(path: Path, fresh: Sequence[Record]) -> list[Record]:
    """The file's records of runs, with those of the same case, subject and seed replaced, and the file written anew.

    Records of other things in it, such as how long a command takes, stay as they are. Raises :class:`ConfigError`
    where the file holds something else.
    """
    old = read_records(path)
    replaced = {(r["case"], r["subject"], r["seed"]) for r in fresh}
    other = [r for r in old if "seed" not in r]
    kept = [r for r in old if "seed" in r and (r["case"], r["subject"], r["seed"]) not in replaced]
    order = {name: place for place, name in enumerate(SUBJECTS)}
    every = sorted([*kept, *fresh], key=lambda r: (r["case"], order.get(r["subject"], 99), r["seed"] or 0))
    lines = ",\n".join(json.dumps(record, ensure_ascii=False, sort_keys=True) for record in [*every, *other])
    write_atomically(path, f"[\n{lines}\n]\n")
    return every
