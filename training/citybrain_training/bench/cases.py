"""What is compared: a city, a task, the protocol of its split, and the unit in which the field reports it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from citybrain_datasets.city import City
from citybrain_datasets.errors import ConfigError
from citybrain_datasets.signals import KINDS
from citybrain_datasets.task import Task
from citybrain_training.commands import PROTOCOLS
from citybrain_training.config import TrainConfig, read_config

MILE_KM = 1.609344


@dataclass(frozen=True)
class Published:
    """A figure from a publication, quoted beside ours, never computed with."""

    model: str
    mae: dict[str, float]
    note: str


@dataclass(frozen=True)
class Case:
    """``leads`` are the horizon steps (from 1) that the protocol reports. ``per`` is how many of our units one of
    the protocol's is, and ``unit`` the protocol's name; an empty one stands for our own unit."""

    city: str
    task: str
    protocol: str
    leads: tuple[int, ...]
    unit: str = ""
    per: float = 1.0
    published: tuple[Published, ...] = field(default=())

    def config(self) -> TrainConfig:
        """The protocol that ships with the package under this name."""
        return read_config(PROTOCOLS / f"{self.protocol}.yaml")

    def load(self, cities: Path) -> City:
        """The imported city. Raises :class:`ConfigError` where it was not imported yet."""
        if self.city == "embedded":
            return City.load("embedded")
        if not (cities / self.city).is_dir():
            raise ConfigError(f"{cities / self.city}: no such city; bring it in with `citybrain data import` first")
        return City.load(cities / self.city)

    def unit_of(self, task: Task) -> str:
        return self.unit or KINDS[task.target].unit


def _traffic(city: str, unit: str = "", per: float = 1.0) -> Case:
    return Case(city, "congestion", city, (3, 6, 12), unit, per)


AIRPHYNET = Published(
    "AirPhyNet, as published (ICLR 2024)",
    {"24h": 29.11, "48h": 36.69, "72h": 42.23},
    "other data: gaps were filled otherwise there, and filled values may have been scored",
)

CASES: dict[str, Case] = {
    "pems-bay-67": _traffic("pems-bay-67", "mph", MILE_KM),
    "pems08-170": _traffic("pems08-170", "veh/5min", 12),
    "sz-taxi": _traffic("sz-taxi"),
    "hague": _traffic("hague", "veh/15min", 4),
    "kdd2018-beijing": Case("kdd2018-beijing", "pm25", "kdd2018-beijing", (8, 16, 24), published=(AIRPHYNET,)),
    "uci-beijing-12": Case("uci-beijing-12", "pm25", "uci-beijing-12", (24, 48, 72)),
    "madrid": Case("madrid", "pm25", "madrid", (24, 48, 72)),
    "embedded-congestion": Case("embedded", "congestion", "smoke", (3, 6, 12)),
    "embedded-pm25": Case("embedded", "pm25", "smoke", (24, 48, 72)),
}
"""The embedded ones are synthetic: they show that the benchmark works, and say nothing about any model."""

MEASURED = tuple(name for name, case in CASES.items() if case.city != "embedded")


def chosen_cases(names: list[str]) -> dict[str, Case]:
    """Cases by name. Raises :class:`ConfigError` for an unknown one."""
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ConfigError(f"unknown case {unknown[0]!r}; known are {', '.join(CASES)}")
    return {name: CASES[name] for name in names}
