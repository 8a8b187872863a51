"""Weather forecasts: handed in, kept, read by the models that read them, and told of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper

from citybrain_datasets.task import Task
from citybrain_datasets.windows import WindowSource
from citybrain_models.bundle import Bundle
from citybrain_serving.errors import FleetError
from citybrain_serving.fleet import Fleet
from citybrain_serving.inputs import newest_window
from citybrain_serving.readings import readings_from_json, weather_from_json
from citybrain_serving.safety.ledger import _description
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

END = pd.Timestamp("2026-03-17", tz="UTC")
HOUR = pd.Timedelta(hours=1)
AIR = "/v1/forecasts/pm25"
GOOD = {"id": "city", "signal": "temperature", "time": "2026-03-17T01:00:00Z", "value": 9.5}

Tell = Callable[..., dict]


@pytest.fixture(scope="module")
def reading(city, bundles, bundle_of) -> dict[str, Bundle]:
    """The bundles of the city, that of PM2.5 with a network that reads the temperature of the hours ahead."""
    task = Task.model_validate({**bundles["pm25"].task.model_dump(), "known_future": ("temperature",)})
    plain = bundle_of(city, task)
    return {**bundles, "pm25": replace(plain, model=leaning(plain.model, task))}


def leaning(model: bytes, task: Task) -> bytes:
    """The network with ten µg/m³ more for each standard deviation by which an hour ahead is warmer than the mean."""
    graph = onnx.load_from_string(model).graph
    graph.node[-1].output[0] = "before"
    first, last = -2 * task.horizon, -task.horizon  # what is known of the future ends the calendar: values, then mask
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in {
            "from": [first], "to": [last], "second": [1], "around": [1, 3], "strength": np.float32(10)
        }.items()
    )  # fmt: skip
    graph.node.extend(
        [
            helper.make_node("Slice", ["time", "from", "to", "second"], ["warmth"]),
            helper.make_node("Mul", ["warmth", "strength"], ["lean"]),
            helper.make_node("Unsqueeze", ["lean", "around"], ["leaning"]),
            helper.make_node("Add", ["before", "leaning"], ["quantiles"]),
        ]
    )
    graph.input.append(helper.make_tensor_value_info("time", TensorProto.FLOAT, ["batch", "calendar"]))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def settings_of(folder, **changes: object) -> Settings:
    return Settings(store=str(folder / "store.sqlite"), clock="observations", **changes)


@pytest.fixture
def service(tmp_path, reading) -> Iterator[Service]:
    made = Service(reading.values(), settings_of(tmp_path))
    yield made
    made.close()


def body(issued: pd.Timestamp, *, value: float = 9.5, leads: tuple[int, ...] = (1, 2, 3, 4)) -> dict:
    """An hourly temperature ahead of ``END``."""
    times = [(END + lead * HOUR).isoformat() for lead in leads]
    columns = {"id": "city", "signal": "temperature", "time": times, "value": [value] * len(times)}
    return {"issued": issued.isoformat(), **columns}


@pytest.fixture
def tell(client: httpx.Client) -> Tell:
    def sent(issued: pd.Timestamp = END - HOUR, **given: object) -> dict:
        answer = client.post("/v1/weather-forecasts", json=body(issued, **given))
        assert answer.status_code == 200, answer.text
        return answer.json()

    return sent


def test_a_forecast_that_is_handed_in_is_read_and_told_of(service: Service, warm, tell, reading):
    without = warm.get(AIR).json()
    assert without["source"] == "model"
    assert without["inputs"]["weather"] == {"issued": [], "age_minutes": None, "signals": {"temperature": 0}}
    assert 'citybrain_weather_age_seconds{task="pm25"} +Inf' in warm.get("/metrics").text
    told = tell(value=13.0)
    assert told == {
        "issued": "2026-03-16T23:00:00Z", "accepted": 4, "repeated": 0, "refused": 0, "refused_by_reason": {},
        "refusals": [], "read_by": {"temperature": ["pm25"]},
    }  # fmt: skip
    service.cycle.run(touched={"temperature ahead"})
    given = warm.get(AIR).json()
    assert given["inputs"]["weather"] == {
        "issued": ["2026-03-16T23:00:00Z"], "age_minutes": 60, "signals": {"temperature": 1},
    }  # fmt: skip
    assert 'citybrain_weather_age_seconds{task="pm25"} 3600.0' in warm.get("/metrics").text
    scaler = reading["pm25"].statistics.scalers["temperature"]
    moved = 10 * (13.0 - scaler.mean) / scaler.std
    np.testing.assert_allclose(np.array(given["values"]) - np.array(without["values"]), moved, atol=0.011)


def test_the_cycle_is_told_and_computes_only_what_reads_it(service: Service, warm, tell):
    before = service.snapshot.forecasts
    heard: list[object] = []
    service.runner.notify = heard.append
    tell()
    assert heard == [["temperature ahead"]]
    after = service.cycle.run(touched=heard[0]).forecasts
    assert after["congestion"] is before["congestion"]
    assert after["pm25"].digest != before["pm25"].digest
    tell()
    assert len(heard) == 1  # the same again concerns nobody


def test_a_forecast_is_kept_over_a_restart_and_in_the_history(service: Service, warm, tell, tmp_path, reading):
    tell(value=13.0)
    made = service.step().forecasts["pm25"]
    again = Service(reading.values(), settings_of(tmp_path))
    assert again.step().forecasts["pm25"].digest == made.digest
    again.close()
    assert service.history.find("pm25", made.issued).inputs == made.inputs
    assert made.inputs.weather.issued == (END - HOUR,)


def test_of_several_the_newest_that_could_be_known_counts(service: Service, warm, tell):
    tell(END - 6 * HOUR, value=2.0)
    tell(END - 3 * HOUR, value=4.0, leads=(2,))
    tell(END, value=6.0, leads=(3,))
    tell(END + pd.Timedelta(minutes=1), value=8.0)
    tell(END - 6 * HOUR, value=2.0)
    outlook = service.weather.outlook(service.cycle.forecasters["pm25"].features, END)
    np.testing.assert_array_equal(outlook.future["temperature"][:, 0], [2, 4, 6, 2])
    assert outlook.issued == (END, END - 3 * HOUR, END - 6 * HOUR)
    earlier = service.weather.outlook(service.cycle.forecasters["pm25"].features, END - HOUR)
    np.testing.assert_array_equal(earlier.future["temperature"][:, 0], [np.nan, 2, 4, 2])


def test_an_old_forecast_is_not_read(service: Service, warm, tell, tmp_path, reading):
    tell(END - 6 * HOUR)
    short = Service(reading.values(), settings_of(tmp_path, weather_hours=5))
    assert short.step().forecasts["pm25"].inputs.weather.issued == ()
    refused = short.take_weather(*weather_from_json(json.dumps(body(END - 6 * HOUR)).encode()))
    assert refused.refused == {"too_old": 4}
    short.close()


def test_serving_and_training_read_the_same_future(service: Service, warm, city, reading):
    """Given as the forecast what was to be measured: at the air's step and held at a finer one."""
    end, features = END - 6 * HOUR, reading["pm25"].features()
    ahead = city.signals["temperature"].between(end, end + 4 * HOUR)
    rows = [
        {"id": "city", "signal": "temperature", "time": str(time), "value": float(value)}
        for time, (value,) in zip(ahead.times, ahead.values, strict=True)
    ]
    service.take_weather(*weather_from_json(json.dumps({"issued": str(end), "forecasts": rows}).encode()))
    finer = {**reading["congestion"].task.model_dump(), "known_future": ("temperature",)}
    for made in (features, replace(reading["congestion"], task=Task.model_validate(finer)).features()):
        for issue in (end, end + pd.Timedelta(minutes=25))[: 1 + (made.task.name == "congestion")]:
            theirs = WindowSource.of_city(made, city).window(pd.DatetimeIndex([issue]))
            ours = newest_window(service.store, made, issue, service.weather.outlook(made, issue))
            np.testing.assert_array_equal(ours.future["temperature"], theirs.future["temperature"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"signal": "noise"}, "unknown_signal"),
        ({"signal": "speed", "id": "r0"}, "unknown_signal"),
        ({"id": "a0"}, "unknown_sensor"),
        ({"value": None}, "not_a_number"),
        ({"value": 61}, "out_of_range"),
        ({"value": "9"}, "malformed"),
        ({"extra": 1}, "malformed"),
        ({"unit": "K"}, "wrong_unit"),
        ({"time": "2026-03-17T01:00:00"}, "naive_time"),
        ({"time": "tomorrow"}, "bad_time"),
        ({"time": "2026-03-17T01:30:00Z"}, "off_the_clock"),
        ({"time": "2026-03-16T22:00:00Z"}, "not_ahead"),
        ({"time": "2026-04-02T00:00:00Z"}, "too_far_ahead"),
        ({"value": 9.75}, "conflict"),
    ],
)
def test_a_bad_value_is_refused_and_a_good_one_beside_it_kept(warm, change, reason):
    issued = (END - HOUR).isoformat()
    answer = warm.post("/v1/weather-forecasts", json={"issued": issued, "forecasts": [GOOD, {**GOOD, **change}]})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["accepted"], told["refused_by_reason"]) == (1, {reason: 1})
    assert told["refusals"][0]["row"] == 1
    assert told["refusals"][0]["detail"]
    text = warm.get("/metrics").text
    assert f'citybrain_weather_values_total{{outcome="{reason}"}} 1.0' in text
    assert f'citybrain_readings_total{{outcome="{reason}"}}' not in text


