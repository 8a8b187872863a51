"""What the OpenAPI document says about safety: the permission each operation takes, and its refusals."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from citybrain_serving.problem_details import MEDIA, TITLES
from citybrain_serving.safety.roles import Permission
from citybrain_serving.safety.rules import permission_for

SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key (`citybrain keys create`) or a token of the OpenID Connect provider. A service on"
    " this machine without keys takes none.",
}

REFUSALS = {
    "401": "Without a key or token that is valid",
    "403": "Not permitted",
    "429": "More than agreed",
    "503": "More than can be done now",
}
OF_QUERIES = {"422": TITLES[422]}
OF_BODIES = {"408": "The body did not come in time", "413": "More bytes than are read"}


def describe(document: dict[str, Any], free: Collection[Permission] = ()) -> None:
    """Adds it to ``document``, in place. What takes a permission in ``free`` needs no key here and now."""
    document.setdefault("components", {}).setdefault("securitySchemes", {})["bearer"] = SCHEME
    for path, operations in document["paths"].items():
        example = path.replace("{", "").replace("}", "")
        for method, operation in operations.items():
            _told_as_it_is(path, operation)
            permission = permission_for(method.upper(), example)
            operation["x-permission"] = str(permission)
            if permission is Permission.PROBE:
                continue
            operation["security"] = [{"bearer": []}, {}] if permission in free else [{"bearer": []}]
            content = _errors(path)
            refusals = {**REFUSALS, **(OF_BODIES if "requestBody" in operation else {})}
            if path.startswith("/v1"):  # a parameter that is not told here is refused
                refusals |= OF_QUERIES
            for status, text in refusals.items():
                operation["responses"].setdefault(status, {"description": text, "content": content})
    for shape in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(shape, None)


def _told_as_it_is(path: str, operation: dict[str, Any]) -> None:
    """What is wrong with a parameter leaves as every other error does, and not in the framework's own form. Under
    ``/v2`` there is no query: where an address names no version, the one in use is meant."""
    responses = operation["responses"]
    if path.startswith("/v2") and "parameters" in operation:
        operation["parameters"] = [told for told in operation["parameters"] if told["in"] != "query"]
    if "HTTPValidationError" not in str(responses.get("422")):
        return
    if path.startswith("/v2"):  # the protocol's word for it is 400
        del responses["422"]
    else:
        responses["422"] = {"description": TITLES[422], "content": _errors(path)}


def _errors(path: str) -> dict[str, Any]:
    """Media type and shape of errors at an address."""
    media, shape = ("application/json", "ErrorBody") if path.startswith("/v2") else (MEDIA, "ProblemBody")
    return {media: {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
