"""``citybrain effect``: what a real measure did."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from citybrain_datasets.checking import open_city
from citybrain_training.effect.estimate import run_study
from citybrain_training.effect.study import read_study
from citybrain_training.effect.table import markdown


def effect(
    study: Annotated[Path, typer.Argument(help="YAML: measure, date, site, targets, placebo dates.", exists=True)],
    city: Annotated[str, typer.Option(help="A saved folder, a YAML, or a packaged name.")],
    out: Annotated[Path, typer.Option(help="JSON to write.")] = Path("effect.json"),
) -> None:
    """Measure what a measure did: business as usual, learned before it, against what was measured after."""
    described = read_study(study)
    found, _ = open_city(city, None)
    console = Console(stderr=True)
    with console.status("Learning business as usual …") as status:
        record = run_study(found, described, lambda what: status.update(f"Learning {what} …"))
    text = json.dumps(_rounded(record), ensure_ascii=False, indent=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(out)
    typer.echo(markdown(json.loads(text)))


def _rounded(value: object) -> object:
    """Four significant places: what is beyond them differs between machines."""
    if isinstance(value, float):
        return None if value != value else float(f"{value:.4g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value
