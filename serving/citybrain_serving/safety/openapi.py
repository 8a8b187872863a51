"""What the OpenAPI document says about safety: the permission each operation takes, and its refusals."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from citybrain_serving.problem_details import MEDIA
from citybrain_serving.safety.roles import Permission
from citybrain_serving.safety.rules import permission_for

SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key (`citybrain keys create`) or a token of the OpenID Connect provider. A service on"
    " this machine without keys takes none.",
}

REFUSALS = {"401": "Without a key or token that is valid", "403": "Not permitted", "429": "More than agreed"}


def describe(document: dict[str, Any], free: Collection[Permission] = ()) -> None:
    """Adds it to ``document``, in place. What takes a permission in ``free`` needs no key here and now."""
    document.setdefault("components", {}).setdefault("securitySchemes", {})["bearer"] = SCHEME
    for path, operations in document["paths"].items():
        example = path.replace("{", "").replace("}", "")
        for method, operation in operations.items():
            permission = permission_for(method.upper(), example)
            operation["x-permission"] = str(permission)
            if permission is Permission.PROBE:
                continue
            operation["security"] = [{"bearer": []}, {}] if permission in free else [{"bearer": []}]
            media, shape = ("application/json", "ErrorBody") if path.startswith("/v2") else (MEDIA, "ProblemBody")
            content = {media: {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
            for status, text in REFUSALS.items():
                operation["responses"].setdefault(status, {"description": text, "content": content})
