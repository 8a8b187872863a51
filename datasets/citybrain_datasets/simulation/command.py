"""``citybrain data simulate``: makes a synthetic city."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from citybrain_datasets.city import name_problems
from citybrain_datasets.errors import CityError, ConfigError
from citybrain_datasets.simulation.build import Simulated, simulate_city
from citybrain_datasets.simulation.plan import Plan
from citybrain_datasets.store import refuse_foreign, save_city


def _usual(option: str) -> str:
    return str(Plan.model_fields[option].default)


def simulate(
    out: Annotated[Path, typer.Option(help="Folder of the city; the truth goes to the same name with '-truth'.")],
    days: Annotated[int | None, typer.Option(min=1, help="Days to simulate.", show_default=_usual("days"))] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Another seed is another city.", show_default=_usual("seed"))
    ] = None,
    segments: Annotated[
        int | None,
        typer.Option(min=30, help="At least so many directed road segments.", show_default=_usual("segments")),
    ] = None,
    stations: Annotated[int | None, typer.Option(min=2, help="Air stations.", show_default=_usual("stations"))] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="YAML of all parameters, such as the plan.yaml of a city; what is given beside it wins."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the city.", show_default="that of the folder")] = None,
    work: Annotated[Path | None, typer.Option(help="Where finished days are kept, so that a run resumes.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Days simulated at the same time.")] = 1,
) -> None:
    """Simulate a synthetic city with SUMO: roads, traffic, weather, air, and faulty instruments."""
    options = {"days": days, "seed": seed, "segments": segments, "stations": stations}
    given = _read_plan(plan) | {option: value for option, value in options.items() if value is not None}
    try:
        parameters = Plan.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{plan or 'simulate'}: {error}") from error
    out = out.absolute()  # `.` has a name as well
    name = name or out.name
    _refuse(name, out)
    work = work or out.with_name(f".{out.name}.work")
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True),
    )  # fmt: skip
    with bar:
        task = bar.add_task("Days simulated", total=parameters.days)
        made = simulate_city(
            parameters,
            work,
            name=name,
            workers=workers,
            progress=lambda day: bar.update(task, completed=day + 1),
        )
    save_simulated(made, parameters, work, out)
    typer.echo(f"{out}: {made.city.title}, {len(made.city.ids('road'))} segments, {made.city.fingerprint()[:12]}")


def _refuse(name: str, out: Path) -> None:
    """Raises :class:`CityError` for a name no city may have, or a folder that may not be written."""
    if problems := list(name_problems(name)):
        raise CityError(problems)
    for folder in (out, truth_folder(out)):
        refuse_foreign(folder)


def truth_folder(out: Path) -> Path:
    """Where the truth about the city in ``out`` lies."""
    return out.with_name(f"{out.name}-truth")


def save_simulated(made: Simulated, plan: Plan, work: Path, out: Path) -> None:
    """Writes the city, and the truth beside it.

    With the city goes what explains it (events, faults, PM2.5 by origin) and what a scenario on it needs
    (network, plan); with the truth, the PM2.5 that traffic emitted, g/h by hour and segment.
    """
    network = (work / f"{plan.digest()}.net.xml.gz").read_bytes()
    extras = {
        "network.net.xml.gz": network,
        "plan.yaml": yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False).encode(),
        "events.parquet": _parquet(made.events),
        "faults.parquet": _parquet(made.faults),
        "origins.parquet": _parquet(_origins(made)),
    }
    emission = pd.DataFrame(made.emission.round(1), made.truth.signals["pm25"].times, made.truth.ids("road"))
    beside = {"emission.parquet": _parquet(emission.rename_axis("time").reset_index())}
    save_city(made.truth, truth_folder(out), beside)
    save_city(made.city, out, extras)


def _origins(made: Simulated) -> pd.DataFrame:
    """PM2.5 by origin as a long table: time, station, background, urban, traffic (µg/m³)."""
    signal = made.truth.signals["pm25"]
    index = pd.MultiIndex.from_product([signal.times, made.truth.ids("air")], names=["time", "station"])
    parts = {n: getattr(made.air, n).ravel().round(1).astype("float32") for n in ("background", "urban", "traffic")}
    return pd.DataFrame(parts, index=index).reset_index()


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def _read_plan(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of plan parameters")
    return content