@pytest.mark.parametrize(("issued", "reason"), [(END + 25 * HOUR, "from_the_future"), (END - 25 * HOUR, "too_old")])
def test_a_forecast_from_the_future_or_out_of_date_is_refused_whole(warm, issued, reason):
    sent = {"issued": str(issued), "forecasts": [{**GOOD, "time": str(issued)}]}
    answer = warm.post("/v1/weather-forecasts", json=sent)
    assert answer.status_code == 422
    assert answer.json()["refused_by_reason"] == {reason: 1}


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"forecasts": [GOOD]}, "'issued' must be"),
        ({"issued": "2026-03-17T00:00:00", "forecasts": [GOOD]}, "'issued' must be"),
        ({"issued": 1_773_705_600, "forecasts": [GOOD]}, "'issued' must be"),
        ({"issued": str(END), "forecasts": GOOD}, "'forecasts' must be a list"),
        ({"issued": str(END), "observations": [GOOD]}, "it has observations"),
        ([GOOD], "JSON object"),
    ],
)
def test_a_body_that_is_no_forecast_says_what_is_wrong(client, sent, says):
    answer = client.post("/v1/weather-forecasts", json=sent)
    assert answer.status_code == 400
    assert says in answer.json()["detail"]
    form = {"Content-Type": "text/csv"}
    assert client.post("/v1/weather-forecasts", content=b"id;value", headers=form).status_code == 415


