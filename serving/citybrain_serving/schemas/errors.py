"""The shape of an error."""

from __future__ import annotations

from pydantic import BaseModel


class ProblemBody(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
