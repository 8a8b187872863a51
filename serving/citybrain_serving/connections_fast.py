"""The same bounds for the parser of the extra `fast`."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from citybrain_serving.connections import BoundedHead


class BoundedHttpTools(BoundedHead, HttpToolsProtocol):
    heading = True  # the first is awaited from the connection on

    def on_message_begin(self) -> None:
        self.heading = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.heading = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """What comes of a body in one piece is handed on as it is; uvicorn copies every piece twice."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.body:
                cycle.body, body = body, b""
            elif isinstance(cycle.body, bytes):
                cycle.body = bytearray(cycle.body)  # to bytes each piece more would copy all before it
        super().on_body(body)
