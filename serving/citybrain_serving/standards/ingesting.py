"""What becomes of a translated body: the ingest decides, and each refusal says where in the body it stood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from citybrain_serving import chinese
from citybrain_serving.errors import NothingAccepted
from citybrain_serving.fleet import Channel
from citybrain_serving.lanes.combining import LaneCount, lane_count
from citybrain_serving.languages import asked_language
from citybrain_serving.outcome import acknowledged
from citybrain_serving.service import Service
from citybrain_serving.standards.datex_in import readings_from_datex
from citybrain_serving.standards.translation import Translated

Reader = Callable[[bytes, Mapping[str, Channel], int, LaneCount], Translated]
"""Takes a body, the channels of the city, the most readings a body may hold and how many lanes its roads have."""


def datex_reader(service: Service) -> Reader:
    """Reads DATEX II by what the service remembers of its sites."""
    return partial(readings_from_datex, remembered=service.sites.known)


def ingested(service: Service, body: bytes, reader: Reader) -> dict[str, Any]:
    """Translates a body, stores what is sound and says what became of it; what was ignored is counted, too.

    Raises :class:`NothingAccepted` where there were readings and none could be taken.
    """
    fleet = service.fleet
    translated = reader(body, fleet.channels, service.settings.max_readings, lane_count(fleet.city))
    sites = service.sites.remember(translated.sites) if translated.sites else 0
    outcome = service.take(translated.readings)
    service.telemetry.readings.labels("ignored").inc(sum(translated.ignored.values()))
    language = asked_language()
    ignored = {chinese.translated(what, language): count for what, count in translated.ignored.items()}
    try:
        return {**acknowledged(outcome, translated.sources), "ignored": ignored, "sites": sites}
    except NothingAccepted as error:
        error.extra |= {"ignored": ignored, "sites": sites}
        raise
