"""The gate in front of every route: who is asking, may they, how often, for how long, and a note of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import orjson
from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citybrain_serving.errors import StoreUnavailable
from citybrain_serving.problem_details import problem
from citybrain_serving.safety.callers import Callers, TooManyAttempts
from citybrain_serving.safety.headers import secured
from citybrain_serving.safety.ledger import UNTOLD, Ledger
from citybrain_serving.safety.limits import Buckets, Slots
from citybrain_serving.safety.roles import LOCAL, NOBODY, Permission, Principal
from citybrain_serving.safety.rules import READING, permission_for
from citybrain_serving.shortcuts import Reply

QUERY_TOLD = 2_000
"""Characters of an address, and of a query, that the audit log keeps; of a longer one it says how long it was."""


class Gate:
    """ASGI middleware. Probes are counted by nothing and held up by nothing: they answer under load."""

    def __init__(
        self,
        app: ASGIApp,
        callers: Callers,
        ledger: Ledger,
        buckets: Buckets | None,
        in_flight: int,
        slots: Slots,
        seconds: float,
        at_hand: Callable[[Scope], Reply | None] = lambda _: None,
    ):
        """``at_hand`` gives answers that cost no more than a refusal: whoever is let in gets them there and then, and
        takes no slot from those whose answers have to be made."""
        self.app = app
        self.callers = callers
        self.ledger = ledger
        self.buckets = buckets
        self.free = in_flight
        self.slots = slots
        self.seconds = seconds
        self.at_hand = at_hand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = secured(scope, send, shared=not self.callers.guarded)
        method, path = scope["method"], scope["path"]
        needed = permission_for(method, path)
        if needed is Permission.PROBE:
            await self.app(scope, receive, send)
            return
        who, refusal = await self._admit(scope, needed)
        if refusal is None and method not in READING and needed in (Permission.DECIDE, Permission.ADMINISTER):
            try:  # on disk before it is done
                await run_in_threadpool(self.ledger.record, _name(who, scope), "decides", method=method, path=path)
            except StoreUnavailable:
                refusal = _refuse(path, 503, "store-unavailable", "the audit log cannot be written now", 5)
        if refusal is not None:
            self._note(who, scope, refusal.status_code, refused=True)
            await refusal(scope, receive, send)
            return
        reply = self.at_hand(scope)
        if reply is not None:
            self._note(who, scope, reply.status)
            await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            await send({"type": "http.response.body", "body": reply.body})
            return
        if self.slots.overrun() and not _queued(path):  # told at once, and not at the end of all that would come first
            scope["counted"] = True  # and not logged: a line for each would be more work than the refusal
            refusal = _overloaded(path)
            self._note(who, scope, refusal.status_code, refused=True)
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = who
        await self._pass(scope, receive, send, who)

    async def _admit(self, scope: Scope, needed: Permission) -> tuple[Principal, Response | None]:
        """The principal, and the refusal where it may not go on. Whom nobody knows is refused at the rate of its
        address, whatever it asks for."""
        path, address = scope["path"], address_of(scope)
        header = next((value for key, value in scope["headers"] if key == b"authorization"), None)
        try:
            who = await self.callers.identify(header, address)
        except TooManyAttempts as error:
            return NOBODY, _refuse(path, 429, "too-many-requests", "too many unknown keys", error.seconds)
        except StoreUnavailable:
            return NOBODY, _refuse(path, 503, "store-unavailable", "keys cannot be checked now", 5)
        if who is None:
            over = self._over_rate(path, address)
            return NOBODY, over or _refuse(path, 401, "unauthorized", "the key or token is not valid here")
        if not who.may(needed):
            if not who.known:
                over = self._over_rate(path, address)
                takes = "this takes a key or token: Authorization: Bearer …"
                return who, over or _refuse(path, 401, "unauthorized", takes)
            return who, _refuse(path, 403, "forbidden", f"this takes the permission to {needed}")
        if who is not LOCAL:
            over = self._over_rate(path, who.name if who.known else address)
            if over:
                return who, over
        if self.free <= 0:
            return who, _refuse(path, 503, "overloaded", "too many requests are under way", 1)
        return who, None

    def _over_rate(self, path: str, caller: str) -> Response | None:
        """Takes a token of the caller's; the refusal where it has none left."""
        seconds = 0.0 if self.buckets is None else self.buckets.take(caller)
        return _refuse(path, 429, "too-many-requests", "more requests than agreed", seconds) if seconds else None

    async def _pass(self, scope: Scope, receive: Receive, send: Send, who: Principal) -> None:
        status, whole, working = 0, False, False
        self.free -= 1

        async def begin() -> None:
            nonlocal working
            if not working and not _queued(scope["path"]):
                if not await self.slots.enter():
                    raise _Overload
                working = True

        def end() -> None:
            nonlocal working
            self.free += 1
            if working:
                self.slots.leave()
            working = False

        async def reading() -> Message:
            nonlocal whole
            message = await receive()
            if not whole and not message.get("more_body", False):
                whole = True
                if not status:
                    await begin()  # a body that comes slowly keeps nobody from working
            return message

        async def answering(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                end()
                deadline.reschedule(None)  # a stream may go on; what it may not is keep a caller waiting
                self._note(who, scope, status)
            await send(message)

        try:
            async with asyncio.timeout(self.seconds) as deadline:
                if scope["method"] in READING or not _has_body(scope):  # a read waits for no body
                    await begin()
                await self.app(scope, reading, answering)
        except _Overload:
            scope["counted"] = True
            refusal = _overloaded(scope["path"])
            self._note(who, scope, refusal.status_code, refused=True)
            await refusal(scope, receive, send)
            end()
            status = refusal.status_code
        except TimeoutError:
            if status or not deadline.expired():
                raise
            late = "no answer in time" if whole else "the body did not come in time"
            slug = (503, "timeout") if whole else (408, "request-timeout")
            refusal = _refuse(scope["path"], *slug, late, 5)
            self._note(who, scope, refusal.status_code, refused=True)
            await refusal(scope, receive, send)
            end()
            status = refusal.status_code
        finally:
            if not status:
                end()

    def _note(self, who: Principal, scope: Scope, status: int, refused: bool = False) -> None:
        """A refusal of a caller whom nobody knows is counted without its words: they are free to invent."""
        name = _name(who, scope)
        if refused and not who.known:
            self.ledger.note(name, UNTOLD, UNTOLD, "", status, known=False)
            return
        path, query = _cut(scope["path"]), _cut(scope["query_string"].decode("latin-1"))
        basis = scope.get("state", {}).get("basis")
        self.ledger.note(name, scope["method"], path, query, status, basis, known=who.known)


def _cut(text: str) -> str:
    return text if len(text) <= QUERY_TOLD else f"{text[:QUERY_TOLD]}… ({len(text)} characters)"


class _Overload(BaseException):
    """There is no slot. No ``Exception``: whoever parses a body must not take this for a fault of the body."""


def _has_body(scope: Scope) -> bool:
    sizes = (value for key, value in scope["headers"] if key in (b"content-length", b"transfer-encoding"))
    return any(value != b"0" for value in sizes)


def _queued(path: str) -> bool:
    """Whether an address has a queue of its own."""
    return path.startswith("/v2/") and path.endswith("/infer")


def address_of(scope: Scope) -> str:
    """Where a request comes from; of a request that a proxy passed on, where that had it from."""
    return str(scope["client"][0]) if scope.get("client") else "unknown"


def _name(who: Principal, scope: Scope) -> str:
    return who.name if who.known else f"{who.name}@{address_of(scope)}"


def principal_of(request: Request) -> Principal:
    """Who makes this request; nobody, where the gate was not passed."""
    found = request.scope.get("state", {}).get("principal", NOBODY)
    assert isinstance(found, Principal)
    return found


def caller_of(request: Request) -> str:
    """Who makes this request, in one word; where nobody knows, with the address."""
    return _name(principal_of(request), request.scope)


def _overloaded(path: str) -> Response:
    return _refuse(path, 503, "overloaded", "more is asked than can be done now", 1)


def _refuse(path: str, status: int, slug: str, detail: str, wait: float | None = None) -> Response:
    """A refusal in the form that the address speaks."""
    headers = {} if wait is None else {"Retry-After": str(max(1, math.ceil(min(wait, 3600))))}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="citybrain"'
    if status == 408:
        headers["Connection"] = "close"
    if path == "/v2" or path.startswith("/v2/"):
        return Response(orjson.dumps({"error": detail}), status, headers, "application/json")
    return problem(status, slug, detail, headers=headers)
