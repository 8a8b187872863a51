"""The congestion forecast as an input of the air's: read, told of, and done without."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from citybrain_datasets.signals import Signal
from citybrain_datasets.task import Task
from citybrain_models.bundle import Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.cycle import FeaturedForecaster
from citybrain_serving.fleet import Fleet
from citybrain_serving.inputs import InputHealth, TrafficHealth
from citybrain_serving.readings import readings_from_json
from citybrain_serving.safety.ledger import _description
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.snapshot import Forecast
from citybrain_serving.traffic_ahead import TrafficForecasts

END = pd.Timestamp("2026-03-17", tz="UTC")
FIVE, HOUR = pd.Timedelta(minutes=5), pd.Timedelta(hours=1)
STEPS = 2
NOTHING = TrafficHealth(None, "", "speed", 0.0)


@pytest.fixture(scope="module")
def reading(city, bundles, bundle_of) -> dict[str, Bundle]:
    """The bundles of the city, that of PM2.5 with a network that reads the speed of two hours ahead."""
    task = Task.model_validate({**bundles["pm25"].task.model_dump(), "context_ahead": ("speed", STEPS)})
    plain = bundle_of(city, task)
    return {**bundles, "pm25": replace(plain, model=leaning(plain.model))}


def leaning(model: bytes) -> bytes:
    """The network with ten µg/m³ less for each standard deviation by which, on the mean of roads and hours ahead, the
    speed is forecast above the usual."""
    graph = onnx.load_from_string(model).graph
    graph.node[-1].output[0] = "before"
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in {
            "from": [-2 * STEPS], "to": [-STEPS], "channels": [2], "all": [1, 2], "fourth": [3],
            "strength": np.float32(-10),
        }.items()
    )  # fmt: skip
    graph.node.extend(
        [
            helper.make_node("Slice", ["x_road", "from", "to", "channels"], ["ahead"]),
            helper.make_node("ReduceMean", ["ahead", "all"], ["faster"], keepdims=1),
            helper.make_node("Mul", ["faster", "strength"], ["lean"]),
            helper.make_node("Unsqueeze", ["lean", "fourth"], ["leaning"]),
            helper.make_node("Add", ["before", "leaning"], ["quantiles"]),
        ]
    )
    graph.input.append(helper.make_tensor_value_info("x_road", TensorProto.FLOAT, ["batch", "road", "feature"]))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


Serve = Callable[..., Service]


@pytest.fixture
def serve(tmp_path, rows) -> Iterator[Serve]:
    """A service over some bundles that knows thirty hours, of some signals up to another time than the others."""
    made: list[Service] = []

    def served(*bundles: Bundle, forecasters=None, **until: pd.Timestamp) -> Service:
        settings = Settings(store=str(tmp_path / "store.sqlite"), clock="observations")
        made.append(Service(bundles, settings, forecasters=forecasters))
        for signal in ("speed", "pm25", "temperature"):
            known = rows(30, until.get(signal, END), (signal,))
            made[-1].take(readings_from_json(json.dumps({"observations": known}).encode()))
        return made[-1]

    yield served
    for each in made:
        each.close()


class Failing:
    """A forecaster that cannot."""

    def __init__(self, bundle: Bundle):
        self.features, self.task = bundle.features(), bundle.task

    def forecast(self, window):
        raise RuntimeError("no")


def test_the_air_reads_the_congestion_forecast_and_says_which(serve: Serve, reading, bundles):
    service = serve(*reading.values())
    roads, air = (service.step().forecasts[name] for name in ("congestion", "pm25"))
    half_an_hour = TrafficHealth(END, roads.bundle, "speed", 0.5)  # half of the first hour is enough for its mean
    assert (air.source, air.inputs.traffic) == ("model", half_an_hour)
    features = reading["pm25"].features()
    usual = features.profile("speed", pd.DatetimeIndex([END]))[0, features.task.history]
    faster = (roads.values[:, :, 1].mean(axis=1) - usual).mean() / features.statistics.scalers["speed"].std
    without = serve(bundles["pm25"]).step().forecasts["pm25"]
    np.testing.assert_allclose(air.values - without.values, -10 * faster / STEPS, rtol=1e-3, atol=1e-4)
    assert np.abs(air.values - without.values).min() > 0.05
    assert _description(air)["traffic_issued"] == "2026-03-17T00:00:00Z"
    assert _description(air)["traffic_bundle"] == roads.bundle


@pytest.mark.parametrize("nobody", ["none is served", "another signal is", "the profile answers"])
def test_without_a_forecast_of_the_model_it_says_so(serve: Serve, reading, bundles, bundle_of, city, nobody):
    forecasters: dict[str, FeaturedForecaster] = {"pm25": OnnxForecaster(reading["pm25"])}
    others = []
    if nobody == "another signal is":
        flow = Signal("flow", "road", *(getattr(city.signals["speed"], n) for n in ("start", "step", "values")))
        other = bundles["congestion"].task.model_copy(update={"target": "flow"})
        others = [bundle_of(city.replace(signals={**city.signals, "flow": flow}), other)]
        forecasters["congestion"] = OnnxForecaster(others[0])
    if nobody == "the profile answers":
        others, forecasters["congestion"] = [reading["congestion"]], Failing(reading["congestion"])
    air = serve(*others, reading["pm25"], forecasters=forecasters).step().forecasts["pm25"]
    assert (air.source, air.inputs.traffic) == ("model", NOTHING)
    without = serve(bundles["pm25"]).step().forecasts["pm25"]
    np.testing.assert_array_equal(air.values, without.values)
    assert _description(air)["traffic_issued"] is None


def test_what_is_measured_and_forecast_after_the_issue_time_changes_nothing(serve: Serve, reading, rows):
    """Computed again half an hour later, the air rests on the congestion forecast of its own issue time, from the
    history: also after a restart."""
    service = serve(*reading.values(), speed=END - HOUR, pm25=END - HOUR, temperature=END - HOUR)
    before = service.step().forecasts["pm25"]
    late = [{**row, "value": 20.0} for row in rows(0.5, END - HOUR / 2, ("speed",)) if row["time"] > str(END - HOUR)]
    service.take(readings_from_json(json.dumps({"observations": late}).encode()))
    after = service.cycle.run().forecasts
    assert after["congestion"].issued == END - HOUR / 2
    assert after["pm25"] is not before
    assert after["pm25"].digest == before.digest
    assert before.inputs.traffic.issued == before.issued
    again = serve(*reading.values(), speed=END - HOUR, pm25=END - HOUR, temperature=END - HOUR)
    assert again.cycle.run().forecasts["pm25"].digest == before.digest
    kept = again.history.find("pm25", before.issued)
    assert (kept.inputs, kept.digest) == (before.inputs, before.digest)


def test_a_later_congestion_forecast_of_the_same_hour_is_taken_up(serve: Serve, reading, rows):
    service = serve(*reading.values(), speed=END - FIVE)
    first = service.step().forecasts["pm25"]
    assert first.inputs.traffic.issued == END - FIVE
    assert first.inputs.traffic.share == 0  # five of twelve steps tell no hour
    assert service.cycle.run(touched=()).forecasts["pm25"] is first
    told = readings_from_json(json.dumps({"observations": rows(0, END, ("speed",))}).encode())
    service.take(told)
    second = service.cycle.run(touched=()).forecasts["pm25"]
    assert second.inputs.traffic == TrafficHealth(END, reading["congestion"].version, "speed", 0.5)


def test_answers_say_which_and_nothing_where_none_is_read(serve: Serve, reading, bundles, live):
    for chosen in (reading, bundles):
        service = serve(*chosen.values())
        service.step()
        with live(service, lifespan="off") as base:
            inputs = {t: httpx.get(f"{base}/v1/forecasts/{t}", timeout=30).json()["inputs"] for t in chosen}
        assert "traffic" not in inputs["congestion"]
        told = {"signal": "speed", "issued": "2026-03-17T00:00:00Z", "bundle": "c0c0c0c0c0c0", "share": 0.5}
        assert inputs["pm25"].get("traffic") == (told if chosen is reading else None)
        assert ("traffic" in inputs["pm25"]) == (chosen is reading)


@given(lag=st.integers(0, 30), horizon=st.integers(1, 36), seed=st.integers(0, 99))
def test_hours_are_told_as_they_would_be_measured(reading, lag: int, horizon: int, seed: int):
    """The mean of an hour of which at least half is forecast, from a forecast of the hour or of some time before."""
    task = reading["congestion"].task.model_copy(update={"horizon": horizon})
    issued, nodes = END - lag * FIVE, 6
    values = np.random.default_rng(seed).uniform(10, 60, (nodes, horizon, 1)).repeat(3, axis=2).astype(np.float32)
    unknown = np.full(nodes, np.nan, np.float32)
    made = Forecast(task, issued, END, values, unknown, unknown, InputHealth(1.0, issued, {}), "b", "model")
    told = TrafficForecasts(Fleet.of(reading.values()), NeverAsked()).outlook(
        reading["pm25"].features(), END, {"congestion": made}
    )
    assert told is not None
    for hour in range(STEPS):
        covered = [step for step in range(horizon) if END + hour * HOUR < made.times[step] <= END + (hour + 1) * HOUR]
        mean = values[:, covered, 1].mean(axis=1) if len(covered) >= 6 else unknown
        np.testing.assert_allclose(told.values[hour], mean, rtol=1e-5)
    assert told.health == TrafficHealth(issued, "b", "speed", float(np.isfinite(told.values).mean()))


class NeverAsked:
    """A history in which nothing needs to be looked up."""

    def latest(self, task, first, last):
        raise AssertionError("what is published is known")
