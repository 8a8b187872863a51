"""Whether a city has the places and the weather that scenario files name, told before hours of work on them."""

from __future__ import annotations

from collections.abc import Iterator

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.scenarios.actions import Window
from citybrain_datasets.scenarios.language import Demand, Scenario, Weather
from citybrain_datasets.scenarios.reading import MOST_PROBLEMS, Scenarios, Source
from citybrain_datasets.scenarios.resolve import Places
from citybrain_datasets.scenarios.weather import has_weather, weather_hours


def check_places(scenarios: Scenarios, city: City) -> None:
    """Raises :class:`CityError` with file, line and field of every place that ``city`` does not have; a sweep is judged
    by its first scenario."""
    places = Places(city)
    problems: list[Problem] = []
    for source, first in _firsts(scenarios):
        for number, measure in enumerate(first.measures):
            try:
                places(measure.where)
            except CityError as error:
                for problem in error.problems:
                    at: tuple[str | int, ...] = ("measures", number, *problem.where.split("."))
                    problems.append(source.problem(at, f"{problem.what} (scenario {first.id})"))
        if len(problems) > MOST_PROBLEMS:
            break
    if problems:
        raise CityError(problems)


def check_weather(scenarios: Scenarios, city: City, window: Window) -> None:
    """Raises :class:`CityError` with file, line and field of every weather that is not on the city's record; a sweep is
    judged by its first scenario. A city without any record takes what is assumed."""
    if not has_weather(city):
        return
    known: dict[Weather, str] = {}
    problems = []
    for source, first in _firsts(scenarios):
        if first.weather not in known:
            known[first.weather] = _missing(city, first.weather, window)
        if what := known[first.weather]:
            problems.append(source.problem(("weather",), f"{what} (scenario {first.id})"))
    if problems:
        raise CityError(problems)


def check_purposes(scenarios: Scenarios, city: City, known: bool) -> None:
    """Raises :class:`CityError` with file, line and field of every measure on trips of a purpose, where the trips of
    ``city`` have none; a sweep is judged by its first scenario."""
    if known:
        return
    problems = [
        source.problem(("measures", number, "purposes"), f"{no_purposes(city)} (scenario {first.id})")
        for source, first in _firsts(scenarios)
        for number, measure in enumerate(first.measures)
        if isinstance(measure, Demand) and measure.purposes is not None
    ]
    if problems:
        raise CityError(problems)


def no_purposes(city: City) -> str:
    return f"why people travel is not known in city {city.name}"


def _missing(city: City, weather: Weather, window: Window) -> str:
    """What a city lacks of a weather, empty where nothing."""
    try:
        weather_hours(city, weather, window)
    except CityError as error:
        return "; ".join(problem.what for problem in error.problems)
    return ""


def _firsts(scenarios: Scenarios) -> Iterator[tuple[Source, Scenario]]:
    """Each entry of the files with the first of its scenarios."""
    for source in scenarios.sources:
        entry = source.entry
        yield source, entry if isinstance(entry, Scenario) else entry.scenario(0)
