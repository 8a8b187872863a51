"""One JSON file per finished run, so that a benchmark of days may stop at any moment and go on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from citybrain_datasets.errors import ConfigError
from citybrain_training.config import TrainConfig
from citybrain_training.peers.peer import Budget
from citybrain_training.peers.registry import Subject

Record = dict[str, Any]


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


def write_atomically(path: Path, text: str) -> None:
    """Writes the whole file or leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def circumstances() -> dict[str, str]:
    """Commit, machine and date of a run."""
    return {"commit": _commit(), "machine": _machine(), "date": datetime.now(UTC).isoformat(timespec="seconds")}


def _commit() -> str:
    """The checkout's commit, ``+`` where files differ from it, ``unknown`` outside a checkout."""
    try:
        here = Path(__file__).parent
        options: dict[str, Any] = {"cwd": here, "capture_output": True, "text": True, "check": True, "timeout": 30}
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **options).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no", "--", "."], **options).stdout
        return commit + ("+" if changed.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _machine() -> str:
    """Processor and number of cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        name = found.group(1).strip() if found else name
    except OSError:
        pass  # no Linux: the platform's own name has to do
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"
