"""Lanes of a road that come in messages of their own become what they would be in one, or are told why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import permutations

import httpx
import numpy as np
import orjson
import pandas as pd
import pytest
import sqlalchemy as sa

from citybrain_datasets.city import City
from citybrain_datasets.signals import Signal, Ticks
from citybrain_serving.database import transaction
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.standards.ingesting import ingested
from citybrain_serving.standards.ngsi_in import readings_from_ngsi
from citybrain_serving.tables import lanes

NOW = pd.Timestamp("2026-03-16T00:06", tz="UTC")
TIME = "2026-03-16T00:05:00Z"
AT = pd.Timestamp(TIME)
FIVE = pd.Timedelta(minutes=5)

Send = Callable[..., dict]


def entity(lane: object, node: str = "r1", **attributes: object) -> dict:
    about = {"id": f"loop-{lane}", "type": "TrafficFlowObserved", "refRoadSegment": f"urn:ngsi-ld:RoadSegment:{node}"}
    return about | {"dateObserved": TIME, "laneId": lane} | attributes


@pytest.fixture
def flowing(city: City, bundle_of, bundles):
    """The congestion bundle of a city whose roads have one to three lanes, and where flow is measured, too."""
    roads = city.nodes["road"].assign(lanes=[3.0, 2.0, float("nan"), 1.0, 1.0, 1.0])
    speed = city.signals["speed"]
    flow = Signal("flow", "road", speed.start, speed.step, np.ones_like(speed.values))
    widened = city.replace(nodes={**city.nodes, "road": roads}, signals={**city.signals, "flow": flow})
    task = bundles["congestion"].task
    bundle = bundle_of(widened, task)
    placing, clocks = {**bundle.placing, "flow": "road"}, {**bundle.clocks, "flow": Ticks(5)}
    return bundle_of(widened, task, placing=placing, clocks=clocks)


@pytest.fixture
def service(flowing, location, clock) -> Iterator[Service]:
    clock.time = NOW
    with closing(Service([flowing], Settings(store=location), clock=clock)) as made:
        made.leadership.start()
        yield made


@pytest.fixture
def send(service: Service) -> Send:
    """What becomes of a message with these entities."""
    return lambda *entities: ingested(service, orjson.dumps(entities), readings_from_ngsi)


def stored(service: Service, signal: str, node: int = 1, at: pd.Timestamp = AT) -> float:
    return float(service.store.read(signal, at, at).values[0, node])


def waiting(service: Service) -> int:
    with transaction(service.store.engine) as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(lanes)) or 0)


def counted(service: Service, outcome: str) -> float:
    return service.telemetry.registry.get_sample_value("citybrain_readings_total", {"outcome": outcome}) or 0


def test_lanes_in_any_order_become_what_they_are_in_one_message(service, send):
    three = [
        entity(1, "r0", averageVehicleSpeed=30, intensity=40),
        entity(2, "r0", averageVehicleSpeed=60, intensity=20),
        entity(3, "r0", intensity=0),  # nobody drives there, so that there is no speed
    ]
    for step, order in enumerate(permutations(three)):
        at = AT - (step + 1) * FIVE
        told = [send({**one, "dateObserved": at.isoformat()}) for one in order]
        assert [answer["waiting"] for answer in told[:2]] == [
            len({*one} & {"averageVehicleSpeed", "intensity"}) for one in order[:2]
        ]
        assert sum(answer["accepted"] for answer in told) == 2
        assert all(answer["refused"] == 0 for answer in told)
        assert (stored(service, "speed", 0, at), stored(service, "flow", 0, at)) == (40, 720)
    send(*three)
    assert (stored(service, "speed", 0), stored(service, "flow", 0)) == (40, 720)


def test_a_lane_that_waits_is_told_of_and_survives_a_start(service, flowing, clock, send):
    told = send(entity(1, averageVehicleSpeed=30))
    assert [told[key] for key in ("accepted", "repeated", "waiting", "refused")] == [0, 0, 1, 0]
    assert counted(service, "waiting") == 1
    assert np.isnan(stored(service, "speed"))
    with closing(Service([flowing], service.settings, clock=clock)) as again:
        other = ingested(again, orjson.dumps([entity(2, averageVehicleSpeed=50)]), readings_from_ngsi)
    assert (other["accepted"], other["waiting"]) == (1, 0)
    assert stored(service, "speed") == 40


def test_a_lane_that_comes_twice_counts_once(service, send):
    first, second = entity(1, intensity=10), entity(2, intensity=30)
    assert send(first)["waiting"] == 1
    assert send(first)["repeated"] == 1
    assert send_refused(service, entity(1, intensity=11))["refused_by_reason"] == {"conflict": 1}
    assert send(second)["accepted"] == 1
    assert stored(service, "flow") == 480
    for again in (first, second):
        told = send(again)
        assert (told["accepted"], told["repeated"], told["refused"]) == (0, 1, 0)
    assert send_refused(service, entity(2, intensity=31))["refused_by_reason"] == {"conflict": 1}


def test_flows_that_come_after_the_speed_change_nothing(service, send):
    for lane, speed in ((1, 30), (2, 80)):
        send(entity(lane, averageVehicleSpeed=speed))
    assert stored(service, "speed") == 55
    for lane, flow in ((1, 40), (2, 10)):
        assert send(entity(lane, intensity=flow))["refused"] == 0
    assert send(entity(1, averageVehicleSpeed=30))["repeated"] == 1
    assert (stored(service, "speed"), stored(service, "flow")) == (55, 600)


def test_lanes_wait_for_so_long_and_no_longer(service, send, clock):
    send(entity(1, averageVehicleSpeed=30, intensity=10))
    clock.time = AT + pd.Timedelta(minutes=60)
    assert send(entity(2, intensity=20))["accepted"] == 1
    clock.time += pd.Timedelta(minutes=1)
    late = send_refused(service, entity(2, averageVehicleSpeed=50))
    assert late["refused_by_reason"] == {"partial": 1}
    assert "lane 2 of 'r1' came later than the 60 min that lanes wait for each other" in late["refusals"][0]["detail"]
    service.lanes.forget(clock.time)
    assert waiting(service) == 0
    assert counted(service, "partial") == 2  # the one that came late, and the one that had waited for it


def send_refused(service: Service, *entities: dict) -> dict:
    """What the sender is told of a message of which nothing was taken."""
    with pytest.raises(Exception, match="none of") as told:
        ingested(service, orjson.dumps(entities), readings_from_ngsi)
    return told.value.extra


def test_what_waited_in_vain_is_given_up_in_the_course_of_things(service, send, clock):
    send(entity(1, averageVehicleSpeed=30))
    for _ in range(26):
        service.step(())
        clock.time += FIVE
    assert (waiting(service), counted(service, "partial")) == (0, 1)


def test_a_road_that_was_told_of_already_waits_for_no_lane(service, send):
    whole = entity(0, intensity=90)
    del whole["laneId"]
    assert send(whole)["accepted"] == 1
    told = send_refused(service, entity(1, intensity=40))
    assert told["refusals"][0]["detail"].endswith("came without the others, and its road was told of already")
    assert send(entity(3, "r2", intensity=1), entity(1, "r2", intensity=1))["waiting"] == 2
    assert waiting(service) == 2


def test_lanes_of_another_direction_do_not_join(service, send):
    send(entity(1, intensity=4, laneDirection="forward"))
    told = send_refused(service, entity(2, intensity=4, laneDirection="backward"))
    assert told["refused_by_reason"] == {"partial": 1}
    assert send(entity(2, intensity=4, laneDirection="forward"))["accepted"] == 1


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"node": "r99"}, "unknown_sensor"),
        ({"dateObserved": "2026-03-16T00:04:00Z"}, "off_the_clock"),
        ({"dateObserved": "2025-03-16T00:05:00Z"}, "too_old"),
        ({"intensity": -1}, "out_of_range"),
        ({"intensity": None}, "not_a_number"),
    ],
)
def test_a_lane_that_is_not_sound_does_not_wait(service, changed, reason):
    told = send_refused(service, entity(**{"lane": 1, "node": "r1", "intensity": 4, **changed}))
    assert told["refused_by_reason"] == {reason: 1}
    assert waiting(service) == 0


def test_a_name_that_no_database_takes_is_a_name_all_the_same(service, send):
    assert send(entity("le\0ft", intensity=4))["waiting"] == 1
    assert send(entity("right", intensity=4, laneDirection="\0"))["accepted"] == 1


def test_lanes_that_reach_two_replicas_become_one_road(flowing, database, live, clock):
    clock.time = NOW
    made = [Service([flowing], Settings(store=database), clock=clock) for _ in range(2)]
    with live(made[0], lifespan="off") as one, live(made[1], lifespan="off") as other:
        first = httpx.post(f"{one}/v1/ngsi-ld/notifications", json=entity(1, averageVehicleSpeed=30)).json()
        second = httpx.post(f"{other}/v1/ngsi-ld/notifications", json=entity(2, averageVehicleSpeed=50)).json()
    assert (first["waiting"], second["accepted"]) == (1, 1)
    assert stored(made[0], "speed") == 40
    for each in made:
        each.close()


def test_without_patience_lanes_come_in_one_message(flowing, tmp_path, clock):
    clock.time = NOW
    settings = Settings(store=str(tmp_path / "s.sqlite"), lane_minutes=0)
    with closing(Service([flowing], settings, clock=clock)) as service:
        assert send_refused(service, entity(1, intensity=4))["refused_by_reason"] == {"partial": 1}
        assert ingested(service, orjson.dumps([entity(1, intensity=4), entity(2, intensity=4)]), readings_from_ngsi)[
            "accepted"
        ]
