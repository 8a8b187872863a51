"""Sensors that repeat themselves: kept, told, counted, and treated as missing."""

from __future__ import annotations

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain_datasets.signals import KINDS, Signal, Ticks
from citybrain_serving.errors import StoreUnavailable
from citybrain_serving.fleet import Channel
from citybrain_serving.readings import readings_from_json
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.stuck import PLAUSIBLE, Steadiness

END = pd.Timestamp("2026-03-17", tz="UTC")
LONG = int(PLAUSIBLE["speed"].hours * 12)
"""Steps of five minutes after which a speed is doubted."""


def repeated(value: float, steps: int, *, node: str = "r0", signal: str = "speed", minutes: int = 5, until=END):
    """Readings of one sensor that says the same ``steps`` times, the last one at ``until``."""
    times = [until - pd.Timedelta(minutes=minutes * k) for k in range(steps)][::-1]
    return [{"id": node, "signal": signal, "time": t.isoformat(), "value": value} for t in times]


def send(client, rows: list[dict]) -> dict:
    answer = client.post("/v1/observations", json={"observations": rows})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_stuck_reading_is_stored_told_counted_and_no_forecast_rests_on_it(service: Service, client, rows):
    send(client, [row for row in rows(30) if row["id"] != "r0" or row["signal"] != "speed"])
    told = send(client, repeated(41.5, LONG + 3))
    assert (told["accepted"], told["refused"], told["doubted"]) == (LONG + 3, 0, 3)
    assert told["doubted_by_reason"] == {"stuck": 3}
    assert [doubt["row"] for doubt in told["doubts"]] == [LONG, LONG + 1, LONG + 2]
    assert told["doubts"][0]["detail"] == "speed of 'r0' has been 41.5 for over 8 hours"
    assert service.store.read("speed", END, END).values[0, 0] == 41.5
    forecast = service.step().forecasts["congestion"]
    assert forecast.observed[0] == 41.5  # the last one that was believed
    assert forecast.observed_age[0] == 3
    text = client.get("/metrics").text
    assert 'citybrain_readings_doubted_total{reason="stuck",signal="speed"} 3.0' in text
    assert 'citybrain_sensors_stuck{signal="speed"} 1.0' in text


def test_a_sensor_that_moves_again_is_believed_at_once(service: Service, client):
    send(client, repeated(41.5, LONG + 3))
    later = END + pd.Timedelta(minutes=5)
    told = send(client, repeated(38.0, 1, until=later))
    assert told["doubted"] == 0
    forecast = service.step().forecasts["congestion"]
    assert forecast.observed[0] == 38
    assert service.steadiness.stuck("speed") == 0


@pytest.mark.parametrize(
    ("signal", "node", "value", "hours"),
    [("pm25", "a0", 12.0, 14), ("speed", "r0", 60.0, 7.9), ("temperature", "city", 3.0, 23)],
)
def test_what_may_last_is_not_doubted(client, signal, node, value, hours):
    minutes = 5 if signal == "speed" else 60
    told = send(client, repeated(value, int(hours * 60 / minutes), node=node, signal=signal, minutes=minutes))
    assert told["doubted"] == 0


def test_nothing_doubted_is_a_silent_sensor(client):
    """A value that comes again after silence is not the same value going on."""
    half = LONG // 2
    send(client, repeated(41.5, half, until=END - pd.Timedelta(hours=6)))
    assert send(client, repeated(41.5, half))["doubted"] == 0


def test_what_is_doubted_is_known_again_after_a_start(tmp_path, bundles, service: Service, client):
    send(client, repeated(41.5, LONG + 3))
    again = Service(bundles.values(), Settings(store=service.settings.store, clock="observations"))
    try:
        at = again.trusted.read("speed", END - pd.Timedelta(minutes=15), END).values[:, 0]
        np.testing.assert_array_equal(at, [41.5, np.nan, np.nan, np.nan])
    finally:
        again.close()


def test_a_late_reading_after_a_start_does_not_make_stuck_sensors_sound(service: Service, client, bundles):
    """A standby that hears of the past first, of another sensor, knows what is stuck now all the same."""
    send(client, repeated(41.5, LONG + 3))
    standby = Service(bundles.values(), Settings(store=service.settings.store, clock="observations"))
    try:
        late = END - pd.Timedelta(hours=3)
        row = {"id": "r1", "signal": "speed", "time": late.isoformat(), "value": 50.0}
        standby.take(readings_from_json(orjson.dumps({"observations": [row]})))
        after = END + pd.Timedelta(minutes=5)
        row = {"id": "r0", "signal": "speed", "time": after.isoformat(), "value": 41.5}
        standby.take(readings_from_json(orjson.dumps({"observations": [row]})))
        assert standby.steadiness.stuck("speed") == 1
        assert np.isnan(standby.trusted.read("speed", END, after).values[:, 0]).all()
    finally:
        standby.close()


def test_another_replicas_readings_are_seen(service: Service, client, bundles):
    """What was stored by somebody else since is caught up with when it is read."""
    send(client, repeated(41.5, LONG, until=END - pd.Timedelta(minutes=10)))
    other = Service(bundles.values(), Settings(store=service.settings.store, clock="observations"))
    try:
        other.trusted.read("speed", END, END)
        send(client, repeated(41.5, 2))
        assert np.isnan(other.trusted.read("speed", END, END).values[0, 0])
    finally:
        other.close()


def test_readings_are_acknowledged_also_where_the_past_cannot_be_read(service: Service, client, monkeypatch):
    def fail(*_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(service.store, "read", fail)
    assert send(client, repeated(41.5, 3))["accepted"] == 3


def test_every_rule_is_about_a_signal_that_exists_and_says_why():
    assert set(PLAUSIBLE) <= set(KINDS)
    assert all(rule.why and rule.hours > 0 for rule in PLAUSIBLE.values())


class Nothing:
    """A store that holds nothing."""

    def read(self, name: str, first: pd.Timestamp, last: pd.Timestamp) -> Signal:
        return Signal(name, "road", first, pd.Timedelta(hours=1), np.full((0, 1), np.nan, np.float32))

    def newest(self) -> dict:
        return {}


@given(st.lists(st.integers(0, 2), min_size=1, max_size=80))
def test_exactly_the_readings_past_the_limit_are_doubted(values):
    hours = PLAUSIBLE["pm25"].hours
    steadiness = Steadiness({"pm25": Channel("pm25", "air", pd.Index(["a"]), Ticks(60))}, Nothing())
    begun = 0
    for hour, value in enumerate(values):
        begun = begun if hour and value == values[hour - 1] else hour
        stuck = steadiness.observe("pm25", 3600 * hour, np.array([0]), np.array([value], np.float32))
        assert stuck.tolist() == [hour - begun >= hours]


@pytest.mark.parametrize(("signal", "value"), [("flow", 0.0), ("precipitation", 0.0), ("humidity", 100.0)])
def test_a_quantity_may_rest_at_its_end(signal, value):
    steadiness = Steadiness({signal: Channel(signal, "road", pd.Index(["a"]), Ticks(60))}, Nothing())
    verdicts = [
        steadiness.observe(signal, 3600 * hour, np.array([0]), np.array([value], np.float32))[0] for hour in range(200)
    ]
    assert not any(verdicts)
