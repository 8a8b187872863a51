"""What a person may write as a scenario, what it means on a city, and what they are told when it is wrong."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError
from citybrain_datasets.scenarios.actions import WARM_UP, Timetable, Window
from citybrain_datasets.scenarios.checking import check_places, check_weather
from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.mixed import random_scenario
from citybrain_datasets.scenarios.places import When, Where
from citybrain_datasets.scenarios.reading import read_scenarios
from citybrain_datasets.scenarios.resolve import resolve

OLD_TOWN = "Old Town district · 老城区"

GOOD = """\
version: 1
scenarios:
  - id: ring-60
    title: 60 km/h on the ring
    measures:
      - {lever: speed_limit, kmh: 60, where: {road_class: expressway}, when: {begin: 07:00, end: 10:00}, cost: 20}
      - {lever: closure, where: {segments: [R001, R002]}, cost: 5.5}
    weather: {case: 2025-03-20}
  - id: limits
    grid:
      v: [30, 40]
      where: [city, {district: "Old Town district · 老城区"}, {road_class: local}]
    measures: [{lever: speed_limit, kmh: $v, where: $where}]
  - id: drawn
    sample:
      count: 1000000
      seed: 4
      draw:
        picked: {subset: [{lever: coal, reduction: $r}, {lever: dust, reduction: $r}, {lever: odd_even}], size: [1, 3]}
        r: {uniform: [0.1, 0.5]}
    measures: [$picked]
    weather: {season: spring}
