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
