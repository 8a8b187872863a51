"""Which permission each address takes. An address that is not named here is the administrator's alone."""

from __future__ import annotations

import re
from functools import lru_cache

from citybrain_serving.safety.roles import Permission

READING = ("GET", "HEAD")

RULES: tuple[tuple[tuple[str, ...], str, Permission], ...] = (
    (READING, "/livez", Permission.PROBE),
    (READING, "/readyz", Permission.PROBE),
    (READING, "/v2/health/live", Permission.PROBE),
    (READING, "/v2/health/ready", Permission.PROBE),
    (READING, "/docs", Permission.LOOK),
    (READING, "/docs/**", Permission.LOOK),
    (READING, "/openapi.json", Permission.LOOK),
    (READING, "/v1/city", Permission.LOOK),
    (READING, "/v1/roads", Permission.LOOK),
    (READING, "/v1/roads/**", Permission.LOOK),
    (READING, "/v1/stations", Permission.LOOK),
    (READING, "/v1/stations/**", Permission.LOOK),
    (READING, "/v1/at", Permission.LOOK),
    (READING, "/v1/stream", Permission.LOOK),
    (READING, "/v1/indices", Permission.LOOK),
    (READING, "/v1/indices/**", Permission.LOOK),
    (READING, "/v1/forecasts/**", Permission.LOOK),
    (READING, "/v1/ngsi-ld/**", Permission.LOOK),
    (READING, "/v1/datex2/**", Permission.LOOK),
    (READING, "/v1/models", Permission.ADMINISTER),
    (READING, "/metrics", Permission.READ),
    (READING, "/v1/**", Permission.READ),
    (READING, "/v2", Permission.INFER),
    (READING, "/v2/**", Permission.INFER),
    (("POST",), "/v2/models/**", Permission.INFER),
    (("POST",), "/v1/observations", Permission.INGEST),
    (("POST",), "/v1/weather-forecasts", Permission.INGEST),
    (("POST",), "/v1/ngsi-ld/notifications", Permission.INGEST),
    (("POST",), "/v1/datex2/measured-data", Permission.INGEST),
    (("POST",), "/v1/cases", Permission.DECIDE),
    (("POST", "PATCH"), "/v1/cases/**", Permission.DECIDE),
    (("POST",), "/v1/models/**", Permission.ADMINISTER),
    (("POST",), "/v1/scenarios", Permission.INFER),
    (("POST",), "/v1/scenarios/**", Permission.INFER),
)
"""Methods, address and permission; the first that matches holds. ``*`` is one part of an address, ``**`` the rest
of it."""


@lru_cache(maxsize=4096)
def permission_for(method: str, path: str) -> Permission:
    for methods, pattern, permission in _COMPILED:
        if method in methods and pattern.fullmatch(path):
            return permission
    return Permission.ADMINISTER


def _compiled(template: str) -> re.Pattern[str]:
    parts = {"**": ".+", "*": "[^/]+"}
    text = "".join(parts.get(piece) or re.escape(piece) for piece in re.split(r"(\*\*|\*)", template))
    return re.compile(text, re.DOTALL)


_COMPILED = tuple((methods, _compiled(template), permission) for methods, template, permission in RULES)
