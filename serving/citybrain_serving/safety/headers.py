"""Headers that keep a browser from doing what no API wants."""

from __future__ import annotations

from starlette.types import Message, Scope, Send

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_ANSWERS = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
# The documentation's page starts its own script in the page; everything it loads is served here.
_DOCS = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    b" img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'",
)
_HTTPS = (b"strict-transport-security", b"max-age=31536000")


def secured(scope: Scope, send: Send, *, shared: bool) -> Send:
    """``send`` that adds them. Unless ``shared``, no cache between here and the caller may keep the answer."""
    path = scope["path"]
    added = [*_ALWAYS, _DOCS if path == "/docs" or path.startswith("/docs/") else _ANSWERS]
    if scope.get("scheme") == "https":
        added.append(_HTTPS)

    async def securing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if not shared:
                headers = [(k, _private(v) if k.lower() == b"cache-control" else v) for k, v in headers]
                headers.append((b"vary", b"Authorization"))
            message["headers"] = [*headers, *added]
        await send(message)

    return securing


def _private(control: bytes) -> bytes:
    kept = [part.strip() for part in control.split(b",") if part.strip().lower() not in (b"public", b"private")]
    return b", ".join([b"private", *kept])
