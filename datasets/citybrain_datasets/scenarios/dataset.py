"""Simulated interventions on disk: what a surrogate is trained on and judged against.

One folder holds ``base-RRR.npz`` for each replication, ``run-NNNNNN.npz`` for each scenario (``run-NNNNNN-RRR.npz``
where all were simulated on the same mornings), and ``runs.json`` with what they share. Arrays are float32
``[step, segment]``: ``speed``, ``flow``, ``emission`` in the units of
:class:`~citybrain_datasets.scenarios.outcomes.Traffic`, segments in the node order of the city. A file is written
whole or not at all; a second call goes on where the first was broken off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.scenarios.actions import Window
from citybrain_datasets.scenarios.files import load_traffic, save_traffic
from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.mixed import random_scenario
from citybrain_datasets.scenarios.outcomes import Traffic
from citybrain_datasets.scenarios.site import Site
from citybrain_datasets.scenarios.truth import run_jobs, simulate

BASES = 24
"""Replications that the runs are spread over; every sixth is a day off."""


@dataclass(frozen=True)
class Run:
    """One simulated scenario and its base, on the same trips and drivers."""

    scenario: Scenario
    replication: int
    window: Window
    traffic: Traffic
    base: Traffic


def generate(
    site: Site,
    folder: Path,
    count: int,
    *,
    first: int = 0,
    seed: int = 1,
    window: Window | None = None,
    mornings: Sequence[int] = (),
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda n, of: None,
) -> None:
    """Simulates scenarios ``first`` … ``first + count − 1`` of mixed random measures into ``folder``.

    Without ``mornings`` each is simulated once, the scenarios spread over the replications: as many different measures
    and mornings as a network can learn from. With them each is simulated on every one of these replications: their
    mean is what a measure is expected to do, and how they differ is the noise. ``workers`` are simulated at the same
    time, with the same result for any number, bases before the runs that are held against them; ``progress`` is told
    how many windows are done and how many there are. Raises :class:`CityError` where ``folder`` holds runs of another
    city or seed.
    """
    window = window or Window()
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, {"format": 1, "city": site.city.name, "site": site.key, "seed": seed,
                    "segments": site.city.ids("road"), "window": window.model_dump(mode="json")})  # fmt: skip
    runs = {
        folder / (f"run-{number:06d}-{r:03d}.npz" if mornings else f"run-{number:06d}.npz"): (number, r)
        for number in range(first, first + count)
        for r in mornings or (number % BASES,)
    }
    missing = {path: run for path, run in runs.items() if not path.exists()}
    bases = {folder / f"base-{r:03d}.npz": r for _, r in missing.values()}
    before = [partial(_simulate_base, site, path, r, window) for path, r in bases.items() if not path.exists()]
    after = [partial(_simulate_run, site, path, seed, *run, window) for path, run in missing.items()]
    done, of = len(runs) - len(missing), len(runs) + len(before)
    progress(done, of)
    run_jobs(before, workers, lambda n: progress(done + n, of))
    run_jobs(after, workers, lambda n: progress(done + len(before) + n, of))


def read_runs(folder: Path | str) -> Iterator[Run]:
    """The finished runs of ``folder``, in order of their number."""
    folder = Path(folder)
    bases: dict[int, Traffic] = {}
    for path in sorted(folder.glob("run-*.npz")):
        scenario, replication, window, traffic = load_traffic(path)
        if replication not in bases:
            bases[replication] = load_traffic(folder / f"base-{replication:03d}.npz")[3]
        yield Run(scenario, replication, window, traffic, bases[replication])


def _simulate_base(site: Site, path: Path, replication: int, window: Window) -> None:
    day, nothing = _day(window, replication), Scenario(id="base")
    save_traffic(path, simulate(site, nothing, replication, day), nothing, replication, day)


def _simulate_run(site: Site, path: Path, seed: int, number: int, replication: int, window: Window) -> None:
    day = _day(window, replication)
    scenario = random_scenario(site.city, day, seed, number, site.purposes)
    save_traffic(path, simulate(site, scenario, replication, day), scenario, replication, day)


def _day(window: Window, replication: int) -> Window:
    return window.model_copy(update={"off": replication % 6 == 5})


def _claim(folder: Path, about: dict[str, object]) -> None:
    """Writes what the runs of ``folder`` share, or checks that it is what they share already."""
    path = folder / "runs.json"
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8")) != about:
            raise CityError([Problem(str(path), "holds runs of another city, window or seed")])
        return
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
    part.replace(path)


__all__ = ["Run", "generate", "read_runs", "simulate"]
