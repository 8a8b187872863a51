"""What schemathesis checks here beside its own checks. Loaded by it, never by the service."""

from __future__ import annotations

import schemathesis
from schemathesis import Case, CheckContext, Response

NOT_UNDERSTOOD = "urn:citybrain:problem:bad-request"


@schemathesis.check
def what_the_schema_allows_is_understood(ctx: CheckContext, response: Response, case: Case) -> None:
    """A request that keeps to the document may be refused for what a grammar cannot say: an id that does not exist, a
    time that lies ahead. It must not be refused for its form."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 422:
        return
    if NOT_UNDERSTOOD in response.text:
        raise AssertionError(f"refused for its form, which the document allows: {response.text[:500]}")
