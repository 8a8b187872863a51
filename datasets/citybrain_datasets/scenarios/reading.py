"""Scenario files: YAML or JSON Lines, every mistake with its file, line and field.

A YAML file is ``version: 1`` and a list ``scenarios``; a JSON Lines file has one scenario a line. An entry with
``grid`` or ``sample`` is a sweep and stands for many.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from citybrain_datasets.errors import CityError, Problem, alike
from citybrain_datasets.scenarios.language import VERSION, Scenario
from citybrain_datasets.scenarios.sweeps import Sweep
from citybrain_datasets.scenarios.wording import mistakes

MOST_PROBLEMS = 200
"""After so many a file is not read on."""
SUFFIXES = (".yaml", ".yml", ".jsonl", ".ndjson")
_FORMS = f"scenarios are written in YAML or JSON Lines ({', '.join(SUFFIXES)})"
_KEYS = ("version", "scenarios")
_DEEP = "is nested too deep"
_TWICE = "this key stands twice"
Lines = dict[tuple[str | int, ...], int]
"""Line of each value, by the keys and positions that lead to it; of a JSON line, of the whole alone."""


@dataclass(frozen=True)
class Source:
    """One entry of a file: a scenario, or a sweep of many."""

    entry: Scenario | Sweep
    path: Path
    lines: Lines

    @property
    def line(self) -> int:
        return self.lines.get((), 1)

    def __len__(self) -> int:
        return len(self.entry) if isinstance(self.entry, Sweep) else 1

    def problem(self, at: tuple[str | int, ...], what: str) -> Problem:
        """What is wrong with the field ``at``, by file, line and field."""
        return _problem(self.path, _line(self.lines, at), what, ".".join(map(str, at)))


class Scenarios(Sequence[Scenario]):
    """All scenarios of one or more files, made when they are asked for; 10 million cost no more memory than one.

    Making one raises :class:`CityError` where a sweep's values do not make a valid scenario.
    """

    def __init__(self, sources: list[Source]):
        self.sources = sources
        self._ends = list(accumulate(map(len, sources)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} scenarios")
        number = bisect_right(self._ends, index)
        source = self.sources[number]
        return _made(source, index - self._ends[number] + len(source))

    def __iter__(self) -> Iterator[Scenario]:
        return (_made(source, i) for source in self.sources for i in range(len(source)))


def read_scenarios(*paths: Path | str) -> Scenarios:
    """Reads and checks scenario files (``.yaml``, ``.yml`` or ``.jsonl``).

    Raises :class:`CityError` with file, line and field of everything that is wrong: unreadable, unknown keys, wrong
    values, ids that stand twice, sweeps any of whose values makes no scenario.
    """
    problems: list[Problem] = []
    sources: list[Source] = []
    for path in map(Path, paths):
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise CityError([Problem(str(path), f"cannot be read: {error.strerror or error}")]) from error
        except UnicodeDecodeError as error:
            raise CityError([Problem(str(path), f"is no text in UTF-8; {_FORMS}")]) from error
        parse = _json_lines if path.suffix in SUFFIXES[2:] else _yaml
        for document, lines in parse(path, text, problems):
            _take(path, document, lines, sources, problems)
            if len(problems) > MOST_PROBLEMS:
                raise CityError(problems)
    problems += _ids_twice(sources)
    if problems:
        raise CityError(problems)
    return Scenarios(sources)


def _ids_twice(sources: Sequence[Source]) -> Iterator[Problem]:
    seen: dict[str, Source] = {}
    for source in sources:
        if (first := seen.setdefault(source.entry.id, source)) is not source:
            what = f"the id {source.entry.id!r} stands already in {first.path.name}, line {first.line}"
            yield _problem(source.path, source.line, what, "id")
    for source in sources:
        of = seen.get(source.entry.id.rpartition("/")[0])
        if of is not None and isinstance(of.entry, Sweep) and of.entry.names(source.entry.id):
            what = f"the id {source.entry.id!r} is one of the sweep's in {of.path.name}, line {of.line}"
            yield _problem(source.path, source.line, what, "id")


def _json_lines(path: Path, text: str, problems: list[Problem]) -> Iterator[tuple[Any, Lines]]:
    for number, line in enumerate(text.split("\n"), start=1):  # JSON's strings may hold other ends of line
        if not line.strip():
            continue
        twice: list[str] = []
        try:
            document = json.loads(line, object_pairs_hook=partial(_object, twice))
        except json.JSONDecodeError as error:
            problems.append(_problem(path, number, f"is no JSON: {error.msg}, at character {error.colno}"))
        except RecursionError:
            problems.append(_problem(path, number, _DEEP))
        except ValueError as error:
            problems.append(_problem(path, number, f"is no JSON: {error}"))
        else:
            problems += [_problem(path, number, _TWICE, key) for key in twice]
            yield document, {(): number}


def _object(twice: list[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that stands in it again is noted in ``twice``."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            twice.append(key)
        found[key] = value
    return found


class _Loader(yaml.SafeLoader):
    """YAML of which 1.1's traps are left out, as in 1.2: ``off``, ``yes`` and 10:00 are text, and so are dates, which
    are read where one is wanted."""


_TRAPS = ("bool", "int", "timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in _TRAPS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789")


def _yaml(path: Path, text: str, problems: list[Problem]) -> Iterator[tuple[Any, Lines]]:
    lines: Lines = {}
    before = len(problems)
    try:
        problems += (_problem(path, line, what, key) for line, what, key in _marked(text, lines))
        if len(problems) > before:
            return
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = f"is no YAML: {getattr(error, 'problem', None) or error}"
        problems.append(_problem(path, mark.line + 1 if mark else 1, what))
        return
    except RecursionError:
        problems.append(_problem(path, 1, _DEEP))
        return
    except ValueError as error:
        problems.append(_problem(path, 1, f"is no YAML: {error}"))
        return
    if not isinstance(content, dict) or not isinstance(content.get("scenarios"), list):
        empty = "is empty, and " if content is None else ""
        what = f"{empty}must be a mapping with `version` and a list `scenarios`"
        problems.append(_problem(path, 1, what if path.suffix in SUFFIXES else f"{what}; {_FORMS}"))
        return
    unknown = [key for key in content if key not in _KEYS]
    problems += [
        _problem(path, lines.get((key,), 1), f"unknown key{alike(str(key), _KEYS)}", str(key)) for key in unknown
    ]
    if content.get("version", VERSION) != VERSION:
        what = f"version {content['version']!r} is not known; this program reads version {VERSION}"
        problems.append(_problem(path, lines[("version",)], what, "version"))
        return
    for number, document in enumerate(content["scenarios"]):
        prefix = ("scenarios", number)
        yield document, {at[2:]: line for at, line in lines.items() if at[:2] == prefix}


def _marked(text: str, lines: Lines) -> Iterator[tuple[int, str, str]]:
    """Notes the ``lines`` of a YAML text; gives line, message and field of what only its nodes show."""
    node = yaml.compose(text, Loader=_Loader)
    if node is not None:
        yield from _mark(node, (), lines, ())


def _mark(
    node: yaml.Node, at: tuple[str | int, ...], lines: Lines, within: tuple[yaml.Node, ...]
) -> Iterator[tuple[int, str, str]]:
    line = lines[at] = node.start_mark.line + 1
    if any(node is outer for outer in within):
        yield line, "contains itself", ".".join(map(str, at))
    elif isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for key, value in node.value:
            name = str(key.value)
            place = (*at, name)
            if name in seen:
                yield key.start_mark.line + 1, _TWICE, ".".join(map(str, place))
            seen.add(name)
            yield from _mark(value, place, lines, (*within, node))
            lines[place] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _mark(value, (*at, number), lines, (*within, node))


def _take(path: Path, document: Any, lines: Lines, sources: list[Source], problems: list[Problem]) -> None:
    """Checks one entry; a sweep by each of its values as well."""
    first = lines.get((), 1)
    if not isinstance(document, dict):
        problems.append(_problem(path, first, "a scenario must be a mapping"))
        return
    kind = Sweep if {"grid", "sample"} & document.keys() else Scenario
    try:
        entry = kind.model_validate(document)
    except ValidationError as error:
        problems += _problems(path, error, lines, kind)
        return
    except RecursionError:
        problems.append(_problem(path, first, _DEEP))
        return
    found = list(_of_values(path, entry, first)) if isinstance(entry, Sweep) else []
    problems += found
    if not found:
        sources.append(Source(entry, path, lines))


def _of_values(path: Path, sweep: Sweep, line: int) -> Iterator[Problem]:
    told = set[str]()
    try:
        for what, document in sweep.variants():
            if what in told:
                continue
            try:
                Scenario.model_validate(document)
            except ValidationError as error:
                told.add(what)
                where = f"where {what}" if what else "in the sweep's first scenario"
                yield from _problems(path, error, {(): line}, Scenario, note=f"{where}, ")
                if not what or len(told) > MOST_PROBLEMS:
                    return
    except ValueError as error:
        yield _problem(path, line, str(error))


def _problems(
    path: Path, error: ValidationError, lines: Lines, kind: type[BaseModel], note: str = ""
) -> Iterator[Problem]:
    for at, what in mistakes(error, kind):
        yield _problem(path, _line(lines, at), note + what, ".".join(map(str, at)))


def _line(lines: Lines, at: tuple[str | int, ...]) -> int:
    """The line of a field, or of the innermost that holds it and has one."""
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 1)


def _problem(path: Path, line: int, what: str, field: str = "") -> Problem:
    return Problem(f"{path}, line {line}{f', {field}' if field else ''}", what)


def _made(source: Source, index: int) -> Scenario:
    if isinstance(source.entry, Scenario):
        return source.entry
    try:
        return source.entry.scenario(index)
    except ValidationError as error:
        note = f"in scenario {index} of the sweep {source.entry.id}, "
        raise CityError(_problems(source.path, error, {(): source.line}, Scenario, note)) from error