"""


@pytest.fixture(scope="module")
def city() -> City:
    return City.load("embedded")


def write(folder: Path, text: str, name: str = "s.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_scenarios_and_sweeps_is_one_long_sequence(tmp_path: Path) -> None:
    found = read_scenarios(write(tmp_path, GOOD))
    assert len(found) == 1 + 6 + 1_000_000
    ring = found[0]
    assert ring.cost == 25.5
    assert (ring.measures[0].when.begin, ring.measures[0].when.end) == (420, 600)
    # The last name of a grid runs fastest.
    assert [(s.measures[0].kmh, s.measures[0].where.whole_city) for s in found[1:7]] == [
        (v, whole) for v in (30, 40) for whole in (True, False, False)
    ]
    assert found[-1].id == "drawn/999999"
    assert 1 <= len(found[-1].measures) <= 3
    assert found[500_000] == next(islice(iter(found[500_000:500_001]), 1))
    assert Scenario.model_validate_json(ring.model_dump_json()) == ring


def test_json_lines_say_the_same(tmp_path: Path) -> None:
    lines = [
        {"version": 1, "id": "a", "measures": [{"lever": "odd_even"}]},
        {"id": "b", "grid": {"x": [1, 2]}, "measures": [{"lever": "demand", "factor": "$x"}]},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines)
    assert [s.id for s in read_scenarios(write(tmp_path, text, "s.jsonl"))] == ["a", "b/000000", "b/000001"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("kmh: 60,", "kmh: 600,", "line 6, measures.0.kmh: Input should be less than or equal to 150, not 600"),
        ("kmh: 60,", "kmh: 60 km/h,", "line 6, measures.0.kmh: Input should be a valid number, unable to parse"),
        ("measures: [", "measure: [", "unknown key; did you mean measures?"),
        ("segments: [R001", "segment: [R001", "line 7, measures.1.where.segment: unknown key; did you mean segments?"),
        (
            "begin: 07:00, end: 10:00",
            "begin: 7, end: 9",
            "line 6, measures.0.when.begin: 7 is no time of day; write HH:MM",
        ),
        ("segments: [R001, R002]", "segments: ", "line 7, measures.1.where: segments names nothing; leave it out"),
        ("kmh: 60,", "kmh: true,", "line 6, measures.0.kmh: true is no number"),
        ("kmh: 60,", "kmh: yes,", "line 6, measures.0.kmh: Input should be a valid number"),
        ("kmh: 60,", "kmh: 60, kmh: 70,", "line 6, scenarios.0.measures.0.kmh: this key stands twice"),
        ("kmh: 60,", f"kmh: {'9' * 5000},", "line 1: is no YAML: Exceeds the limit"),
        ("case: 2025-03-20", "case: 2025-02-30", "line 8, weather.case: Input should be a valid date"),
        ("case: 2025-03-20", "case: 20.03.2025", ", not '20.03.2025'; write YYYY-MM-DD"),
        ("[R001, R002]", "&a [*a]", "line 7, scenarios.0.measures.1.where.segments.0: contains itself"),
        ("[R001, R002]", "[" * 2000 + "]" * 2000, "line 1: is nested too deep"),
        ("cost: 20", "cost: .inf", "line 6, measures.0.cost: Input should be a finite number"),
        ("kmh: 60,", "kph: 60,", "line 6, measures.0.kph: unknown key; did you mean kmh?"),
        ("kmh: 60,", "kmh: 60, factor: 0.5,", "line 6, measures.0: give kmh or factor, and not both"),
        ("begin: 07:00", "begin: 7h", "line 6, measures.0.when.begin: '7h' is no time of day; write HH:MM"),
        ("lever: closure", "lever: closur", "line 7, measures.1: 'closur' is no lever; did you mean closure?"),
        ("lever: closure", "levr: closure", "line 7, measures.1: names no lever; known are closure, lane_closure"),
        ("case: 2025-03-20", "cse: 2025-03-20", "line 8, weather.cse: unknown key"),
        ("id: limits", "id: ring-60", "line 9, id: the id 'ring-60' stands already in s.yaml, line 3"),
        ("v: [30, 40]", "w: [30, 40]", "line 9: $v stands for nothing; known are w, where"),
        ("v: [30, 40]", "v: [3, 40]", "line 9, measures.0.kmh: in the sweep's first scenario, Input should be"),
        ("uniform: [0.1, 0.5]", "uniform: [0.9, 0.5]", ", sample.draw.r: the second number is below the first"),
        ("uniform: [0.1", "unifrom: [0.1", "sample.draw.r.unifrom: unknown key"),
        ("version: 1", "version: 2", "line 1, version: version 2 is not known; this program reads version 1"),
        ("scenarios:", "scenario:", "line 1: must be a mapping with `version` and a list `scenarios`"),
        ("    title:", "   title:", "line 4: is no YAML"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_field(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(CityError) as raised:
        read_scenarios(write(tmp_path, GOOD.replace(old, new, 1)))
    assert told in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "s.yaml"))


def test_a_polygon_of_latitudes_first_is_told_once_for_each_corner(tmp_path: Path) -> None:
    place = "{polygon: [[39.9, 116.4], [39.8, 116.5], [39.7, 116.3]]}"
    text = f"version: 1\nscenarios:\n- {{id: a, measures: [{{lever: closure, where: {place}}}]}}\n"
    with pytest.raises(CityError) as raised:
        read_scenarios(write(tmp_path, text))
    told = str(raised.value).splitlines()
    assert len(told) == 3
    assert all(line.endswith("; longitude stands before latitude") for line in told)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("s.csv", "id,lever\na,coal\n", "; scenarios are written in YAML or JSON Lines (.yaml, .yml, .jsonl, .ndjson)"),
        ("s.yaml", "", "s.yaml, line 1: is empty, and must be a mapping with `version` and a list `scenarios`"),
    ],
)
def test_a_file_that_holds_no_scenarios_says_what_would(tmp_path: Path, name: str, text: str, told: str) -> None:
    with pytest.raises(CityError) as raised:
        read_scenarios(write(tmp_path, text, name))
    assert str(raised.value).endswith(told)


def test_a_place_that_is_not_there_is_told_with_what_was_likely_meant(city: City) -> None:
    where = {"district": "Old Town", "road_class": "artrial", "segments": ["r001", "R999"], "owner": "nobody"}
    with pytest.raises(CityError) as raised:
        resolve(Where.model_validate(where), city)
    told = {problem.where + problem.what[:7]: problem.what for problem in raised.value.problems}
    assert told["where.district'Old To"].endswith(f"is not in city embedded; did you mean {OLD_TOWN}?")
    assert told["where.road_class'artria"].endswith("; did you mean arterial?")
    assert told["where.segments'r001' "].endswith("; did you mean R001?")
    assert told["where.segments'R999' "] == "'R999' is not in city embedded"
    assert "; known are South Bank West district" in told["where.owner'nobody"]


@pytest.mark.parametrize("name", ["s/000001", "s/000002", "s/1", "s/0000001", "other/000001"])
def test_an_id_that_a_sweep_gives_stands_once(tmp_path: Path, name: str) -> None:
    sweep = {"id": "s", "grid": {"f": [0.8, 0.9]}, "measures": [{"lever": "demand", "factor": "$f"}]}
    path = write(tmp_path, f'{{"id": "{name}"}}\n{json.dumps(sweep)}', "s.jsonl")
    if name == "s/000001":
        with pytest.raises(CityError, match=r"line 1, id: the id 's/000001' is one of the sweep's in s.jsonl, line 2"):
            read_scenarios(path)
    else:
        assert len({s.id for s in read_scenarios(path)}) == 3


def test_what_yaml_1_1_would_read_otherwise_is_read_as_it_is_written(tmp_path: Path) -> None:
    when = "when: {begin: 06:30, end: 10:00, days: off}"
    text = f"version: 1\nscenarios:\n- {{id: off, title: no, measures: [{{lever: odd_even, {when}}}]}}\n"
    (found,) = read_scenarios(write(tmp_path, text))
    measure = found.measures[0]
    assert (found.id, found.title, measure.when) == ("off", "no", When(begin="06:30", end="10:00", days="off"))
    assert not measure.exempt_electric


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[" * 200_000, "line 2: is nested too deep"),
        ('{"id": "a", "cost": ' + "9" * 5_000 + "}", "line 2: is no JSON: Exceeds the limit"),
        ('{"id": "a", "id": "b"}', "line 2, id: this key stands twice"),
    ],
)
def test_a_json_line_that_cannot_be_read_is_told(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(CityError) as raised:
        read_scenarios(write(tmp_path, '{"id": "x"}\n' + line, "s.jsonl"))
    assert told in str(raised.value)


def test_json_lines_may_begin_with_a_mark_and_hold_any_text(tmp_path: Path) -> None:
    lines = ['{"id": "a", "title": "one\u2028line"}', '{"id": "b"}']
    found = read_scenarios(write(tmp_path, "\ufeff" + "\r\n".join(lines), "s.jsonl"))
    assert [(s.id, s.title) for s in found] == [("a", "one\u2028line"), ("b", "")]


def test_a_json_line_that_is_none_is_told_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(CityError, match=r"line 2: is no JSON"):
        read_scenarios(write(tmp_path, '{"id": "a"}\n{"id": "b"', "s.jsonl"))


def test_a_mistake_of_two_values_together_is_told_when_it_is_made(tmp_path: Path) -> None:
    times = {"b": ["07:00", "08:00"], "e": ["09:00", "08:00"]}
    measure = {"lever": "odd_even", "when": {"begin": "$b", "end": "$e"}}
    text = json.dumps({"id": "a", "grid": times, "measures": [measure]})
    found = read_scenarios(write(tmp_path, text, "s.jsonl"))
    assert len(found[:3]) == 3
    with pytest.raises(CityError, match=r"line 1, measures.0.when: in scenario 3 of the sweep a"):
        found[3]


LATE = """version: 1
scenarios:
- id: grid
  grid:
    place: [city, {segments: $road}]
    road: [R001, R002, R777]
    kmh: [30, 300]
  measures: [{lever: speed_limit, kmh: $kmh, where: $place}]
