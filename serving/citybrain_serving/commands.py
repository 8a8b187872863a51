"""``citybrain serve``: a service from bundles, on this machine unless told otherwise."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from citybrain_datasets.errors import ConfigError
from citybrain_serving import logs, tracing
from citybrain_serving.app import create_app
from citybrain_serving.connections import protocol
from citybrain_serving.safety.bundles import read_allow_list, read_bundle
from citybrain_serving.safety.hosts import known_hosts
from citybrain_serving.safety.install import check_binding
from citybrain_serving.service import Service
from citybrain_serving.settings import load_settings

DRAIN_SECONDS = 10
"""How long requests under way may take to finish when the service is asked to stop."""

SWITCH_SECONDS = 0.001
"""How long a thread may hold the interpreter while another waits; Python's own 5 ms are a slow answer."""


def serve(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folders, one for each task of one city.")],
    host: Annotated[str | None, typer.Option(help="Address to bind; this machine only by default.")] = None,
    port: Annotated[int | None, typer.Option(help="Port, 8000 by default; 0 takes a free one.")] = None,
    store: Annotated[str | None, typer.Option(help="Where observations are kept: a path or a database URL.")] = None,
    shadow: Annotated[
        list[Path] | None, typer.Option(help="A bundle that forecasts beside another, scored and never answered from.")
    ] = None,
    replay: Annotated[bool, typer.Option(help="Take the newest observation for the present.")] = False,
) -> None:
    """Serve forecasts over HTTP. Settings are also read from CITYBRAIN_SERVE_… in the environment."""
    settings = load_settings({"host": host, "port": port, "store": store, "clock": "observations" if replay else None})
    logs.configure(settings.log_format)
    allowed = None if settings.bundle_digests is None else read_allow_list(settings.bundle_digests)
    check_binding(settings)
    _check_free(settings.host, settings.port)
    if settings.bundle_root is not None and not settings.bundle_root.is_dir():
        raise ConfigError(f"setting bundle_root: {settings.bundle_root} is no folder")
    read = [read_bundle(folder, allowed) for folder in bundles]
    service = Service(
        read,
        settings,
        shadows=[read_bundle(folder, allowed) for folder in shadow or ()],
        homes={bundle.task.name: folder for bundle, folder in zip(read, bundles, strict=True)},
    )
    del read  # one that is swapped out is not to be held here
    app = create_app(service, known_hosts(settings))
    if settings.otlp_endpoint:
        tracing.configure(settings.otlp_endpoint, service.fleet.city.name)
    tracing.instrument(app)
    config = uvicorn.Config(
        app,
        http=protocol(),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = _Server(config, service)
    _keep_answering()
    with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has drained: Ctrl-C is how a person ends this
        server.run()
    tracing.shutdown()
    if not server.started:
        raise SystemExit(3)  # uvicorn has said why: the port was taken meanwhile, most often


def _check_free(host: str, port: int) -> None:
    """Raises :class:`ConfigError` for a port that somebody has or we may not have, before anything is loaded that takes
    time. Whatever else is wrong with an address the server tells itself."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"setting host: {host}: {error.strerror or error}") from None
    for family, kind, protocol_number, _, address in found:
        try:
            with socket.socket(family, kind, protocol_number) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                hint = "; --port takes another, 0 a free one"
                raise ConfigError(f"{host} port {port} cannot be bound: {error.strerror}{hint}") from None


def _keep_answering() -> None:
    """What was loaded stays, so the garbage collector need not walk through it again and again while callers wait; and
    the event loop gets its turn soon where the cycle's thread has something to compute."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)


class _Server(uvicorn.Server):
    """A server that, asked to stop, first says that it is not ready and goes on answering, until whoever sends it
    requests has noticed; then it ends the streams, whose listeners would hold it up until the deadline."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self.service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.leaving = True
        loop = asyncio.get_running_loop()
        end = loop.time() + self.service.settings.leave_seconds
        while loop.time() < end and not self.force_exit:  # whoever presses Ctrl-C again does not want to wait
            await asyncio.sleep(0.1)
        self.service.stream.close()
        await super().shutdown(sockets)
