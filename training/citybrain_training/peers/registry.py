"""Who takes part in the benchmark, by name. Nothing is imported until it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError, installing
from citybrain_datasets.task import WEATHER, Task, default_task
from citybrain_training.peers.peer import Peer

Changes = Callable[[Task, City], dict[str, Any] | None]


def _as_it_is(task: Task, city: City) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Subject:
    """A model, or ours with a change.

    ``changes`` are merged into the protocol's configuration; None where the change means nothing for a task in a city.
    ``share`` of the budget is what this subject may spend. ``foresight`` marks what reads the observed weather of the
    target time: it is compared with its like alone. ``seeded`` is False where the seed changes nothing.
    """

    title: str
    place: str
    changes: Changes = _as_it_is
    ours: bool = False
    share: float = 1.0
    foresight: bool = False
    seeded: bool = True
    library: str = ""

    def make(self) -> Peer:
        """A fresh model. Raises :class:`ConfigError` where its library is not installed."""
        module, _, name = self.place.partition(":")
        try:
            return getattr(import_module(f"citybrain_training.peers.{module}"), name)()
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("citybrain"):
                raise
            raise ConfigError(
                f"{self.title} needs the package {error.name}: {installing('peers')}, or leave it out of --subjects"
            ) from error


def _ours(title: str, changes: Changes) -> Subject:
    return Subject(title, "ours:CityNetPeer", changes, ours=True)


def _with(**changes: dict[str, Any]) -> Changes:
    return lambda task, city: changes


def _without_context(task: Task, city: City) -> dict[str, Any] | None:
    if not task.context:
        return None
    # Named only where it is set: what a run was told names its record.
    return {"task": {"context": (), **({} if task.context_ahead is None else {"context_ahead": None})}}


def _perfect_weather(task: Task, city: City) -> dict[str, Any] | None:
    """Also where the protocol does without the weather of the past. A stand-in for a perfect forecast does not err, and
    distant leads are not held back in learning, as is right where nobody can know them."""
    known = [name for name in default_task(city, task.name).inputs if name in WEATHER]
    perfect = {"weather_error": (0.0, 0.0), "weather_withheld": 0.0}
    if not known:
        return None
    usual = {"lead_power": None}  # that of tasks which read the weather ahead
    return {"task": {"known_future": known}, "fit": perfect | usual}


SUBJECTS: dict[str, Subject] = {
    "citynet": _ours("CityNet", _as_it_is),
    "citynet-no-graph": _ours("CityNet without the graph", _with(network={"graph": False})),
    "citynet-exchange": _ours("CityNet with messages between neighbours", _with(network={"exchange": True})),
    "citynet-no-hubs": _ours("CityNet without hubs", _with(network={"hubs": 0})),
    "citynet-short-history": _ours(
        "CityNet without the longer history", _with(task={"seasonal_days": (), "coarse": (0, 0)})
    ),
    "citynet-no-profile": _ours("CityNet without the weekly profile", _with(network={"profile": False})),
    "citynet-no-traffic": _ours("CityNet without traffic among its inputs", _without_context),
    "citynet-fifth": Subject("CityNet on a fifth of the budget", "ours:CityNetPeer", ours=True, share=0.2),
    "citynet-observed-weather": Subject(
        "CityNet with observed weather", "ours:CityNetPeer", _perfect_weather, ours=True, foresight=True
    ),
    "graph-wavenet": Subject("Graph WaveNet", "tsl_models:GraphWaveNet", library="torch-spatiotemporal"),
    "dcrnn": Subject("DCRNN", "tsl_models:DCRNN", library="torch-spatiotemporal"),
    "agcrn": Subject("AGCRN", "tsl_models:AGCRN", library="torch-spatiotemporal"),
    "gru-gcn": Subject("GRU-GCN", "tsl_models:GRUGCN", library="torch-spatiotemporal"),
    "stid": Subject("STID", "tsl_models:STID", library="torch-spatiotemporal"),
    "mtgnn": Subject("MTGNN", "mtgnn:MTGNN", library="torch-geometric-temporal"),
    "itransformer": Subject("iTransformer", "basicts_models:ITransformer", library="basicts"),
    "dlinear": Subject("DLinear", "basicts_models:DLinear", library="basicts"),
    "lightgbm": Subject("LightGBM on lags", "boosted:LightGBM", library="lightgbm"),
    "lightgbm-observed-weather": Subject(
        "LightGBM with observed weather", "boosted:LightGBM", _perfect_weather, foresight=True, library="lightgbm"
    ),
    "persistence": Subject("persistence", "simple:PersistencePeer", seeded=False),
    "weekly-profile": Subject("weekly profile", "simple:WeeklyProfilePeer", seeded=False),
}

OURS = "citynet"

FORESEEING = "citynet-observed-weather"
"""Ours among those that read the observed weather of the target time."""

EXCHANGING = "citynet-exchange"
"""Ours with messages between neighbours, where the protocol does without."""


def chosen(names: list[str]) -> dict[str, Subject]:
    """Subjects by name, in the order of the table. Raises :class:`ConfigError` for an unknown one."""
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown:
        raise ConfigError(f"unknown subject {unknown[0]!r}; known are {', '.join(SUBJECTS)}")
    return {name: SUBJECTS[name] for name in SUBJECTS if name in names}