- id: drawn
  sample:
    count: 10000000
    draw:
      picked: {subset: [{lever: coal, reduction: $r}, {lever: closure, where: {segments: [$road]}}], size: [2, 2]}
      r: {uniform: [0.1, 1.5]}
      road: {choice: [R001, R888]}
      weather: {choice: [{season: spring}, {case: 2031-01-01}]}
  measures: [$picked]
  weather: $weather
"""


def test_every_value_of_a_sweep_is_checked_before_any_work(city: City, tmp_path: Path) -> None:
    with pytest.raises(CityError) as raised:
        read_scenarios(write(tmp_path, LATE))
    first, second = str(raised.value).splitlines()
    assert "line 3, measures.0.kmh: where $kmh is 300, Input should be less than or equal to 150" in first
    assert "line 9, measures.0.reduction: where $r is 1.5, Input should be less than or equal to 1" in second

    found = read_scenarios(write(tmp_path, LATE.replace("300", "50").replace("1.5", "0.5")))
    with pytest.raises(CityError) as raised:
        check_places(found, city)
    first, second = str(raised.value).splitlines()
    assert "'R777' is not in city embedded (sweep grid, where $road is 'R777')" in first
    assert "line 17, measures.1.where.segments: 'R888' is not in city embedded (sweep drawn, where $road is" in second
    with pytest.raises(CityError, match=r"line 18, weather: 2031-01-01 is not on record.*sweep drawn, where \$weather"):
        check_weather(found, city, Window())


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ({"grid": {"x": [1, "$y"], "y": [2, "$x"]}}, "names refer to each other in a circle"),
        ({"sample": {"count": 1, "draw": {"x": {"choice": ["$x"]}}}}, "names refer to each other in a circle"),
        ({"grid": {"x": [{"lever": "odd_even"}], **{n: list(range(9)) for n in "abcdefghijklmnopqrstuv"}}}, "at most"),
        ({"sample": {"count": 1, "draw": {"x": {"uniform": [0.9, 0.1]}}}}, "the second number is below the first"),
    ],
)
def test_a_sweep_that_stands_for_nothing_is_told_with_file_and_line(
    tmp_path: Path, sweep: dict[str, object], told: str
) -> None:
    names = sweep["grid"] if "grid" in sweep else sweep["sample"]["draw"]
    line = json.dumps({"id": "a", **sweep, "measures": [f"${name}" for name in names]})
    with pytest.raises(CityError, match=rf"s.jsonl, line 2.*: .*{told}"):
        read_scenarios(write(tmp_path, f'{{"id": "b"}}\n{line}', "s.jsonl"))


@pytest.mark.parametrize(
    "measure",
    [
        {"lever": "regional", "reduction": 0.1, "where": {"road_class": "local"}},
        {"lever": "signal_retiming", "when": {"begin": "07:00", "end": "08:00"}},
        {"lever": "closure", "where": {"segments": []}},
        {"lever": "closure", "where": {"district": None}},  # would close the whole city
        {"lever": "closure", "where": {"district": None, "road_class": "local"}},
        {"lever": "closure", "when": {"begin": "08:00", "end": "08:00"}},
    ],
)
def test_what_has_no_meaning_is_refused(measure: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Scenario.model_validate({"id": "a", "measures": [measure]})


def test_a_time_over_midnight_and_kinds_of_day() -> None:
    night = When.model_validate({"begin": "22:00", "end": "06:00", "days": "working"})
    assert [night.covers(60 * h, False) for h in (21, 22, 5, 6)] == [False, True, True, False]
    assert not night.covers(60 * 23, True)


def test_a_time_that_no_day_has_is_told_as_it_was_written() -> None:
    with pytest.raises(ValidationError, match="25:00 is no time of day"):
        When.model_validate({"begin": "25:00", "end": "09:00"})
    with pytest.raises(ValidationError, match="25:00 is no time of day"):
        Window(begin=1500)
    assert When.model_validate({"begin": "20:00", "end": "24:00"}).covers(23 * 60, off=False)


def test_steps_over_midnight_have_the_day_that_each_lies_on() -> None:
    shanghai = Calendar("Asia/Shanghai", "CN")
    night = Timetable.at(pd.Timestamp("2025-03-21 14:55", tz="UTC"), 8, shanghai)  # a Friday, 22:55 there
    assert (str(night), night.days) == ("22:55–00:55", "all")
    assert night.covered(When(days="off"))[WARM_UP:].tolist() == [False] * 4 + [True] * 4
    day = Timetable.at(pd.Timestamp("2025-10-01 01:00", tz="UTC"), 8, shanghai)  # a public holiday
    assert str(day) == "09:00–11:00 of a day off"
    assert str(Window().timetable()) == "07:00–09:00 of a working day"
    assert str(Window(begin=22 * 60, end=24 * 60).timetable()) == "22:00–24:00 of a working day"


def test_places_meet(city: City) -> None:
    roads = city.nodes["road"]
    town = resolve(Where(district=(OLD_TOWN,)), city)
    assert town.sum() == (roads["owner"] == OLD_TOWN).sum()
    local = resolve(Where(district=(OLD_TOWN,), road_class=("local",)), city)
    assert local.sum() == ((roads["owner"] == OLD_TOWN) & (roads["road_class"] == "local")).sum()
    assert resolve(Where(), city).all()
    assert resolve(Where(cell=(roads["cell"].iloc[0],)), city)[0]
    assert resolve(Where(segments=("R007",)), city).nonzero()[0].tolist() == [roads.index.get_loc("R007")]


def test_what_a_city_does_not_have_is_named(city: City) -> None:
    where = Where(segments=("R001", "R999"), owner=("Nobody",))
    with pytest.raises(CityError) as raised:
        resolve(where, city, "scenario a, measures.0.where")
    assert "scenario a, measures.0.where.segments: 'R999' is not in city embedded" in str(raised.value)
    assert "measures.0.where.owner: 'Nobody'" in str(raised.value)
    with pytest.raises(CityError, match="no road of city embedded lies there"):
        resolve(Where(polygon=((0, 0), (1, 0), (0, 1))), city)


def test_places_the_city_does_not_have_are_told_with_file_line_and_field(city: City, tmp_path: Path) -> None:
    """All of them at once, before anything is computed."""
    text = """version: 1
