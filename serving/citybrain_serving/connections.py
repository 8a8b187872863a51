"""HTTP as uvicorn speaks it, with bounds on the head of a request.

uvicorn waits for a head for ever, and httptools reads one of any size: whoever opens connections and says nothing, or
never ends, would need no key to take all the files or all the memory that the service may have.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""How long a head may take, from the connection or from its first byte to its last."""

LARGEST_HEAD = 64 * 1024
"""Bytes of a head that is not whole yet; h11 by itself takes no more than 16 KiB."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

if TYPE_CHECKING:
    _Protocol = asyncio.Protocol
else:
    _Protocol = object


class BoundedHead(_Protocol):
    """Mixed into a protocol of uvicorn's, which says whether the :attr:`heading` of a request is still to come."""

    transport: Any
    cycle: Any
    _late: asyncio.TimerHandle | None = None
    _read = 0

    @property
    def heading(self) -> bool:
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        before, heading = self.cycle, self.heading
        super().data_received(data)
        if self.cycle is not before or not self.heading:
            self._stop_waiting()  # a head came; that of another request may have begun
        elif heading:
            self._read += len(data)
        if not self.heading or self.transport.is_closing():
            return
        if self._read > LARGEST_HEAD:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        elif self._late is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._late = asyncio.get_running_loop().call_later(HEAD_S, self.transport.close)

    def _stop_waiting(self) -> None:
        self._read = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None


class BoundedH11(BoundedHead, H11Protocol):
    @property
    def heading(self) -> bool:
        return self.conn.their_state is h11.IDLE


def protocol() -> type[asyncio.Protocol]:
    """The one with the quicker parser where that is installed (the extra `fast`), as uvicorn chooses."""
    try:
        from citybrain_serving.connections_fast import BoundedHttpTools
    except ModuleNotFoundError:
        return BoundedH11
    return BoundedHttpTools
