"""Errors of the data room. Raised deep, caught once at the command line or the HTTP edge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


def installing(extras: str) -> str:
    """How extras are installed: from the sources, since on the public index the name is another project's."""
    return f"pip install '.[{extras}]' in a checkout of citybrain"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Which of the ``known`` was likely meant by ``name``: the most alike, or one that it is a part of."""
    by_case = {each.casefold(): each for each in known}
    given = name.casefold()
    near = get_close_matches(given, by_case, n=1) or [each for each in by_case if len(given) > 2 and given in each]
    return by_case[near[0]] if near else None


def alike(name: str, known: Iterable[str]) -> str:
    """What was likely meant, to be put after what is said of ``name``; empty where nothing is near."""
    meant = nearest(name, known)
    return "" if meant is None else f"; did you mean {meant}?"


class CityBrainError(Exception):
    """Anything a person can mend: the message says what is wrong and where."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and its place.

    ``where`` names the table, signal or file; ``row`` and ``column`` the place inside it, where they apply.
    """

    where: str
    what: str
    row: str | None = None
    column: str | None = None

    def __str__(self) -> str:
        place = self.where
        if self.row is not None:
            place += f", row {self.row}"
        if self.column is not None:
            place += f", column {self.column}"
        return f"{place}: {self.what}"


class CityError(CityBrainError):
    """A city, or the input it is made from, breaks its contract."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = list(problems)
        shown = [str(problem) for problem in self.problems[:20]]
        if len(self.problems) > len(shown):
            shown.append(f"… and {len(self.problems) - len(shown)} more")
        super().__init__("\n".join(shown))

    def __reduce__(self) -> tuple[type[CityError], tuple[list[Problem]]]:
        """What it is rebuilt from when it comes from another process: the problems, not the message."""
        return type(self), (self.problems,)


class NoSuchFileError(CityError):
    """A file that a city is made from is not where its configuration says."""


class ConfigError(CityBrainError):
    """A configuration file has an unknown key, a missing one or a wrong value."""
