"""Listeners are told of every forecast, once."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack

import httpx
import pytest

from citybrain_serving.errors import TooManyListeners
from citybrain_serving.safety.keys import KeyRing
from citybrain_serving.safety.roles import Role
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.snapshot import Snapshot
from citybrain_serving.stream import Stream


def events(response: httpx.Response):
    """Events of a stream as (name, id, data)."""
    found: dict[str, str] = {}
    for line in response.iter_lines():
        if not line and found:
            yield found.get("event"), found.get("id"), json.loads(found["data"])
            found = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value


def test_a_listener_is_told_now_and_with_every_forecast(warm, service):
    service.stream.publish(service.snapshot)
    with warm.stream("GET", "/v1/stream") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        told = events(response)
        first = [next(told), next(told)]
        assert {data["task"] for _, _, data in first} == {"congestion", "pm25"}
        assert warm.get(first[0][2]["href"]).json()["issued"] == first[0][2]["issued"]
        late = {"id": "r0", "signal": "speed", "time": "2026-03-17T00:05:00Z", "value": 3}
        warm.post("/v1/observations", json={"observations": [late]})
        service.step()
        name, seen, data = next(told)
        assert (name, data["task"], data["issued"]) == ("forecast", "congestion", "2026-03-17T00:05:00Z")
        assert set(seen.split(".")) == {forecast.digest for forecast in service.snapshot.forecasts.values()}
        service.stream.close()
        assert list(told) == []  # PM2.5 was computed again from the same hours, and came out the same


def test_a_listener_that_comes_back_is_not_told_twice(warm, service):
    service.stream.publish(service.snapshot)
    with warm.stream("GET", "/v1/stream") as response:
        told = events(response)
        half, whole = next(told)[1], next(told)[1]
    with warm.stream("GET", "/v1/stream", headers={"Last-Event-ID": half}) as response:
        _, seen, data = next(events(response))
        assert (data["task"], seen) == ("pm25", whole)
    late = {"id": "r0", "signal": "speed", "time": "2026-03-17T00:05:00Z", "value": 3}
    warm.post("/v1/observations", json={"observations": [late]})
    service.step()
    with warm.stream("GET", "/v1/stream", headers={"Last-Event-ID": whole}) as response:
        told = events(response)
        _, seen, data = next(told)
        assert data["task"] == "congestion"
        service.stream.close()
        assert list(told) == []
    assert set(seen.split(".")) == {forecast.digest for forecast in service.snapshot.forecasts.values()}


def test_a_stream_ends_in_time_so_that_keys_are_shown_again(warm, service):
    service.stream.lasting = 0.05
    service.stream.publish(service.snapshot)
    with warm.stream("GET", "/v1/stream") as response:
        assert [data["task"] for _, _, data in events(response)] == ["congestion", "pm25"]


def test_no_more_listeners_than_agreed(warm, service):
    service.stream.most = 0
    answer = warm.get("/v1/stream")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    with pytest.raises(TooManyListeners):
        service.stream.admit("local")


def test_one_caller_leaves_room_for_others(bundles, tmp_path, live):
    settings = Settings(store=str(tmp_path / "s.sqlite"), clock="observations", open_to_public=True, streams_each=2)
    service = Service(bundles.values(), settings)
    text = KeyRing(service.store.engine).create("screen", Role.VIEWER)[1]
    service.stream.publish(Snapshot({}, None))  # type: ignore[arg-type]  # the time is not looked at
    with live(service, lifespan="off") as base, httpx.Client(base_url=base, timeout=30) as http, ExitStack() as open_:
        for _ in range(2):
            assert open_.enter_context(http.stream("GET", "/v1/stream")).status_code == 200
        refused = http.get("/v1/stream")
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:citybrain:problem:too-many-streams")
        assert refused.headers["retry-after"] == "5"
        keyed = http.stream("GET", "/v1/stream", headers={"Authorization": f"Bearer {text}"})
        assert open_.enter_context(keyed).status_code == 200
        service.stream.close()
    service.close()


def test_a_slow_listener_gets_the_newest_only():
    async def listen() -> list[Snapshot]:
        stream, heard = Stream(), []
        snapshots = [Snapshot({}, None) for _ in range(3)]  # type: ignore[arg-type]  # the time is not looked at
        stream.publish(snapshots[0])
        async for snapshot in stream.snapshots("local"):
            heard.append(snapshots.index(snapshot))
            if len(heard) == 1:
                stream.publish(snapshots[1])
                stream.publish(snapshots[2])
            else:
                stream.close()
        return heard

    assert asyncio.run(listen()) == [0, 2]
