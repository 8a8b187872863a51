"""A check finds what is wrong, names it, and is quiet about what is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from citybrain_datasets.checking import CityReport, check, check_city
from citybrain_datasets.city import City
from citybrain_datasets.signals import Signal

DAYS, WIDTH = 14, 12
STEP = pd.Timedelta("15min")
STEPS = DAYS * 96
START = pd.Timestamp("2024-03-18 23:15", tz="UTC")  # the clocks of Amsterdam go forward on the 31st


def healthy() -> np.ndarray:
    """Speeds ``[time, node]`` of a ring road: each node is like its neighbours, and all have noise."""
    random = np.random.default_rng(3)
    waves = np.cumsum(random.normal(0, 3, (STEPS, WIDTH)), axis=0)
    smooth = sum(np.roll(waves, shift, axis=1) for shift in (-1, 0, 1))
    return (90 + 30 * np.tanh(smooth / 40) + random.normal(0, 1, (STEPS, WIDTH))).astype(np.float32)


def city(values: np.ndarray, order: np.ndarray | None = None) -> City:
    ids = [f"n{i}" for i in range(values.shape[1])]
    nodes = pd.DataFrame({"lat": 52.0, "lon": 4.0, "name": "", "name_zh": "", "owner": "", "cell": ""}, index=ids)
    ring = [ids[i] for i in (range(len(ids)) if order is None else order)]
    pairs = [(a, b) for k in (1, -1, 2, -2) for a, b in zip(ring, np.roll(ring, k), strict=True)]
    edges = pd.DataFrame(pairs, columns=["source", "target"]).assign(distance_m=300.0, bearing_deg=np.nan)
    signal = Signal("speed", "road", START, STEP, values)
    return City("toy", "Europe/Amsterdam", {"road": nodes}, {"road-road": edges}, {"speed": signal})


def found(report: CityReport) -> set[str]:
    return {finding.check for finding in report.findings if finding.severity != "note"}


def test_a_healthy_city_has_no_findings() -> None:
    report = check_city(city(healthy()))
    assert found(report) == set()
    (summary,) = report.signals
    assert (summary.missing, summary.stuck_nodes, summary.out_of_range) == (0, 0, 0)


def stuck(values: np.ndarray) -> None:
    values[400:500, 3] = values[400, 3]


def stuck_at_zero(values: np.ndarray) -> None:
    values[400:500, 3] = 0


def silent(values: np.ndarray) -> None:
    values[:, 3] = np.nan


def mostly_missing(values: np.ndarray) -> None:
    values[: int(0.6 * STEPS), 3] = np.nan


def outage(values: np.ndarray) -> None:
    values[200:400] = np.nan


def impossible(values: np.ndarray) -> None:
    values[7, 3] = 999


def hour_that_never_was(values: np.ndarray) -> None:
    ends = pd.date_range(START, periods=STEPS, freq=STEP)
    hour = (ends > pd.Timestamp("2024-03-31 02:00", tz="UTC")) & (ends <= pd.Timestamp("2024-03-31 03:00", tz="UTC"))
    values[hour] = np.nan


@pytest.mark.parametrize(
    ("spoil", "name", "node"),
    [
        (stuck, "stuck", "n3"),
        (stuck_at_zero, "stuck", "n3"),
        (silent, "never-reports", "n3"),
        (mostly_missing, "missing", "n3"),
        (outage, "gap", None),
        (impossible, "out-of-range", "n3"),
        (hour_that_never_was, "daylight-saving", None),
    ],
)
def test_each_fault_is_found_and_placed(spoil: Callable[[np.ndarray], None], name: str, node: str | None) -> None:
    values = healthy()
    spoil(values)
    report = check_city(city(values))
    assert found(report) == {name}
    assert [f.column for f in report.findings if f.check == name] == [node]


def test_a_standstill_of_everybody_is_no_stuck_sensor() -> None:
    values = healthy()
    values[400:500] = values[400]
    assert "stuck" not in found(check_city(city(values)))


def test_runs_are_found_across_the_blocks_of_a_large_city(monkeypatch: pytest.MonkeyPatch) -> None:
    values = healthy()
    stuck(values)
    values[500:700, 5] = np.nan
    whole = check_city(city(values))
    for rows in (1, 7, 64):
        monkeypatch.setattr("citybrain_datasets.runs.BLOCK_VALUES", rows * WIDTH)
        assert check_city(city(values)).as_dict() == whole.as_dict()


def test_nodes_in_another_order_than_the_graph_are_doubted() -> None:
    order = np.random.default_rng(1).permutation(WIDTH)
    assert found(check_city(city(healthy(), order))) == {"node-order"}


def test_isolated_and_misplaced_nodes_are_named() -> None:
    toy = city(healthy())
    edges = toy.edges["road-road"]
    edges = edges[(edges["source"] != "n4") & (edges["target"] != "n4")]
    nodes = toy.nodes["road"].copy()
    nodes.loc["n7", ["lat", "lon"]] = [4.0, 52.0]
    report = check_city(toy.replace(edges={"road-road": edges}, nodes={"road": nodes}))
    assert {(f.check, f.row) for f in report.findings} == {("isolated", "n4"), ("places", "n7")}


def test_a_city_without_a_value_is_an_error() -> None:
    report = check_city(city(np.full((STEPS, WIDTH), np.nan, dtype=np.float32)))
    assert [f.check for f in report.errors] == ["missing"]


def test_a_city_that_cannot_be_opened_is_a_report_of_errors() -> None:
    report = check("no-such-city")
    assert report.as_dict()["ok"] is False
    assert report.errors[0].check == "contract"
