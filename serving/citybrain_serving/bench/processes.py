"""Real servers in processes of their own, on free ports, waited for until they answer."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from citybrain_datasets.errors import CityBrainError
from citybrain_serving.settings import PREFIX

STARTED_WITHIN = 120.0
"""Seconds that a server may take until it answers."""

STOPPED_WITHIN = 30.0


@dataclass
class Server:
    """A server that answers at ``url``; what it prints is in ``log``."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def resident(self) -> int:
        """Bytes of memory that it holds now, by the kernel's count (Linux)."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """Bytes of memory that it ever held."""
        return self._status("VmHWM")

    def _status(self, field: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        return int(found.group(1)) * 1024 if found else 0

    def kill(self) -> None:
        """``kill -9``; whatever it had in memory is gone."""
        self.process.kill()
        self.process.wait()


@contextmanager
def service(
    bundles: Sequence[Path],
    store: str | Path,
    *,
    settings: Mapping[str, object] | None = None,
    replay: bool = True,
    ready: str = "/livez",
    port: int | None = None,
) -> Iterator[Server]:
    """``citybrain serve`` over ``bundles``, its log beside the last of them being ``<store>.log`` where that is a path.

    ``settings`` are those of :class:`~citybrain_serving.settings.Settings`; it stops without taking leave.
    """
    port = free_port() if port is None else port
    command = [*CITYBRAIN, "serve", *map(str, bundles), "--port", str(port), "--store", str(store)]
    log = Path(f"{store}.log") if "://" not in str(store) else bundles[0].parent / f"serve-{port}.log"
    given = {"leave_seconds": 0, **(settings or {})}
    environment = {f"{PREFIX}{name.upper()}": str(value) for name, value in given.items()}
    with running([*command, *["--replay"] * replay], port, log, ready=ready, environment=environment) as server:
        yield server


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    log: Path,
    *,
    ready: str = "/livez",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Runs ``command``, which must answer ``ready`` on ``port`` with less than 400, and stops it at the end.

    Raises :class:`CityBrainError` with the end of its log where it ends or does not answer in time.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **(environment or {})}, start_new_session=True
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_for(server, ready)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            server.kill()
        with suppress(ProcessLookupError):  # what is left of it: some servers leave their workers behind
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(server: Server, path: str, within: float = STARTED_WITHIN) -> None:
    """Until ``path`` is answered with less than 400. Raises :class:`CityBrainError`."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if httpx.get(server.url + path, timeout=5).status_code < 400:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.05)
    last = server.log.read_text(errors="replace")[-2_000:]
    raise CityBrainError(f"{server.url}{path} was not answered within {within:g} s; the server's last words:\n{last}")


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


CITYBRAIN = (sys.executable, "-m", "citybrain_datasets.main")
"""The command, run by the interpreter that runs this one."""
