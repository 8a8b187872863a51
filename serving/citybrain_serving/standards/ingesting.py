"""What becomes of a translated body: the ingest decides, and each refusal says where in the body it stood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from citybrain_serving.errors import NothingAccepted
from citybrain_serving.fleet import Channel
from citybrain_serving.ingest import Outcome
from citybrain_serving.service import Service
from citybrain_serving.standards.translation import Translated

Reader = Callable[[bytes, Mapping[str, Channel], int], Translated]
"""Takes a body, the channels of the city and the most readings a body may hold."""


def ingested(service: Service, body: bytes, reader: Reader) -> dict[str, Any]:
    """Translates a body, stores what is sound and says what became of it.

    Raises :class:`NothingAccepted` where there were readings and none could be taken.
    """
    translated = reader(body, service.fleet.channels, service.settings.max_readings)
    outcome = service.take(translated.readings)
    document = {**_document(outcome, translated), "ignored": dict(translated.ignored)}
    if outcome.refused_count and not outcome.accepted and not outcome.repeated:
        raise NothingAccepted(f"none of {outcome.refused_count} readings can be accepted", document)
    return document


def _document(outcome: Outcome, translated: Translated) -> dict[str, Any]:
    return {
        "accepted": outcome.accepted,
        "repeated": outcome.repeated,
        "refused": outcome.refused_count,
        "refused_by_reason": dict(outcome.refused),
        "refusals": [
            {"row": r.row, "reason": str(r.reason), "detail": f"{translated.sources[r.row]}: {r.detail}"}
            for r in outcome.refusals
        ],
    }
