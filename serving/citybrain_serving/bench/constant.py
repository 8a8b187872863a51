"""What reads are held against: a FastAPI route that returns the same bytes from a constant, and the barest ASGI
application, which tells what the load generator can do. Run as a module in a process of its own."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from citybrain_serving.bench.processes import Server, free_port, running

ETAG = '"constant"'


def fastapi_app(body: bytes) -> FastAPI:
    """``/constant`` as anybody would write it, with a validator that a caller may send back."""
    app = FastAPI()

    @app.get("/constant")
    async def constant(request: Request) -> Response:
        headers = {"ETag": ETAG, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == ETAG:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    return app


def bare_app(body: bytes) -> ASGIApp:
    """Answers everything with ``body``, once it has what it was sent, and looks at nothing."""
    start = {
        "type": "http.response.start", "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
    }  # fmt: skip

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            while (await receive()).get("more_body", False):
                pass
            await send(start)
            await send({"type": "http.response.body", "body": body})

    return app


def answering(kind: str, folder: Path) -> AbstractContextManager[Server]:
    """One of them in a process of its own; it answers with what the file ``body`` in ``folder`` holds."""
    port = free_port()
    command = [sys.executable, "-m", "citybrain_serving.bench.constant", kind, str(folder / "body"), str(port)]
    return running(command, port, folder / f"{kind}.log", ready="/constant")


def main(kind: str, body: str, port: str) -> None:
    """Serves with the settings of ``citybrain serve``."""
    app: Any = {"fastapi": fastapi_app, "bare": bare_app}[kind](Path(body).read_bytes())
    uvicorn.run(
        app, host="127.0.0.1", port=int(port), log_config=None, access_log=False, server_header=False,
        lifespan="off",
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
