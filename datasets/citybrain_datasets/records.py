"""Measured numbers as flat records, and the file they are kept in.

A record is one number with everything a reader needs to judge it: case, subject, metric, value, unit, and the command,
commit, machine and date it was measured with.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def merge_records(path: Path, records: list[Record]) -> None:
    """Puts ``records`` into a file of records, in the place of those of the same case, subject and metric."""
    mine = {(r["case"], r["subject"], r["metric"]) for r in records}
    kept = json.loads(path.read_text()) if path.exists() else []
    kept = [r for r in kept if (r["case"], r["subject"], r["metric"]) not in mine]
    write_atomically(path, json.dumps(kept + records, indent=1, ensure_ascii=False) + "\n")


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
        # The rooms stand side by side: what differs in any of them is not what the commit says was measured.
        options: dict[str, Any] = {"cwd": Path(__file__).parents[2], "capture_output": True, "text": True}
        options |= {"check": True, "timeout": 30}
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **options).stdout.strip()
        rooms = ("datasets", "models", "training", "serving")
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no", "--", *rooms], **options)
        return commit + ("+" if changed.stdout.strip() else "")
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
