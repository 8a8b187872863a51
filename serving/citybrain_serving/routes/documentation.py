"""How routes describe their errors in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from citybrain_serving.problem_details import MEDIA, TITLES
from citybrain_serving.safety.openapi import describe
from citybrain_serving.schemas.errors import ProblemBody

EXAMPLE = {
    "type": "urn:citybrain:problem:bad-selection",
    "title": "Not processable",
    "status": 422,
    "detail": "horizon '7' must be among 5, 10, 15 (minutes ahead)",
    "request_id": "9f2c4be0c5f64c0a8f6b6e2f3a1d7c55",
}


_REFERRED: set[type[BaseModel]] = set()


def schema(model: type[BaseModel]) -> dict[str, str]:
    """A reference to ``model`` in the components of the document, where :func:`complete` puts it."""
    _REFERRED.add(model)
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def complete(app: FastAPI) -> None:
    """Makes ``app`` describe also the shapes of answers that are encoded by hand."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
            )
            models = sorted(_REFERRED, key=lambda model: model.__name__)
            _, shapes = models_json_schema(
                [(m, "serialization") for m in models], ref_template="#/components/schemas/{model}"
            )
            components = document.setdefault("components", {}).setdefault("schemas", {})
            components.update(shapes["$defs"])
            describe(document, getattr(app.state, "free", ()))
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route that may answer these statuses with a problem document."""
    body = schema(ProblemBody)
    return {
        status: {
            "description": TITLES[status],
            "content": {MEDIA: {"schema": body, "example": {**EXAMPLE, "status": status, "title": TITLES[status]}}},
        }
        for status in statuses
    }
