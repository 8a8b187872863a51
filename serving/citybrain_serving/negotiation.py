"""What a request would rather have (RFC 9110, section 12) and whether it has it already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.types import Scope

from citybrain_serving.errors import NotAcceptable

LISTS = frozenset({b"accept", b"accept-encoding", b"accept-language", b"if-none-match"})
"""Headers whose value is a list, and may come in several lines."""


def preferred(accept: str | None, offered: Sequence[str]) -> str:
    """The media type to answer with; the first offered where the request does not mind.

    Raises :class:`NotAcceptable` naming what is offered.
    """
    if not accept or accept == "*/*":
        return offered[0]
    ranges = list(weighed(accept))
    best = max(offered, key=lambda media: (_quality(media, ranges), -offered.index(media)))
    if _quality(best, ranges) <= 0:
        raise NotAcceptable(f"this address answers {', '.join(offered)}", {"offered": list(offered)})
    return best


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an ``If-None-Match`` header names ``etag`` (weak comparison, as a GET wants it). ``*`` names none:
    that there is anything at all is known once it was made; :class:`~citybrain_serving.routes.conditional.Existing`
    sees to it."""
    if not if_none_match:
        return False
    return etag in {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}


def weighed(accept: str) -> Iterator[tuple[str, float]]:
    """The members of an ``Accept…`` header in lower case with their qualities, 0 for one that is no number."""
    for part in accept.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        yield name.lower(), quality


def header(scope: Scope, name: bytes) -> str | None:
    """A header of a request; None where it has none."""
    found = next((value for key, value in scope["headers"] if key == name), None)
    return None if found is None else found.decode("latin-1")


def joined(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers in which each list stands in one line (RFC 9110, section 5.3), so that all who read it read the same."""
    lists: dict[bytes, list[bytes]] = {}
    others = []
    for name, value in headers:
        if name in LISTS:
            lists.setdefault(name, []).append(value)
        else:
            others.append((name, value))
    return [*others, *((name, b", ".join(lines)) for name, lines in lists.items())]


def next_page(request: Request, offset: int, bounds: Mapping[str, str] = MappingProxyType({})) -> str:
    """A ``Link`` (RFC 8288) to the same question from ``offset`` on, with the ``bounds`` that were taken for it."""
    kept = [(k, v) for k, v in request.query_params.multi_items() if k != "offset" and k not in bounds]
    query = urlencode([*kept, *bounds.items(), ("offset", offset)])
    return f'<{request.url.path}?{query}>; rel="next"'


def _quality(media: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality that the most specific matching range gives, 0 where none matches."""
    kind = media.partition("/")[0]
    for pattern in (media, f"{kind}/*", "*/*"):
        for given, quality in ranges:
            if given == pattern:
                return quality
    return 0.0
