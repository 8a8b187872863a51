"""Whether a city has the places and the weather that scenario files name, told before hours of work on them."""

from __future__ import annotations

from collections.abc import Iterator

from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem
from citybrain_datasets.scenarios.actions import Window
from citybrain_datasets.scenarios.language import USUAL_DAYS, Demand, Scenario, Weather
from citybrain_datasets.scenarios.reading import MOST_PROBLEMS, Scenarios, Source
from citybrain_datasets.scenarios.resolve import Places
from citybrain_datasets.scenarios.weather import has_weather, weather_hours


def check_places(scenarios: Scenarios, city: City) -> None:
    """Raises :class:`CityError` with file, line and field of every place that ``city`` does not have; a sweep is judged
    by each of its values."""
    places = Places(city)
    problems: list[Problem] = []
    told: set[tuple[str, int, str, str]] = set()
    for source, which, scenario in variants(scenarios):
        for number, measure in enumerate(scenario.measures):
            try:
                places(measure.where)
            except CityError as error:
                for problem in error.problems:
                    if (key := (source.entry.id, number, problem.where, problem.what)) not in told:
                        told.add(key)
                        at: tuple[str | int, ...] = ("measures", number, *problem.where.split("."))
                        problems.append(source.problem(at, f"{problem.what} ({which})"))
        if len(problems) > MOST_PROBLEMS:
            break
    if problems:
        raise CityError(problems)


def check_weather(scenarios: Scenarios, city: City, window: Window) -> None:
    """Raises :class:`CityError` with file, line and field of every weather that is not on the city's record; a sweep is
    judged by each of its values. A city without any record takes what is assumed."""
    if not has_weather(city):
        return
    known: dict[Weather, str] = {}
    told: set[tuple[str, Weather]] = set()
    problems = []
    for source, which, scenario in variants(scenarios):
        asked = scenario.weather
        if asked not in known:
            known[asked] = _missing(city, asked, window)
        if known[asked] and (source.entry.id, asked) not in told:
            told.add((source.entry.id, asked))
            problems.append(source.problem(("weather",), f"{known[asked]} ({which})"))
        if len(problems) > MOST_PROBLEMS:
            break
    if problems:
        raise CityError(problems)


def check_purposes(scenarios: Scenarios, city: City, known: bool) -> None:
    """Raises :class:`CityError` with file, line and field of every measure on trips of a purpose, where the trips of
    ``city`` have none; a sweep is judged by each of its values."""
    if known:
        return
    found: dict[tuple[str, int], Problem] = {}
    for source, which, scenario in variants(scenarios):
        for number, measure in enumerate(scenario.measures):
            if isinstance(measure, Demand) and measure.purposes is not None:
                problem = source.problem(("measures", number, "purposes"), f"{no_purposes(city)} ({which})")
                found.setdefault((source.entry.id, number), problem)
        if len(found) > MOST_PROBLEMS:
            break
    if found:
        raise CityError(list(found.values()))


def no_purposes(city: City) -> str:
    return f"why people travel is not known in city {city.name}"


def _missing(city: City, weather: Weather, window: Window) -> str:
    """What a city lacks of a weather, empty where nothing."""
    try:
        days = len(weather_hours(city, weather, window).wind_speed)
    except CityError as error:
        return "; ".join(problem.what for problem in error.problems)
    # Nobody asked for the number of days that is taken where none is named.
    if weather.ensemble in (None, USUAL_DAYS) or weather.ensemble <= days:
        return ""
    return f"an ensemble of {weather.ensemble} days, where only {days} are on record"


def variants(scenarios: Scenarios) -> Iterator[tuple[Source, str, Scenario]]:
    """Each scenario of the files, and of a sweep those that hold each of its values; with what it is, in words."""
    for source in scenarios.sources:
        entry = source.entry
        if isinstance(entry, Scenario):
            yield source, f"scenario {entry.id}", entry
            continue
        for what, document in entry.variants():
            which = f"sweep {entry.id}, where {what}" if what else f"sweep {entry.id}"
            yield source, which, Scenario.model_validate(document)
