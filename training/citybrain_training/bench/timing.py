"""``citybrain bench-time``: how long a command takes, and a number that it prints, as records."""

from __future__ import annotations

import re
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from citybrain_datasets.errors import CityBrainError
from citybrain_datasets.records import circumstances, merge_records


def bench_time(
    command: Annotated[list[str], typer.Argument(help="the command and its arguments, after --")],
    case: Annotated[str, typer.Option(help="what the command is called in the records")],
    out: Annotated[Path, typer.Option(help="the JSON file that the records go into")],
    pick: Annotated[
        str | None, typer.Option(help="a regular expression with one group, a number in what the command prints")
    ] = None,
    metric: Annotated[str, typer.Option(help="what the picked number is")] = "value",
    unit: Annotated[str, typer.Option(help="unit of the picked number")] = "1",
    note: Annotated[str, typer.Option(help="what a reader should know")] = "",
) -> None:
    """Run a command once, record its wall and CPU seconds, and put the records in the place of earlier ones."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    printed = _run(command)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    numbers = [("wall_seconds", round(wall, 1), "s"), ("cpu_seconds", round(cpu, 1), "s")]
    if pick is not None:
        found = re.search(pick, printed)
        if found is None:
            raise CityBrainError(f"--pick {pick!r} is nowhere in what {shlex.join(command)} printed")
        numbers.append((metric, float(found.group(1)), unit))
    shared = {"case": case, "subject": "citybrain", "note": note, "command": shlex.join(command), **circumstances()}
    merge_records(out, [{**shared, "metric": m, "value": v, "unit": u} for m, v, u in numbers])


def _run(command: list[str]) -> str:
    """What the command prints on stdout, shown as it comes. Raises :class:`CityBrainError` unless it succeeds."""
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                sys.stdout.write(line)
                lines.append(line)
    except OSError as error:
        raise CityBrainError(f"{command[0]}: cannot be run ({error.strerror})") from None
    if process.returncode:
        raise CityBrainError(f"{shlex.join(command)} ended with code {process.returncode}; nothing is recorded")
    return "".join(lines)
