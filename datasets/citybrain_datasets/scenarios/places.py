"""Where and when a measure holds, as a person writes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

DAY_MINUTES = 24 * 60


class Strict(BaseModel):
    """Refuses what it does not know, and is never changed after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _number(value: object) -> object:
    """Python counts with truth values; nobody means that."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number")
    return value


def _clock(value: object) -> object:
    """``HH:MM`` as minutes after midnight."""
    if isinstance(value, str):
        hours, colon, minutes = value.partition(":")
        if not colon or not (hours.isdigit() and minutes.isdigit() and len(minutes) == 2) or int(minutes) > 59:
            raise ValueError(f"{value!r} is no time of day; write HH:MM")
        value = int(hours) * 60 + int(minutes)
    if isinstance(value, int) and not 0 <= value <= DAY_MINUTES:
        raise ValueError(f"{clock(value)} is no time of day; a day ends at 24:00")
    return value


def _written(value: object) -> object:
    """A bare number may be meant for hours or for minutes."""
    if isinstance(value, int | float):
        raise ValueError(f"{str(value).lower()} is no time of day; write HH:MM")
    return value


def clock(minutes: int) -> str:
    """Minutes after midnight as ``HH:MM``."""
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _several(value: object) -> object:
    """A single name where a list may stand."""
    return [value] if isinstance(value, str) else value


ClockTime = Annotated[int, BeforeValidator(_clock), PlainSerializer(clock), Field(ge=0, le=DAY_MINUTES)]
"""Local time of day: ``HH:MM`` outside, minutes after midnight inside."""

WrittenTime = Annotated[ClockTime, BeforeValidator(_written)]
"""The same as a person must write it."""

Number = Annotated[float, BeforeValidator(_number)]
Count = Annotated[int, BeforeValidator(_number)]
"""Numbers that ``true`` is none of."""

Names = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]
Point = tuple[Annotated[float, Field(ge=-180, le=180)], Annotated[float, Field(ge=-90, le=90)]]


class When(Strict):
    """Local clock time from ``begin`` to ``end``, over midnight where ``end`` is the earlier; all day if left out."""

    begin: WrittenTime = 0
    end: WrittenTime = DAY_MINUTES
    days: Literal["all", "working", "off"] = "all"
    """On working days, on weekends and public holidays, or on all."""

    @model_validator(mode="after")
    def _some_time(self) -> When:
        if self.begin == self.end:
            raise ValueError("begin and end are the same time")
        return self

    def covers(self, minutes: int, off: bool) -> bool:
        """Whether ``minutes`` after a day's midnight lie in it; ``off`` tells whether the day is a day off."""
        if self.days != "all" and (self.days == "off") != off:
            return False
        minutes %= DAY_MINUTES
        if self.begin < self.end:
            return self.begin <= minutes < self.end
        return minutes >= self.begin or minutes < self.end


class Where(Strict):
    """Segments by any of these; a segment must meet all that are given. Nothing given is the whole city."""

    segments: Names | None = None
    polygon: Annotated[tuple[Point, ...], Field(min_length=3)] | None = None
    """Corners, longitude before latitude (RFC 7946), closed or not; a segment lies where its middle lies."""
    road_class: Names | None = None
    cell: Names | None = None
    """H3 cells of the city's grid."""
    owner: Names | None = None
    district: Names | None = None
    """The node table's ``district``; where it has none, its owners are its districts."""

    @model_validator(mode="before")
    @classmethod
    def _city(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) < len(cls.model_fields):  # and not a place as it is kept
            for name in (name for name, given in value.items() if given is None and name in cls.model_fields):
                raise ValueError(f"{name} names nothing; leave it out, or write `where: city`")
        return {} if value == "city" else value

    @property
    def whole_city(self) -> bool:
        return not self.model_dump(exclude_none=True)
