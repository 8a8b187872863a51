"""Runs what is not finished yet, one run after another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from citybrain_datasets.city import City
from citybrain_datasets.records import Record, circumstances, write_atomically
from citybrain_training.bench.cases import Case
from citybrain_training.bench.records import RunStore, run_digest
from citybrain_training.bench.scoring import score_test
from citybrain_training.config import TrainConfig
from citybrain_training.events import learnt_dependence
from citybrain_training.peers.peer import Budget, LearnsOnline
from citybrain_training.peers.registry import Subject
from citybrain_training.preparation import Preparation, prepare, task_of


@dataclass(frozen=True)
class Plan:
    """A benchmark: every subject on every case with every seed, under one budget (whose own seed is not used)."""

    cases: Mapping[str, Case]
    subjects: Mapping[str, Subject]
    seeds: Sequence[int]
    budget: Budget
    cities: Path
    work: Path
    again: frozenset[str] = frozenset()
    """Subjects whose finished runs are thrown away, after their code changed."""
    finished: bool = False
    """Read what is finished and run nothing."""

    @property
    def command(self) -> str:
        """The command that runs this plan, without the places of folders."""
        parts = [f"--cases {','.join(self.cases)}", f"--subjects {','.join(self.subjects)}"]
        parts += [f"--seeds {','.join(map(str, self.seeds))}", f"--threads {self.budget.threads}"]
        if self.budget.minutes is not None:
            parts.append(f"--budget-minutes {self.budget.minutes:g}")
        if self.budget.device != "cpu":
            parts.append(f"--device {self.budget.device}")
        return "citybrain bench " + " ".join(parts)


@dataclass(frozen=True)
class Failure:
    """A run that could not be finished, and why."""

    case: str
    subject: str
    seed: int
    reason: str


def run_plan(plan: Plan, tell: Callable[[str], None] = lambda _: None) -> tuple[list[Record], list[Failure]]:
    """Records of every run of the plan, in its order, and what failed. Finished runs are read, not repeated; stopping
    at any moment loses the run in progress alone."""
    for subject in () if plan.finished else plan.subjects.values():
        subject.make()  # what is not installed is told now, not after a night
    records: list[Record] = []
    failures: list[Failure] = []
    store = RunStore(plan.work)
    for case_name, case in plan.cases.items():
        city = case.load(plan.cities)
        fingerprint = city.fingerprint()
        for name, subject in plan.subjects.items():
            config = _config(case, subject, city, unlimited=plan.budget.minutes is None)
            if config is None:
                tell(f"{case_name}: {subject.title} does not apply")
                continue
            prepared: Preparation | None = None
            for seed in plan.seeds if subject.seeded else plan.seeds[:1]:
                budget = plan.budget.shared(subject.share, seed)
                path = store.path(case_name, name, seed, run_digest(name, subject, budget, config, fingerprint))
                if name in plan.again:
                    path.unlink(missing_ok=True)
                record = store.read(path)
                if record is None and plan.finished:
                    tell(f"{case_name}: {subject.title}, seed {seed} is not finished")
                    continue
                if record is None:
                    prepared = prepared or prepare(city, case.task, config)
                    tell(f"{case_name}: {subject.title}, seed {seed} …")
                    try:
                        record = run_one(case_name, case, name, subject, prepared, budget, plan.command)
                    except Exception as failed:  # noqa: BLE001  # the errors of other people's libraries share no class
                        # A model that diverges must not cost the night's other runs; it is reported at the end.
                        failures.append(Failure(case_name, name, seed, f"{type(failed).__name__}: {failed}"))
                        tell(f"{case_name}: {subject.title}, seed {seed} failed: {failed}")
                        continue
                    write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False))
                error = record["scores"]["mean"]["mae"]
                tell(f"{case_name}: {subject.title}, seed {seed}: MAE {error:.3f} {record['unit']}")
                records.append(record)
    return records, failures


def run_one(
    case_name: str, case: Case, name: str, subject: Subject, preparation: Preparation, budget: Budget, command: str
) -> Record:
    """Fits one subject and scores it on the test windows, once."""
    peer = subject.make()
    cost = peer.fit(preparation, budget)
    result = score_test(peer, preparation, case, learnt_dependence(peer, preparation))
    online: Record | None = None
    if isinstance(peer, LearnsOnline):
        # The medians are the same; only what the intervals came to is kept.
        learnt = score_test(peer.online(preparation.source), preparation, case)
        online = {"scores": learnt.scores["mean"], "by_lead": learnt.scores}
        online |= {"coverage": learnt.coverage, "groups": learnt.groups}
    task = preparation.task
    return {
        "case": case_name,
        "subject": name,
        "title": subject.title,
        "seed": budget.seed,
        "threads": budget.threads,
        "device": budget.device,
        "budget_minutes": budget.minutes,
        "task": task.name,
        "unit": case.unit_of(task),
        "leads": [task.lead_label(step - 1) for step in case.leads if step <= task.horizon],
        "block_days": max(1, -(-task.horizon * task.step // pd.Timedelta(days=1))),
        "windows": {part: len(issues) for part, issues in vars(preparation.split).items()},
        "cost": {**vars(cost), "curve": [list(point) for point in cost.curve]},
        "note": peer.note,
        "online": online,
        "command": command,
        **circumstances(),
        **result.plain(),
    }


def _config(case: Case, subject: Subject, city: City, *, unlimited: bool) -> TrainConfig | None:
    """The protocol's configuration with the subject's change, or None where the change means nothing or is there
    already."""
    if subject.share != 1 and unlimited:
        return None
    config = case.config()
    task = task_of(city, case.task, config)
    changes = subject.changes(task, city)
    if changes is None:
        return None
    changed = config.merged(changes)
    bare, same = (c.model_copy(update={"task": {}}) for c in (config, changed))
    there = bare == same and task_of(city, case.task, changed) == task
    return None if changes and there else changed