def test_a_forecast_moves_no_clock_and_is_no_observation(service: Service, client, tell):
    tell(END)
    assert service.clock.now() is None
    assert service.store.newest() == {}


def test_a_model_that_reads_none_says_so(tmp_path, bundles, live, rows):
    plain = Service(bundles.values(), settings_of(tmp_path))
    plain.take(readings_from_json(json.dumps({"observations": rows(30)}).encode()))
    before = plain.step()
    with live(plain, lifespan="off") as base, httpx.Client(base_url=base, timeout=30) as client:
        told = client.post("/v1/weather-forecasts", json=body(END - HOUR)).json()
        assert (told["accepted"], told["read_by"]) == (4, {"temperature": []})
        assert plain.cycle.run(touched={"temperature ahead"}) is before
        assert client.get(AIR).json()["inputs"]["weather"] is None
    plain.close()


def test_the_audit_log_says_which_forecast_was_read(service: Service, warm, tell):
    tell()
    forecasts = service.step().forecasts
    assert _description(forecasts["pm25"])["weather_issued"] == ["2026-03-16T23:00:00Z"]
    assert "weather_issued" not in _description(forecasts["congestion"])


def test_forecasts_of_what_is_long_over_are_forgotten(service: Service, warm, tell):
    tell()
    assert service.weather.forget(END + 2 * HOUR) == 1
    outlook = service.weather.outlook(service.cycle.forecasters["pm25"].features, END)
    np.testing.assert_array_equal(outlook.future["temperature"][:, 0], [np.nan, 9.5, 9.5, 9.5])


def test_a_bundle_whose_weather_nobody_can_hand_in_is_not_admitted(reading, bundles):
    def without(bundle: Bundle) -> Bundle:
        placing = {name: node for name, node in bundle.placing.items() if name != "temperature"}
        return replace(bundle, placing=placing, task=bundle.task.model_copy(update={"inputs": ()}))

    fleet = Fleet.of([without(bundles["pm25"])])
    with pytest.raises(FleetError, match="reads temperature, which is not stored here"):
        fleet.admit(replace(reading["pm25"], task=reading["pm25"].task.model_copy(update={"inputs": ()})))


def test_replicas_answer_from_the_same_forecast(location, reading, rows):
    made = [Service(reading.values(), Settings(store=location, clock="observations")) for _ in range(2)]
    for each in made:
        each.leadership.start()
    one, other = made
    other.take(readings_from_json(json.dumps({"observations": rows(30)}).encode()))
    other.take_weather(*weather_from_json(json.dumps(body(END - HOUR)).encode()))
    computed = one.step().forecasts["pm25"]
    shown = other.step().forecasts["pm25"]
    assert computed.inputs.weather.issued == (END - HOUR,)
    assert (shown.digest, shown.inputs) == (computed.digest, computed.inputs)
    for each in made:
        each.close()
