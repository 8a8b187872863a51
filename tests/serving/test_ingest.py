"""Every reading has one defined outcome, through the public door."""

from __future__ import annotations

import httpx
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest

from citybrain_serving.service import Service
from citybrain_serving.settings import Settings

ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}
TIME = "2026-03-17T00:05:00Z"
GOOD = {"id": "r0", "signal": "speed", "time": TIME, "value": 42.5}


def send(client: httpx.Client, *rows: dict) -> httpx.Response:
    return client.post("/v1/observations", json={"observations": list(rows)})


def stored(service: Service, signal: str = "speed", time: str = TIME) -> list[float]:
    at = pd.Timestamp(time)
    return service.store.read(signal, at, at).values[0].tolist()


def stream(**columns: object) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"signal": "noise"}, "unknown_signal"),
        ({"id": "r99"}, "unknown_sensor"),
        ({"id": "a0"}, "unknown_sensor"),
        ({"value": None}, "not_a_number"),
        ({"value": 251}, "out_of_range"),
        ({"value": -1}, "out_of_range"),
        ({"value": "42"}, "malformed"),
        ({"value": True}, "malformed"),
        ({"id": 7}, "malformed"),
        ({"extra": 1}, "malformed"),
        ({"unit": "mph"}, "wrong_unit"),
        ({"time": "2026-03-17T00:05:00"}, "naive_time"),
        ({"time": "yesterday"}, "bad_time"),
        ({"time": "2026-03-17T00:06:00Z"}, "off_the_clock"),
        ({"time": "2026-03-17T00:05:00.5Z"}, "off_the_clock"),
        ({"signal": "pm25", "id": "a0", "value": 60, "time": TIME}, "off_the_clock"),
        ({"time": "2027-03-17T00:00:00Z"}, "from_the_future"),
        ({"time": "2025-03-17T00:00:00Z"}, "too_old"),
    ],
)
def test_a_bad_reading_is_refused_and_a_good_one_beside_it_kept(service, client, change, reason):
    assert send(client, {**GOOD, "id": "r5"}).status_code == 200  # sets the replayed clock
    answer = send(client, GOOD, {**GOOD, "id": "r1", **change})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["accepted"], body["refused"]) == (1, 1)
    assert body["refused_by_reason"] == {reason: 1}
    assert body["refusals"][0]["row"] == 1
    assert body["refusals"][0]["detail"]
    assert stored(service)[0] == 42.5
    assert np.isnan(stored(service)[1])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("r0", "a reading must be a JSON object"),
        ({"id": "r0", "signal": "speed"}, "time, value must be given"),
        ({**GOOD, "lane": 1}, "there is no member 'lane' in a reading, only id, signal, time, value, unit"),
        ({**GOOD, "id": 7}, "id must be a string"),
        ({**GOOD, "unit": 7}, "unit must be a string"),
        ({**GOOD, "value": "fast"}, "value must be a number"),
    ],
)
def test_a_malformed_reading_says_what_is_wrong_with_it(client, row, says):
    refused = client.post("/v1/observations", json={"observations": [row]}).json()["refusals"]
    assert refused == [{"row": 0, "reason": "malformed", "detail": says}]


@pytest.mark.parametrize(("unit", "status"), [("ug/m3", 200), ("μg/m³", 200), ("mg/m³", 422)])
def test_another_spelling_is_the_same_unit_and_another_unit_is_not(client, unit, status):
    row = {"id": "a0", "signal": "pm25", "time": "2026-03-17T00:00:00Z", "value": 30, "unit": unit}
    assert client.post("/v1/observations", json={"observations": [row]}).status_code == status