scenarios:
- id: nowhere
  measures:
  - {lever: closure, where: {segments: [R001]}}
  - lever: closure
    where:
      segments: [R999]
- id: atlantis
  grid: {v: [30, 40]}
  measures: [{lever: speed_limit, kmh: $v, where: {district: Atlantis}}]
"""
    with pytest.raises(CityError) as raised:
        check_places(read_scenarios(write(tmp_path, text)), city)
    first, second = str(raised.value).splitlines()
    path = tmp_path / "s.yaml"
    assert first == f"{path}, line 8, measures.1.where.segments: 'R999' is not in city embedded (scenario nowhere)"
    assert second.startswith(f"{path}, line 11, measures.0.where.district: 'Atlantis' is not")
    check_places(read_scenarios(write(tmp_path, GOOD)), city)


def test_weather_that_is_not_on_record_is_told_with_file_line_and_field(city: City, tmp_path: Path) -> None:
    asked = read_scenarios(write(tmp_path, GOOD.replace("case: 2025-03-20", "case: 2031-01-01")))
    with pytest.raises(CityError, match=r"s.yaml, line \d+, weather: 2031-01-01 is not on record; .*scenario "):
        check_weather(asked, city, Window())
    check_weather(read_scenarios(write(tmp_path, GOOD)), city, Window())
    many = read_scenarios(write(tmp_path, GOOD.replace("case: 2025-03-20", "ensemble: 1000")))
    with pytest.raises(CityError, match=r"line 8, weather: an ensemble of 1000 days, where only \d+ are on record"):
        check_weather(many, city, Window())
    check_weather(asked, city.replace(signals={}), Window())


@settings(deadline=None, max_examples=50)
@given(x=st.floats(123.1, 123.3), y=st.floats(30.9, 31.1), size=st.floats(0.005, 0.05))
def test_a_square_holds_what_lies_between_its_sides(x: float, y: float, size: float) -> None:
    city = City.load("embedded")
    lon, lat = (city.nodes["road"][c].to_numpy() for c in ("lon", "lat"))
    inside = (abs(lon - x) < size) & (abs(lat - y) < size)
    square = ((x - size, y - size), (x + size, y - size), (x + size, y + size), (x - size, y + size))
    if inside.any():
        np.testing.assert_array_equal(resolve(Where(polygon=square), city), inside)


@settings(deadline=None, max_examples=30)
@given(number=st.integers(0, 10_000))
def test_random_scenarios_are_sound_and_the_same_again(number: int) -> None:
    from citybrain_datasets.scenarios.actions import Window, compile_actions

    city = City.load("embedded")
    scenario = random_scenario(city, Window(), 1, number)
    assert scenario == random_scenario(city, Window(), 1, number)
    compile_actions(scenario, city, Window())


DOCS = Path(__file__).parents[2] / "docs"


def test_the_documented_examples_can_be_run(city: City, tmp_path: Path) -> None:
    from citybrain_datasets.scenarios.actions import Window, compile_actions

    text = (DOCS / "scenarios.md").read_text(encoding="utf-8")
    block = text.split("```yaml\n")[1].split("```")[0]
    sweeps = write(tmp_path, "version: 1\nscenarios:\n" + block)
    found = read_scenarios(DOCS / "scenarios-example.yaml", sweeps)
    assert len(found) == 6 + 6 + 100_000
    for scenario in found[:40]:
        compile_actions(scenario, city, Window())


def test_every_lever_is_documented() -> None:
    from citybrain_datasets.scenarios.language import AIR_LEVERS, TRAFFIC_LEVERS

    text = (DOCS / "scenarios.md").read_text(encoding="utf-8")
    assert [lever for lever in (*TRAFFIC_LEVERS, *AIR_LEVERS) if f"`{lever}`" not in text] == []
