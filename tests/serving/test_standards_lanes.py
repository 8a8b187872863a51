"""Readings of lanes become one of their road, or are refused as partial; never does one lane pass for all."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain_datasets.city import City
from citybrain_serving.database import migrate, open_engine
from citybrain_serving.lanes.combining import lane_count
from citybrain_serving.lanes.sites import Entry, Position, Site, SiteTable
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.standards.datex_in import readings_from_datex
from citybrain_serving.standards.ngsi_in import readings_from_ngsi

TIME = "2026-03-16T00:05:00Z"
NS = (
    'xmlns:d2="http://datex2.eu/schema/3/d2Payload" xmlns:com="http://datex2.eu/schema/3/common"'
    ' xmlns:roa="http://datex2.eu/schema/3/roadTrafficData" xmlns:loc="http://datex2.eu/schema/3/locationReferencing"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)


def entity(lane: object, **attributes: object) -> dict:
    return {
        "id": f"urn:ngsi-ld:TrafficFlowObserved:loop-{lane}",
        "type": "TrafficFlowObserved",
        "refRoadSegment": "urn:ngsi-ld:RoadSegment:r1",
        "dateObserved": TIME,
        "laneId": lane,
        **attributes,
    }


def quantity(kind: str, value: float, index: int, *, before: str = "", within: str = "", more: str = "") -> str:
    holder, leaf = {
        "TrafficFlow": ("vehicleFlow", "vehicleFlowRate"),
        "TrafficSpeed": ("averageVehicleSpeed", "speed"),
        "TrafficConcentration": ("occupancy", "percentage"),
    }[kind]
    return (
        f'<roa:physicalQuantity index="{index}"><roa:physicalQuantity xsi:type="roa:SinglePhysicalQuantity">{before}'
        f'<roa:basicData xsi:type="roa:{kind}">{within}<roa:{holder}{more}><com:{leaf}>{value}</com:{leaf}>'
        f"</roa:{holder}></roa:basicData></roa:physicalQuantity></roa:physicalQuantity>"
    )


def site(*quantities: str, table: str = "") -> bytes:
    default = f"<roa:measurementTimeDefault><roa:timeValue>{TIME}</roa:timeValue></roa:measurementTimeDefault>"
    return (
        f'<d2:container {NS}><d2:payload xsi:type="roa:MeasuredDataPublication"><roa:siteMeasurements>'
        f'<roa:measurementSiteReference targetClass="roa:MeasurementSite" id="r1" version="1"/>'
        f"{''.join(quantities)}{default}</roa:siteMeasurements></d2:payload>{table}</d2:container>"
    ).encode()


def on_lane(number: int) -> str:
    """Where a quantity is measured, as itself says it."""
    return (
        '<roa:pertinentLocation xsi:type="loc:PointLocation"><loc:supplementaryPositionalDescription><loc:carriageway>'
        f"<loc:carriageway>mainCarriageway</loc:carriageway><loc:lane><loc:laneNumber>{number}</loc:laneNumber>"
        "</loc:lane></loc:carriageway></loc:supplementaryPositionalDescription></roa:pertinentLocation>"
    )


def site_table(entries: dict[int, str], lanes: int | None = None, *, place: str = "r1", version: int = 1) -> str:
    """Where quantities are measured, as the table of sites says it."""
    known = "" if lanes is None else f"<roa:measurementSiteNumberOfLanes>{lanes}</roa:measurementSiteNumberOfLanes>"
    told = "".join(
        f'<roa:measurementSpecificCharacteristics index="{index}"><roa:measurementSpecificCharacteristics>{what}'
        "</roa:measurementSpecificCharacteristics></roa:measurementSpecificCharacteristics>"
        for index, what in entries.items()
    )
    return (
        '<d2:payload xsi:type="roa:MeasurementSiteTablePublication"><roa:measurementSiteTable id="t" version="1">'
        f'<roa:measurementSite id="{place}" version="{version}">{known}{told}</roa:measurementSite>'
        "</roa:measurementSiteTable>"
        "</d2:payload>"
    )


def lane_of(number: int) -> str:
    return f"<roa:specificLane><loc:laneNumber>{number}</loc:laneNumber></roa:specificLane>"


@pytest.fixture(scope="session")
def told(channels, listed):
    """Values and faults by signal of a body about roads of so many lanes."""

    def read(body: object, lanes: int | None = 2):
        if isinstance(body, bytes):
            translated = readings_from_datex(body, channels, 100, lambda _place: lanes)
        else:
            translated = readings_from_ngsi(orjson.dumps(body), channels, 100, lambda _place: lanes)
        rows = listed(translated)
        assert {row[0] for row in rows} <= {"r1"}
        return [(row[1], pytest.approx(row[3]), row[5]) for row in rows], translated

    return read


def test_lanes_of_a_message_are_added_up_and_averaged(told):
    body = [
        entity(1, intensity=40, averageVehicleSpeed=30, occupancy=0.2),
        entity(2, intensity=10, averageVehicleSpeed=80, occupancy=0.1),
    ]
    rows, translated = told(body)
    assert rows == [("speed", 40, None), ("flow", 600, None), ("occupancy", 0.15, None)]
    assert translated.sources[1] == (
        "urn:ngsi-ld:TrafficFlowObserved:loop-1#intensity + urn:ngsi-ld:TrafficFlowObserved:loop-2#intensity"
    )
    assert translated.ignored == {}


def test_speeds_whose_flows_are_not_all_told_have_a_plain_mean(told):
    rows, _ = told([entity(1, averageVehicleSpeed=30, intensity=5), entity(2, averageVehicleSpeed=80)])
    assert ("speed", 55, None) in rows


def test_a_lane_on_which_nobody_drives_needs_no_speed(told):
    rows, _ = told([entity(1, averageVehicleSpeed=30, intensity=5), entity(2, intensity=0)])
    assert rows == [("speed", 30, None), ("flow", 60, None)]


@pytest.mark.parametrize(("lanes", "lane"), [(2, 1), (None, 2), (3, "left")])
def test_a_lane_alone_is_not_its_road(told, lanes, lane):
    rows, translated = told([entity(lane, intensity=40, averageVehicleSpeed=30)], lanes)
    assert [row[2] for row in rows] == ["partial", "partial"]
    assert translated.readings.broken[0] == (
        f"speed of 'r1' is told of lane {lane} alone; its {lanes or 2} lanes are taken together"
    )


@pytest.mark.parametrize("lanes", [None, 1])
def test_a_lane_that_is_all_there_is_known_of_is_its_road(told, lanes):
    assert told([entity(1, intensity=40)], lanes)[0] == [("flow", 480, None)]


def test_a_lane_that_cannot_be_right_is_missing_from_its_road(told):
    rows, _ = told([entity(1, averageVehicleSpeed=30), entity(2, averageVehicleSpeed=900)], None)
    assert sorted(rows, key=lambda row: str(row[2])) == [("speed", 900, None), ("speed", 30, "partial")]


def test_a_reading_of_the_road_goes_before_those_of_its_lanes(told):
    whole = {key: value for key, value in entity(0, intensity=90).items() if key != "laneId"}
    rows, translated = told([entity(1, intensity=40), whole, entity(2, intensity=40)])
    assert rows == [("flow", 1080, None)]
    assert translated.ignored == {"values of single lanes beside that of their road": 2}


def test_lanes_of_both_directions_are_not_one_road(told):
    body = [entity(lane, intensity=4, laneDirection=way) for lane, way in ((1, "forward"), (2, "backward"))]
    assert [row[2] for row in told(body)[0]] == ["partial", "partial"]


def test_a_lane_told_twice_counts_once(told):
    body = [entity(1, intensity=40), entity(2, intensity=40), entity(1, intensity=40), entity(2, intensity=30)]
    rows, translated = told(body)
    assert rows == [("flow", 960, None), ("flow", 360, "conflict")]
    assert translated.ignored == {"values of lanes that were told already": 1}


def test_each_time_and_road_has_lanes_of_its_own(told):
    earlier = "2026-03-16T00:00:00Z"
    body = [entity(n, intensity=10 * n, dateObserved=at) for n in (1, 2) for at in (earlier, TIME)]
    assert told(body)[0] == [("flow", 360, None), ("flow", 360, None)]


def test_lanes_that_a_quantity_names_are_lanes(told):
    body = site(
        quantity("TrafficFlow", 480, 1, before=on_lane(1)),
        quantity("TrafficSpeed", 30, 2, before=on_lane(1)),
        quantity("TrafficFlow", 120, 3, before=on_lane(2)),
        quantity("TrafficSpeed", 80, 4, before=on_lane(2)),
        quantity("TrafficConcentration", 10, 5, before=on_lane(1)),
    )
    rows, translated = told(body)
    assert rows == [("flow", 600, None), ("speed", 40, None), ("occupancy", 0.1, "partial")]
    assert translated.sources[0] == "r1[1]#flow + r1[3]#flow"


def test_the_site_table_says_what_an_index_is(told):
    lorries = (
        "<roa:specificVehicleCharacteristics><com:vehicleType>lorry</com:vehicleType>"
        "</roa:specificVehicleCharacteristics>"
    )
    flows = [quantity("TrafficFlow", value, index) for index, value in ((1, 480), (2, 660), (3, 50))]
    rows, translated = told(site(*flows, table=site_table({1: lane_of(1), 2: lane_of(2), 3: lane_of(1) + lorries})))
    assert rows == [("flow", 1140, None)]
    assert translated.ignored == {"values of single vehicle classes": 1}
    whole = "<roa:specificLane><loc:laneUsage>allLanesCompleteCarriageway</loc:laneUsage></roa:specificLane>"
    assert told(site(*flows[:1], table=site_table({1: whole}, lanes=4)))[0] == [("flow", 480, None)]
    assert told(site(*flows[:1], table=site_table({1: lane_of(1)}, lanes=4)), None)[0] == [("flow", 480, "partial")]


def test_indexes_that_nothing_explains_are_lanes_where_the_road_has_as_many(told):
    body = site(quantity("TrafficFlow", 480, 1), quantity("TrafficFlow", 660, 2), quantity("TrafficSpeed", 30, 3))
    assert told(body)[0] == [("speed", 30, None), ("flow", 1140, None)]


@pytest.mark.parametrize("lanes", [None, 3])
def test_indexes_that_nothing_explains_are_partial(told, lanes):
    rows, translated = told(site(quantity("TrafficFlow", 480, 1), quantity("TrafficFlow", 660, 2)), lanes)
    assert rows == [("flow", 480, "partial"), ("flow", 660, "partial")]
    assert translated.readings.broken[1] == "nothing says what the 2 indexes with flow of 'r1' mean"


def test_indexes_of_other_methods_are_no_lanes(told):
    averages = ("arithmeticAverageOfSamplesInATimePeriod", "harmonicAverageOfSamplesInATimePeriod")
    values = [quantity("TrafficSpeed", 30, n, more=f' computationalMethod="{how}"') for n, how in enumerate(averages)]
    assert [row[2] for row in told(site(*values))[0]] == ["partial", "partial"]


def test_a_faulty_lane_is_missing_from_its_road(told):
    faulty = quantity("TrafficFlow", 660, 2).replace("<com:v", "<com:dataError>true</com:dataError><com:v")
    rows, translated = told(site(quantity("TrafficFlow", 480, 1), faulty))
    assert rows == [("flow", 480, "partial")]
    assert translated.ignored == {"values that their sender marks as faulty": 1}


def test_a_class_by_length_is_a_single_class(told):
    long = (
        "<roa:forVehiclesWithCharacteristicsOf><com:lengthCharacteristic><com:comparisonOperator>greaterThan"
        "</com:comparisonOperator><com:vehicleLength>5.6</com:vehicleLength></com:lengthCharacteristic>"
        "</roa:forVehiclesWithCharacteristicsOf>"
    )
    rows, translated = told(site(quantity("TrafficFlow", 480, 1), quantity("TrafficFlow", 60, 2, within=long)))
    assert rows == [("flow", 480, None)]
    assert translated.ignored == {"values of single vehicle classes": 1}


@pytest.fixture
def two_lanes(city: City, bundle_of, bundles, tmp_path) -> Iterator[Service]:
    roads = city.nodes["road"].assign(lanes=[2.0, 2.0, float("nan"), 1.0, 1.0, 1.0])
    widened = city.replace(nodes={**city.nodes, "road": roads})
    made = Service(
        [bundle_of(widened, bundles["congestion"].task)],
        Settings(store=str(tmp_path / "s.sqlite"), clock="observations"),
    )
    yield made
    made.close()


def test_over_http_the_city_says_how_many_lanes_a_road_has(two_lanes, live):
    count = lane_count(two_lanes.fleet.city)
    assert [count(road) for road in ("r0", "r2", "r3", "r99")] == [2, None, 1, None]
    both = [entity(1, averageVehicleSpeed=30, intensity=40), entity(2, averageVehicleSpeed=80, intensity=10)]
    with live(two_lanes, lifespan="off") as base:
        alone = httpx.post(f"{base}/v1/ngsi-ld/notifications", json=both[:1])
        split = [{**one, "laneDirection": way} for one, way in zip(both, ("forward", "backward"), strict=True)]
        apart = httpx.post(f"{base}/v1/ngsi-ld/notifications", json=split, headers={"Accept-Language": "zh"})
        together = httpx.post(f"{base}/v1/ngsi-ld/notifications", json=both)
        metrics = httpx.get(f"{base}/metrics").text
    assert (alone.status_code, alone.json()["waiting"], alone.json()["refused"]) == (200, 1, 0)
    assert apart.status_code == 422
    assert apart.json()["refused_by_reason"] == {"partial": 2}
    assert apart.json()["refusals"][0]["detail"].endswith("'r1' 的 speed 给出了两个方向的车道；一条道路只有一个方向")
    assert (together.json()["accepted"], together.json()["refused"]) == (1, 0)
    at = pd.Timestamp(TIME)
    assert two_lanes.store.read("speed", at, at).values[0, 1] == 40
    assert 'citybrain_readings_total{outcome="partial"} 2.0' in metrics
    assert 'citybrain_readings_total{outcome="waiting"} 1.0' in metrics


def alone(*tables: str) -> bytes:
    """Tables of sites in a body of their own."""
    return f"<d2:container {NS}>{''.join(tables)}</d2:container>".encode()


FLOWS = [quantity("TrafficFlow", value, index) for index, value in ((1, 480), (2, 660), (3, 50))]
LORRIES = (
    "<roa:specificVehicleCharacteristics><com:vehicleType>lorry</com:vehicleType></roa:specificVehicleCharacteristics>"
)
MEANT = {1: lane_of(1), 2: lane_of(2), 3: lane_of(1) + LORRIES}


@pytest.fixture
def table(location) -> Iterator[SiteTable]:
    engine = open_engine(location)
    migrate(engine)
    yield SiteTable(engine, ["r1", "r2"])
    engine.dispose()


def read_with(table: SiteTable, channels, body: bytes):
    return readings_from_datex(body, channels, 100, lambda _place: 2, table.known)


def test_a_table_that_came_before_says_what_an_index_is(table, channels, listed):
    told = read_with(table, channels, alone(site_table(MEANT, lanes=2)))
    assert (len(told.readings), dict(told.ignored)) == (0, {})
    assert table.remember(told.sites) == 1
    values = read_with(SiteTable(table.engine, table.places), channels, site(*FLOWS))
    assert [(row[1], row[3], row[5]) for row in listed(values)] == [("flow", 1140, None)]
    assert values.ignored == {"values of single vehicle classes": 1}


def test_the_table_of_another_version_explains_nothing(table, channels, listed):
    table.remember(read_with(table, channels, alone(site_table(MEANT, lanes=2, version=2))).sites)
    assert [row[5] for row in listed(read_with(table, channels, site(*FLOWS)))] == ["partial"] * 3
    table.remember(read_with(table, channels, alone(site_table(MEANT, lanes=2))).sites)  # the newest that came counts
    assert [row[3] for row in listed(read_with(table, channels, site(*FLOWS)))] == [1140]


def test_the_table_beside_the_values_goes_before_the_one_that_came_before(table, channels, listed):
    table.remember(read_with(table, channels, alone(site_table({1: lane_of(1)}, lanes=3))).sites)
    beside = site(*FLOWS, table=site_table(MEANT, lanes=2))
    assert [row[3] for row in listed(read_with(table, channels, beside))] == [1140]


def test_sites_of_this_city_are_remembered_and_no_others(table, channels):
    tables = [site_table({7: lane_of(n)}, lanes=n, place=f"r{n}") for n in (1, 2, 3)]
    assert table.remember(read_with(table, channels, alone(*tables)).sites) == 2
    known = table.known(["r1", "r2", "r3"])
    assert known == {f"r{n}": Site("1", n, {"7": Entry(Position((str(n),)))}) for n in (1, 2)}


@given(st.dictionaries(st.sampled_from(["r1", "r2"]), st.builds(
    Site, st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=100), st.none() | st.integers(0, 99),
    st.dictionaries(st.text(max_size=5), st.builds(
        Entry, st.builds(Position, st.lists(st.text(max_size=9), max_size=3).map(tuple), st.booleans()), st.booleans(),
    ), max_size=3),
)))  # fmt: skip
def test_what_is_remembered_is_what_was_told(sites):
    engine = open_engine("sqlite://")
    migrate(engine)
    table = SiteTable(engine, ["r1", "r2"])
    table.remember(sites)
    table.remember(sites)
    assert table.known(["r2", "r1"]) == sites
    engine.dispose()


def test_over_http_a_table_is_remembered_through_a_restart(two_lanes, live):
    def post(base: str, body: bytes) -> httpx.Response:
        return httpx.post(f"{base}/v1/datex2/measured-data", content=body, headers={"Content-Type": "application/xml"})

    speeds = [quantity("TrafficSpeed", value, index) for index, value in ((4, 30), (5, 50), (6, 20))]
    meant = {4: lane_of(1), 5: lane_of(2), 6: lane_of(1) + LORRIES}
    with live(two_lanes, lifespan="off") as base:
        before = post(base, site(*speeds))
        table = post(base, alone(site_table(meant, lanes=2), site_table({}, place="elsewhere")))
    assert before.json()["refused_by_reason"] == {"partial": 3}
    assert (table.status_code, table.json()["accepted"], table.json()["sites"]) == (200, 0, 1)
    again = Service([two_lanes.fleet.bundles["congestion"]], two_lanes.settings)
    with live(again, lifespan="off") as base:
        after = post(base, site(*speeds)).json()
    again.close()
    assert (after["accepted"], after["refused"], after["sites"]) == (1, 0, 0)
    assert after["ignored"] == {"values of single vehicle classes": 1}
