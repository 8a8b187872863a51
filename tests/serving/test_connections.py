"""A connection that does not ask, or never ends asking, is not kept (OWASP API4)."""

import socket
import threading
from collections.abc import Iterator
from http.client import HTTPResponse
from zlib import crc32

import pytest
import uvicorn

from citybrain_serving import connections
from citybrain_serving.connections import BoundedH11, protocol

ASK = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
fast = pytest.importorskip("citybrain_serving.connections_fast", reason="the extra `fast` is not installed here")


@pytest.fixture(params=[BoundedH11, fast.BoundedHttpTools], ids=["h11", "httptools"])
def connect(request) -> Iterator:
    """Connections to a server that answers before a body is read, and then reads it; at ``/sum`` it answers what it
    read, as a checksum."""

    async def app(scope, receive, send):
        answer = b"ok"
        if scope["path"] == "/sum":
            message = await receive()
            checksum = crc32(message["body"])
            while message["more_body"]:
                message = await receive()
                checksum = crc32(message["body"], checksum)
            answer = b"%08x" % checksum
        length = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": answer})

    server = uvicorn.Server(uvicorn.Config(app, http=request.param, lifespan="off", log_config=None))
    made = []

    def to_server() -> socket.socket:
        made.append(socket.create_connection(listener.getsockname(), timeout=30))
        return made[-1]

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield to_server
        for one in made:
            one.close()
        server.should_exit = True
        thread.join()


def answered(connection: socket.socket) -> bytes:
    """The body of the next answer, which may come after its head."""
    response = HTTPResponse(connection)
    response.begin()
    return response.read()


def test_who_says_nothing_or_half_is_not_waited_for(connect, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    silent, half, second = connect(), connect(), connect()
    half.sendall(ASK)
    second.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answered(second) == b"ok"
    second.sendall(b"GET / HTTP/1.1\r\n")
    assert [one.recv(9_000) for one in (silent, half, second)] == [b""] * 3


def test_a_head_has_a_largest_size(connect):
    asking = connect()
    asking.sendall(ASK)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        asking.sendall((b"X-A: " + b"a" * 8_000 + b"\r\n") * 10_000)


def test_what_fits_is_answered_and_a_body_is_no_head(connect):
    asking = connect()
    wide = ASK + b"X-A: " + b"a" * 12_000 + b"\r\n"
    for part in (wide[:5_000], wide[5_000:], b"\r\n"):
        asking.sendall(part)
    assert answered(asking) == b"ok"
    asking.sendall(b"b" * 100_000 + b"GET / HTTP/1.1\r\nHost: loc")
    asking.sendall(b"alhost\r\n\r\n")
    assert answered(asking) == b"ok"


@pytest.mark.parametrize("size", [0, 1, 1_000, 100_000, 3_000_000])
@pytest.mark.parametrize("chunk", [None, 7, 65_536])
def test_a_body_comes_whole_in_however_many_pieces(connect, size, chunk):
    """As it was sent, or chunked, twice on one connection."""
    body = (b"body " * size)[: size if chunk != 7 else min(size, 10_000)]
    head = b"POST /sum HTTP/1.1\r\nHost: localhost\r\n"
    if chunk is None:
        sent = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        pieces = [body[i : i + chunk] for i in range(0, len(body), chunk)]
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n"
        sent += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    asking = connect()
    for _ in range(2):
        asking.sendall(sent)
        assert answered(asking) == b"%08x" % crc32(body)


def test_the_quicker_parser_is_taken_where_there_is_one():
    assert protocol() is fast.BoundedHttpTools
