"""One JSON file per finished run, so that a benchmark of days may stop at any moment and go on where it stopped."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from citybrain_datasets.errors import ConfigError
from citybrain_datasets.records import Record
from citybrain_training.config import TrainConfig
from citybrain_training.peers.peer import Budget
from citybrain_training.peers.registry import Subject


def run_digest(name: str, subject: Subject, budget: Budget, config: TrainConfig, fingerprint: str) -> str:
    """Twelve hex digits that change with anything a run depends on, except the code.

    Of the configuration, a peer depends on the task and the split alone: tuning our network leaves its runs valid.
    """
    # Without defaults: a field that a later version adds must not cost days of runs that it left as they were.
    settings = config.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if not subject.ours:
        settings = {key: settings.get(key) for key in ("task", "split")}
    what = [name, budget.minutes, budget.seed, budget.threads, budget.device, settings, fingerprint]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


class RunStore:
    """The folder of finished runs: ``<case>/<subject>-seed<n>-<digest>.json``."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, case: str, subject: str, seed: int, digest: str) -> Path:
        return self.folder / case / f"{subject}-seed{seed}-{digest}.json"

    def read(self, path: Path) -> Record | None:
        """The record of a finished run, or None. Raises :class:`ConfigError` for a file that is none."""
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f"{path}: is no record of a run ({error}); delete it to run anew") from None