def test_when_nothing_is_acceptable_nothing_changes(service, client):
    answer = send(client, {**GOOD, "id": "r99"}, {**GOOD, "signal": "noise"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [r["row"] for r in answer.json()["refusals"]] == [0, 1]
    assert service.store.newest() == {}


def test_repeats_and_contradictions(service, client):
    first = send(client, GOOD, GOOD, {**GOOD, "value": 43}).json()
    assert (first["accepted"], first["repeated"], first["refused_by_reason"]) == (1, 1, {"conflict": 1})
    again = send(client, GOOD, {**GOOD, "value": 44}).json()
    assert (again["accepted"], again["repeated"], again["refused_by_reason"]) == (0, 1, {"conflict": 1})
    assert again["refusals"][0]["row"] == 1
    assert stored(service)[0] == 42.5


def test_late_and_out_of_order_readings_are_kept(service, client):
    late = "2026-03-17T00:00:00Z"
    assert send(client, GOOD).json()["accepted"] == 1
    assert send(client, {**GOOD, "time": late, "value": 40}).json()["accepted"] == 1
    assert stored(service, time=late)[0] == 40


def test_offsets_name_the_same_instant(service, client):
    send(client, {**GOOD, "time": "2026-03-17T08:05:00+08:00"})
    assert stored(service)[0] == 42.5


def test_colons_that_are_written_otherwise_are_no_key(service, client):
    body = orjson.dumps({"observations": [GOOD]}).replace(b"05:00Z", b"05\\u003a00Z")
    headers = {"Content-Type": "application/json"}
    assert client.post("/v1/observations", content=body, headers=headers).json()["accepted"] == 1
    assert stored(service)[0] == 42.5


def test_columns_where_one_string_stands_for_all(service, client):
    body = {"signal": "speed", "time": TIME, "id": ["r0", "r2"], "value": [42.5, 30], "unit": "km/h"}
    assert client.post("/v1/observations", json=body).json()["accepted"] == 2
    assert stored(service)[2] == 30


def test_arrow(service, client):
    times = pa.array([pd.Timestamp(TIME)] * 3, pa.timestamp("ms", "UTC"))
    signals = pa.array(["speed"] * 3).dictionary_encode()
    body = stream(id=["r0", "r99", None], signal=signals, time=times, value=[42.5, 1.0, 2.0])
    answer = client.post("/v1/observations", content=body, headers=ARROW).json()
    assert (answer["accepted"], answer["refused_by_reason"]) == (1, {"unknown_sensor": 1, "malformed": 1})
    assert stored(service)[0] == 42.5


def test_arrow_times_without_a_zone_are_refused(client):
    times = pa.array([pd.Timestamp(TIME).tz_localize(None)], pa.timestamp("us"))
    body = stream(id=["r0"], signal=["speed"], time=times, value=[42.5])
    answer = client.post("/v1/observations", content=body, headers=ARROW)
    assert answer.status_code == 422
    assert answer.json()["refused_by_reason"] == {"naive_time": 1}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "no JSON"),
        (b"[]", "JSON object"),
        (b'{"observations": 3}', "must be a list"),
        (b'{"observations": [], "more": 1}', "more, observations"),
        (b'{"value": [1], "id": ["r0"]}', "signal, time"),
        (b'{"value": [1, 2], "id": ["r0"], "signal": "speed", "time": "x"}', "differ in length"),
        (b'{"value": [NaN]}', "no JSON"),
        (b'{"observations": [], "observations": []}', "'observations' is given twice"),
        (b'{"observations": [{"id": "a:b", "value": 1, "v\\u0061lue": 2}]}', "'value' is given twice"),
        (b'{"value": [1], "id": "r0", "signal": "speed", "time": "x", "id": "r1"}', "'id' is given twice"),
        (b"[" * 500 + b"]" * 500, "nested too deeply"),
    ],
)
def test_malformed_json_says_what_is_wrong(client, body, says):
    answer = client.post("/v1/observations", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert says in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"no arrow", stream(id=["r0"]), stream(id=[1], signal=[2], time=[3], value=[4])])
def test_malformed_arrow_says_what_is_wrong(client, body):
    answer = client.post("/v1/observations", content=body, headers=ARROW)
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_truth_values_in_arrow_are_no_numbers(client):
    times = pa.array([pd.Timestamp(TIME)], pa.timestamp("s", "UTC"))
    answer = client.post(
        "/v1/observations", content=stream(id=["r0"], signal=["speed"], time=times, value=[True]), headers=ARROW
    )
    assert (answer.status_code, answer.json()["detail"]) == (400, "column value: is bool, must be a number")


def test_other_formats_are_refused(client):
    assert client.post("/v1/observations", content=b"id;value", headers={"Content-Type": "text/csv"}).status_code == 415
    gzip = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert client.post("/v1/observations", content=b"x", headers=gzip).status_code == 415


@pytest.fixture
def narrow(tmp_path, bundles):
    settings = Settings(store=str(tmp_path / "s.sqlite"), clock="observations", max_body_bytes=2048, max_readings=9)
    made = Service(bundles.values(), settings)
    yield made
    made.close()


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_not_read(narrow, live, announced):
    body = b'{"observations": [' + b" " * 4096 + b"]}"
    with live(narrow, lifespan="off") as base:
        content = body if announced else iter([body[:1000], body[1000:]])
        answer = httpx.post(f"{base}/v1/observations", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert "2048" in answer.json()["detail"]


def test_too_many_readings_in_one_body(narrow, live):
    body = {"signal": "speed", "id": "r0", "time": TIME, "value": [1] * 10}
    with live(narrow, lifespan="off") as base:
        answer = httpx.post(f"{base}/v1/observations", json=body)
    assert answer.status_code == 400
    assert "at most 9" in answer.json()["detail"]


def test_outcomes_are_counted(client):
    send(client, GOOD, GOOD, {**GOOD, "value": 300})
    text = client.get("/metrics").text
    for outcome in ("accepted", "repeated", "out_of_range"):
        assert f'citybrain_readings_total{{outcome="{outcome}"}} 1.0' in text
    assert 'citybrain_readings_stored_total{signal="speed"} 1.0' in text


def test_the_future_by_the_systems_clock(tmp_path, bundles, live):
    service = Service(bundles.values(), Settings(store=str(tmp_path / "s.sqlite")))
    ahead = (pd.Timestamp.now("UTC").floor("5min") + pd.Timedelta(minutes=10)).isoformat()
    with live(service, lifespan="off") as base:
        answer = httpx.post(f"{base}/v1/observations", json={"observations": [{**GOOD, "time": ahead}]})
    assert answer.status_code == 422
    assert answer.json()["refused_by_reason"] == {"from_the_future": 1}
    assert service.store.newest() == {}
    service.close()


def test_late_readings_are_counted(client):
    assert send(client, GOOD).json()["late"] == 0
    late = {**GOOD, "time": "2026-03-17T00:00:00Z"}
    told = send(client, late, {**GOOD, "id": "r1"}).json()
    assert (told["accepted"], told["late"]) == (2, 1)
    assert send(client, late).json()["late"] == 0
    assert "citybrain_readings_late_total 1.0" in client.get("/metrics").text
