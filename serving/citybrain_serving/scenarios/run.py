"""One scoring run, from a scenario file to a ranking on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa

from citybrain_datasets.city import City
from citybrain_datasets.errors import Problem
from citybrain_datasets.scenarios.checking import check_places, check_purposes, check_weather, variants
from citybrain_datasets.scenarios.geography import receptors
from citybrain_datasets.scenarios.idle import changing_nothing
from citybrain_datasets.scenarios.reading import Scenarios
from citybrain_datasets.scenarios.site import open_site
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.scorer import USUAL_WEATHER, Scorer
from citybrain_serving.scenarios.engine import Engine, Work
from citybrain_serving.scenarios.parts import Parts, RunError, clear, write_table
from citybrain_serving.scenarios.ranking import check_measured, rank
from citybrain_serving.scenarios.rows import SCHEMA

SHIPPED = Path(__file__).parent / "surrogates"
"""Trained surrogates that come with the package, a folder for each city."""


@dataclass(frozen=True)
class Outcome:
    """``table`` is the ranking; ``found`` pieces were scored before, by a run that was broken off. ``hours`` are those
    judged, in words."""

    table: pa.Table
    found: int
    hours: str


def surrogate_for(city: str, given: Path | None = None) -> Path:
    """The folder of the surrogate to use: the ``given`` one, the city's own, or the one that ships for it."""
    if given is not None:
        return given
    beside = Path(city) / "surrogate"
    for folder in (beside, SHIPPED / Path(city).name):
        if folder.is_dir():
            return folder
    raise RunError(
        f"there is no surrogate for {city}: name one (--surrogate), train one (`citybrain train-surrogate`), "
        "or apply another city's (`citybrain apply-surrogate`)"
    )


def check_target(out: Path) -> None:
    """Raises :class:`RunError` unless a ranking can be written to ``out``, before hours of work on one."""
    if out.suffix != ".parquet":
        raise RunError(f"{out}: a ranking is a Parquet file, and its name must end in .parquet")
    if out.is_dir():
        raise RunError(f"{out}: is a folder; name a file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}") from error


def check_city(work: Work) -> None:
    """Raises :class:`CityError` where there is no such city, :class:`RunError` where the surrogate is of another."""
    bundle, city = SurrogateBundle.read(work.surrogate), City.load(work.city)
    if city.name != bundle.city.name or not _same_roads(city, bundle.city):
        raise RunError(
            f"{work.surrogate}: is the surrogate of {bundle.city.name}, whose roads are not those of {work.city}; name "
            "its city (--city), or apply it to this one (`citybrain apply-surrogate`)"
        )


def _same_roads(one: City, other: City) -> bool:
    """Whether both have the same roads in the same places; simulated cities call theirs all by the same ids."""
    if one.ids("road") != other.ids("road"):
        return False
    first, second = one.nodes["road"], other.nodes["road"]
    numbers = ("lat", "lon", "length_m", "lanes", "free_speed_kmh")
    return all(
        np.allclose(first[name].to_numpy(float), second[name].to_numpy(float), rtol=1e-6, equal_nan=True)
        for name in numbers
        if name in first and name in second
    )


def check_weighed(work: Work, weights: Mapping[str, float]) -> None:
    """Raises :class:`ConfigError` where something is weighed that nobody can tell of this city."""
    check_measured(weights, receptors(SurrogateBundle.read(work.surrogate).city).stations)


def check_scenarios(work: Work) -> list[Problem]:
    """Raises :class:`CityError` with file, line and field of each place or weather that the city does not have; what
    is allowed but changes nothing is given back."""
    bundle = SurrogateBundle.read(work.surrogate)
    check_places(work.scenarios, bundle.city)
    check_purposes(work.scenarios, bundle.city, bundle.network.purposes)
    # The bundle holds the usual weather alone.
    if any(scenario.weather != USUAL_WEATHER for _, _, scenario in variants(work.scenarios)):
        check_weather(work.scenarios, open_site(work.city).city, bundle.window)
    return changing_nothing(work.scenarios, Scorer(bundle).levers.changes_nothing)


def score_to(
    work: Work,
    out: Path,
    weights: Mapping[str, float],
    engine: Engine,
    *,
    restart: bool = False,
    keep: bool = False,
    progress: Callable[[int], None] = lambda scored: None,
) -> Outcome:
    """Scores every scenario of ``work`` and writes the ranking to ``out``.

    Pieces are kept as they are done; a second call goes on after them. At the end they are let go, unless there is more
    to do with the ranking and ``keep`` says so. ``progress`` is told how many scenarios are scored. The ranking's bytes
    depend on scenarios, surrogate and weights alone, not on engine, workers or interruption.
    """
    if not len(work.scenarios):
        raise RunError("there is no scenario to score")
    said = about(work)
    parts = Parts(out, said, restart)
    todo = [number for number in range(work.chunks) if not parts.done(number)]
    found = scored = work.chunks - len(todo)
    progress(_count(work, scored))
    for number, table in engine.run(work, todo):
        parts.save(number, table)
        scored += 1
        progress(_count(work, scored))
    table = rank(pa.concat_tables(parts.read(work.chunks)).combine_chunks(), weights)
    told = json.dumps({**said, "weights": dict(weights)}, sort_keys=True, ensure_ascii=False)
    table = table.replace_schema_metadata({"citybrain": told})
    write_table(table, out)
    if not keep:
        clear(out)
    return Outcome(table, found, str(said["hours"]))


def about(work: Work) -> dict[str, object]:
    """What a run's rows depend on."""
    bundle = SurrogateBundle.read(work.surrogate)
    return {
        "scenarios": digest_of(work.scenarios),
        "count": len(work.scenarios),
        "surrogate": bundle.digest,
        "hours": str(bundle.window.timetable()),
        "city": Path(work.city).name,
        "chunk": work.chunk,
        "columns": len(SCHEMA),
    }


def digest_of(scenarios: Scenarios) -> str:
    """SHA-256 over the entries, sweeps as they were written."""
    digest = hashlib.sha256()
    for source in scenarios.sources:
        digest.update(source.entry.model_dump_json().encode())
    return digest.hexdigest()


def _count(work: Work, pieces: int) -> int:
    return min(pieces * work.chunk, len(work.scenarios))
